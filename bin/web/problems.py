"""Errors of the API: RFC 9457 problem objects with `code`, `field` and `hint`."""

import errno
import json
import logging
import sqlite3
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from visionloop.engine.errors import UserError

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Not possible in this state",
    413: "Too large",
    415: "Unsupported media type",
    421: "Wrong host",
    422: "Wrong input",
    429: "Too many requests",
    500: "A defect of visionloop",
    503: "Not available now",
}
# beginnings of names of errors
UNWRITABLE = ("ENOSPC", "EDQUOT", "EROFS", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY")
log = logging.getLogger("visionloop.studio")


class ProblemDetail(BaseModel):
    """Body of an error, RFC 9457. `code` as in the platform contract."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="one line for people: what is wrong, where, what was expected")
    code: str
    field: str | None = None
    hint: str | None = None


class StatusError(BaseModel):
    """Error of a job or a run, as in status.json."""

    code: str
    message: str
    file: str | None = None
    field: str | None = None
    hint: str | None = None


class Problem(Exception):
    """An error that the client gets as a problem object."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.field, self.hint = status, code, field, hint

    @classmethod
    def of(cls, error: UserError) -> "Problem":
        """Return a mistake of the user as the client gets it."""
        return cls(422, error.code, str(error), field=error.field, hint=error.hint)

    def response(self) -> Response:
        body = ProblemDetail(
            title=TITLES.get(self.status, "Error"),
            status=self.status,
            detail=str(self),
            code=self.code,
            field=self.field,
            hint=self.hint,
        )
        # a name of a file may hold what is no valid UTF-8: ASCII escapes it
        content = json.dumps(body.model_dump()).encode("ascii")
        return Response(content, self.status, media_type=MEDIA_TYPE)


# of every endpoint, for OpenAPI
RESPONSES: dict[int | str, dict[str, object]] = {
    status: {"model": ProblemDetail, "description": TITLES[status]}
    for status in (400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 503)
}


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of the app a problem object."""

    async def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def on_user_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, UserError)
        return Problem.of(error).response()

    async def on_http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = "not_found" if error.status_code == 404 else "bad_request"
        response = Problem(error.status_code, code, str(error.detail)).response()
        response.headers.update(error.headers or {})
        return response

    async def on_wrong_input(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = [str(part) for part in first["loc"][1:]]  # after body, query, path or header
        name = ".".join(place) or None
        detail = f"{name}: {first['msg']}" if name else str(first["msg"])
        return Problem(422, "bad_input", detail, field=name).response()

    async def on_full_disk(_: Request, error: Exception) -> Response:
        name = getattr(error, "sqlite_errorname", errno.errorcode.get(getattr(error, "errno", 0)))
        if not (name or "").startswith(UNWRITABLE):
            raise error
        log.error("%s", error)
        detail = "the server cannot write its files: the disk is full or read-only"
        return Problem(503, "no_space", detail, hint="make room in the folder --state").response()

    async def on_defect(_: Request, error: Exception) -> Response:
        log.error("defect", exc_info=error)
        return Problem(
            500, "defect", f"{type(error).__name__}; the log has the traceback"
        ).response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(UserError, on_user_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_wrong_input)
    app.add_exception_handler(OSError, on_full_disk)
    app.add_exception_handler(sqlite3.OperationalError, on_full_disk)
    app.add_exception_handler(Exception, on_defect)


def describe_problems(app: FastAPI) -> None:
    """Let OpenAPI name the media type of problem objects, which FastAPI takes for plain JSON."""
    make_description = app.openapi

    def openapi() -> dict[str, Any]:
        is_made = app.openapi_schema is not None
        description = make_description()
        if not is_made:
            for path in description["paths"].values():
                for operation in path.values():
                    for status, response in operation["responses"].items():
                        if status >= "400":
                            response["content"] = {
                                MEDIA_TYPE: response["content"]["application/json"]
                            }
        return description

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's pages do it
