"""`/session`: the token is exchanged for a cookie."""

from importlib import metadata
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from visionloop.bin.web.api.parameters import Services
from visionloop.bin.web.config import COOKIE
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.security.token import cookie_of, is_equal

router = APIRouter(tags=["session"])
YEAR = 365 * 86400


class SignIn(BaseModel):
    """Token that the server has printed, the part of the link after `#token=`."""

    token: Annotated[str, Field(max_length=200)]


class Session(BaseModel):
    """The server, for a client that is signed in."""

    visionloop: str = Field(description="version")
    data: list[str] = Field(description="folders below which data sets may be named")
    runs: list[str] = Field(description="folders with runs; new ones are written to the first")
    models: list[str] = Field(description="folders below which models may be named")


@router.post("/session", status_code=204)
def sign_in(body: SignIn, response: Response, studio: Services) -> None:
    """Exchange the token for a cookie that no script can read and no other site can send."""
    if not is_equal(body.token, studio.token):
        raise Problem(401, "not_signed_in", "token: not that of this server", field="token")
    response.set_cookie(
        COOKIE,
        cookie_of(studio.token),
        max_age=YEAR,
        httponly=True,
        samesite="strict",
        secure=studio.config.is_tls,
    )


@router.get("/session")
def session(studio: Services) -> Session:
    """Return the roots and the version."""
    return Session(
        visionloop=metadata.version("visionloop"),
        data=[str(path) for path in studio.config.data],
        runs=[str(path) for path in studio.config.runs],
        models=[str(path) for path in studio.config.models],
    )
