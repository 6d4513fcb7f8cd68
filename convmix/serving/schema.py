"""The bodies of requests and answers, for the OpenAPI document and for reading JSON requests.

Answers are not run through these on their way out; the tests compare them, schemathesis too.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from convmix.explanation.methods import Method

_BASE64: JsonDict = {"contentEncoding": "base64"}
NAME_CHARACTERS = 255
MOST_NEAREST = 20  # training images that are named beside an answer


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class EncodedImage(_Request):
    """An encoded image file, JPEG, PNG, WebP, TIFF and others, in base64."""

    data: str = Field(json_schema_extra=_BASE64)
    name: str | None = Field(None, max_length=NAME_CHARACTERS, description="comes back in the answer")


class PredictRequest(_Request):
    """Images and what is asked of them."""

    images: list[EncodedImage] = Field(min_length=1)
    top: int = Field(1, ge=1, le=2**31, description="labels per image, the most probable first; for classifiers")
    threshold: float | None = Field(
        None, ge=0, le=1, description="a less probable answer is not sure, an object or a label with less left out; null: the model's own"
    )
    nearest: int = Field(0, ge=0, le=MOST_NEAREST, description="training images to name, the most alike; of classifiers that know theirs")


class ExplainRequest(_Request):
    """An image and what to show in it."""

    image: EncodedImage
    method: Method = "gradcam"
    label: str | None = Field(None, description="null: the most probable one")


class ModelName(BaseModel):
    name: str
    task: str


class LabelShare(BaseModel):
    label: str
    probability: float = Field(ge=0, le=1)


class NearImage(BaseModel):
    """A training image that the model finds alike."""

    name: str = Field(description="as the data set calls it")
    label: str
    cosine: float = Field(ge=-1.01, le=1.01, description="of the two images' features; 1: the same")


class _Row(BaseModel):
    name: str
    width: int = Field(ge=1, description="of the upright image, in pixels")
    height: int = Field(ge=1)
    error: None


class Labelled(_Row):
    """A classifier's answer."""

    label: str
    probability: float = Field(ge=0, le=1, description="calibrated where the model is")
    sure: bool = Field(description="whether the probability reaches the threshold")
    alternatives: list[LabelShare]
    unlike: bool | None = Field(None, description="whether the image is unlike the training images; only where the model knows them")
    distance: float | None = Field(None, description="to the training images, 0..2; only where the model knows them")
    nearest: list[NearImage] | None = Field(None, description="the most alike first; only where the request asks and the model knows names")


class SeveralLabels(_Row):
    """What is said of an image that may have several labels."""

    labels: list[LabelShare] = Field(description="those that reach their thresholds, the most probable first")
    probabilities: dict[str, float] = Field(description="label: its probability, 0..1, each for itself")


class Segmentation(BaseModel):
    size: list[int] = Field(min_length=2, max_length=2, description="height, width")
    counts: str = Field(description="COCO's compressed run lengths")


class FoundObject(BaseModel):
    label: str
    score: float = Field(ge=0, le=1)
    box: list[float] = Field(min_length=4, max_length=4, description="left, top, right, bottom in pixels of the upright image")
    segmentation: Segmentation | None = None


class ObjectsSchema(_Row):
    """What a detector found, the surest first; with outlines where the model gives them."""

    size: list[int] = Field(min_length=2, max_length=2, description="height, width")
    objects: list[FoundObject]


class ClassMap(_Row):
    """A class for every pixel."""

    size: list[int] = Field(min_length=2, max_length=2, description="height, width")
    shares: dict[str, float] = Field(description="label: how much of the image it covers, 0..1")
    certainty: float = Field(description="mean probability of the pixels' classes")
    map: str = Field(description="a PNG with a palette, whose values are the numbers of the labels", json_schema_extra=_BASE64)


class PredictAnswer(BaseModel):
    """A row per image, in their order."""

    model: ModelName
    predictions: list[Labelled | SeveralLabels | ObjectsSchema | ClassMap]


class ExplainAnswer(BaseModel):
    label: str
    method: str
    probability: float = Field(ge=0, le=1)
    overlay: str = Field(description="a PNG of the image as the model sees it; orange speaks for the label", json_schema_extra=_BASE64)


class InputSize(BaseModel):
    height: int
    width: int
    channels: int


class LimitsAnswer(BaseModel):
    image_bytes: int
    request_bytes: int
    pixels: int
    images: int
    queue: int
    connections: int
    head_s: float
    idle_s: float
    time_s: float
    batch_size: int
    batch_wait_ms: float


class TrainingImages(BaseModel):
    """The training images that answers are compared with."""

    count: int
    threshold: float = Field(description="distance above which an image is unlike them")
    named: bool = Field(description="whether `nearest` can name them; an exported model cannot")


class ModelAnswer(ModelName):
    """What is served."""

    architecture: str | None
    labels: list[str]
    palette: list[list[int]] = Field(description="red, green, blue per label, as a class map has them")
    input: InputSize
    metrics: dict[str, Any] = Field(description="split: scores with 95 % intervals")
    calibration: dict[str, Any] | None
    threshold: float | None = Field(description="the model's own; a less probable answer is not sure")
    thresholds: dict[str, float] | None = Field(description="where images have several labels: from which probability on each is said")
    training_images: TrainingImages | None = Field(description="null: this model does not know them, and rows do not speak of them")
    explanations: list[str] = Field(description="methods that POST /v1/explain knows for this model")
    limits: LimitsAnswer
    versions: dict[str, str] = Field(description="of the programs that serve")
    engine: str
    card: str = Field(description="the model card, Markdown")


class ServerState(BaseModel):
    status: Literal["ok", "ready"]


class ErrorBody(BaseModel):
    code: str
    message: str
    image: int | None = Field(description="the position of the image it is about, from 0")


class ErrorAnswer(BaseModel):
    error: ErrorBody
