"""Lines between the server and a worker: one JSON object each, in both directions."""

from typing import Literal

from pydantic import BaseModel, Field

from visionloop.engine.types import JsonObject

ImageName = Literal["ids", "segments", "result", "input", "attention"]
MAX_TOP = 100


class Box(BaseModel):
    """A detected object; coordinates in pixels of the upright image."""

    box: tuple[float, float, float, float] = Field(description="x0, y0, x1, y1")
    label: str
    id: int
    score: float


class ClassScore(BaseModel):
    """A class of a classification."""

    id: int
    label: str
    score: float = Field(description="softmax probability")


class ClassShare(BaseModel):
    """A class of a segmented image."""

    id: int = Field(description="value in the image `ids`")
    label: str
    share: float = Field(description="of the pixels, 0 to 1")
    color: tuple[int, int, int]


class Segment(BaseModel):
    """A segment of an image: an object, or all of a class of stuff.

    The mask of an instance is in the row of `prediction`; that of a panoptic segment are the pixels
    with its number.
    """

    number: int = Field(
        description="from 1 on, in the order of `prediction`; value in the image `segments`"
    )
    label: str
    id: int = Field(description="of the class")
    score: float
    area: int = Field(description="pixels")
    box: tuple[float, float, float, float] = Field(description="x0, y0, x1, y1")
    is_thing: bool = Field(description="an object; false: stuff")


class PredictionRequest(BaseModel):
    """One image to predict.

    image: file; output: existing folder for the images of the prediction.
    """

    image: str
    output: str
    top_k: int
    attention: bool


class Prediction(BaseModel):
    """The prediction of one image.

    images: names of PNG files in the output folder.
    """

    task: str
    width: int
    height: int
    prediction: JsonObject = Field(description="the row of predictions.jsonl")
    top: list[ClassScore] | None = Field(default=None, description="of classification, best first")
    boxes: list[Box] | None = Field(default=None, description="of detection, best first")
    classes: list[ClassShare] | None = Field(
        default=None, description="of semantic segmentation, largest first"
    )
    segments: list[Segment] | None = Field(
        default=None, description="of instance and panoptic segmentation, best first"
    )
    explanations: list[str] = Field(
        default=[], description="kinds that this model can be asked for"
    )
    images: list[ImageName] = []


class Failure(BaseModel):
    """Reason why there is no prediction, as a problem object holds it."""

    status: int
    code: str
    message: str
    field: str | None = None
    hint: str | None = None


class Reply(BaseModel):
    """A line of a worker: `ready` once the model is loaded, then one of the others a request."""

    ready: bool = False
    prediction: Prediction | None = None
    failure: Failure | None = None
