"""`/predictions`: models of this machine predict an uploaded image."""

import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from visionloop.bin.model_zoo.listing import find_model as find_zoo_model
from visionloop.bin.web.api.parameters import Services
from visionloop.bin.web.config import API
from visionloop.bin.web.inference.messages import MAX_TOP, ImageName, Prediction
from visionloop.bin.web.inference.process import ModelKey
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.runs.index import signature_of
from visionloop.bin.web.security.roots import resolve_below
from visionloop.bin.web.tables.local_models import (
    WEIGHTS,
    LocalModel,
    TaskName,
    find_local_models,
    task_of,
)
from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.hub import check_folder

router = APIRouter(tags=["predictions"])
UPLOAD_SECONDS = 120  # a client that has lost its network must not keep a place for ever


class PredictedImage(Prediction):
    """The prediction of an image, with addresses of the images that belong to it."""

    id: str
    seconds: float = Field(description="from the upload to the prediction, loading included")
    images: dict[ImageName, str] = Field(  # type: ignore[assignment]  # addresses of the names
        default={}, description="kept until other predictions take their place"
    )


class LocalModels(BaseModel):
    """Models that can be tried."""

    models: list[LocalModel]


@router.get("/predictions/models")
def models_to_try(studio: Services) -> LocalModels:
    """List the models below the roots, those that were written last first."""
    return LocalModels(models=find_local_models(studio.config.models))


async def uploaded_image(request: Request, studio: Services) -> AsyncIterator[bytes]:
    """Read the body, if few enough others wait. Raises Problem for one that is no image."""
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("image/"):
        raise Problem(
            415,
            "unsupported_media_type",
            "Content-Type: expected image/jpeg, image/png, image/webp or image/bmp",
            field="content-type",
            hint="send the bytes of the file as the body",
        )
    with studio.predictors.upload():
        try:
            with anyio.fail_after(UPLOAD_SECONDS):
                body = await request.body()
        except ClientDisconnect:
            raise Problem(400, "bad_input", "body: the upload has ended early") from None
        except TimeoutError:
            detail = f"body: not complete within {UPLOAD_SECONDS} s"
            raise Problem(400, "timeout", detail, field="body") from None
        if not body:
            raise Problem(422, "bad_input", "body: expected an image, got nothing", field="body")
        yield body


@router.post(
    "/predictions",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
def predict(
    image: Annotated[bytes, Depends(uploaded_image)],
    studio: Services,
    model: Annotated[
        str, Query(max_length=4096, description="folder below the roots, or name of the zoo")
    ],
    task: Annotated[TaskName | None, Query(description="default: as config.json says")] = None,
    top_k: Annotated[int, Query(ge=1, le=MAX_TOP, description="classes to return")] = 5,
    attention: Annotated[bool, Query(description="draw the attention of a classifier")] = False,
) -> PredictedImage:
    """Predict the image in the body with a model. Its first image waits until it is loaded."""
    started = time.monotonic()
    key = find_model(model, task, studio.config.models)
    if attention and key.task != "classification":
        raise Problem(
            422,
            "bad_input",
            f"attention: not for {key.task}, only for classification",
            field="attention",
        )
    id, prediction = studio.predictors.predict(key, image, top_k=top_k, attention=attention)
    return PredictedImage(
        **prediction.model_dump(exclude={"images"}),
        id=id,
        seconds=round(time.monotonic() - started, 3),
        images={name: f"{API}/predictions/{id}/{name}" for name in prediction.images},
    )


@router.get("/predictions/{name}/{kind}", response_class=Response)
def prediction_image(
    name: Annotated[str, PathParameter(max_length=40)], kind: ImageName, studio: Services
) -> Response:
    """Return an image of a prediction, as PNG."""
    return Response(studio.predictors.image(name, kind), media_type="image/png")


def find_model(model: str, task: TaskName | None, roots: tuple[Path, ...]) -> ModelKey:
    """Return the folder of a model below the roots, or its name in the model zoo, with the task.

    Raises:
        Problem: the path or a file is outside the roots, or the task is not known.
        UserError: a folder without config.json and safetensors.
    """
    with suppress(UserError):
        zoo, released = find_zoo_model(model, task)
        if zoo.is_released(released):
            return ModelKey(zoo.command, released.model_id)
    folder = check_folder(resolve_below(model, roots, "model"))
    known = task_of(folder)
    if task is None and known is None:
        raise Problem(
            422,
            "unknown_task",
            f"model {folder}: config.json names no architecture of a task",
            field="task",
            hint="give the task",
        )
    for path in folder.iterdir():
        resolve_below(str(path), roots, "model")
    files = (str(folder / name) for name in ("config.json", *WEIGHTS))
    return ModelKey(task or str(known), str(folder), tuple(map(signature_of, files)))
