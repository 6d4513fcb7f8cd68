"""Requests as they come, JSON or forms, as images and settings; every mistake a Problem that names the field."""

import base64
import binascii
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from convmix.serving.limits import RequestLimits
from convmix.serving.problem import Problem
from convmix.serving.schema import NAME_CHARACTERS, EncodedImage, ExplainRequest, PredictRequest

_Model = TypeVar("_Model", bound=BaseModel)
_FIELD_BYTES = 4096  # of a form's field that is no file


@dataclass(frozen=True)
class Picture:
    """An image as it came."""

    data: bytes  # encoded, not empty
    name: str


@dataclass(frozen=True)
class PredictInput:
    """A request to predict."""

    pictures: tuple[Picture, ...]
    top: int
    threshold: float | None
    nearest: int


@dataclass(frozen=True)
class ExplainInput:
    """A request to explain."""

    picture: Picture
    method: str
    label: str | None


async def read_predict(request: Request, limits: RequestLimits) -> PredictInput:
    """The body of POST /v1/predict."""
    if _kind(request) == "json":
        body = await request.body()
        return await run_in_threadpool(_predict_from_json, body, limits)
    files, fields = await _form(request, "images", limits)
    settings = _settings(PredictRequest, fields, images=[{"data": ""}])
    return PredictInput(_pictures(files, limits), settings.top, settings.threshold, settings.nearest)


async def read_explain(request: Request, limits: RequestLimits) -> ExplainInput:
    """The body of POST /v1/explain."""
    if _kind(request) == "json":
        body = await request.body()
        return await run_in_threadpool(_explain_from_json, body, limits)
    files, fields = await _form(request, "image", limits)
    settings = _settings(ExplainRequest, fields, image={"data": ""})
    if len(files) > 1:
        raise Problem("too_many_images", f"{len(files)} images, one at a time is explained")
    return ExplainInput(_pictures(files, limits)[0], settings.method, settings.label)


def _kind(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return "json"
    if kind == "multipart/form-data":
        return "form"
    words = f"the content type is {kind[:100] or 'missing'}, expected application/json or multipart/form-data"
    raise Problem("unsupported_content_type", words)


def _predict_from_json(body: bytes, limits: RequestLimits) -> PredictInput:
    asked = _from_json(PredictRequest, body)
    pictures = _pictures([(_decoded(image, i), image.name) for i, image in enumerate(_counted(asked.images, limits))], limits)
    return PredictInput(pictures, asked.top, asked.threshold, asked.nearest)


def _explain_from_json(body: bytes, limits: RequestLimits) -> ExplainInput:
    asked = _from_json(ExplainRequest, body)
    return ExplainInput(_pictures([(_decoded(asked.image, 0), asked.image.name)], limits)[0], asked.method, asked.label)


def _from_json(model: type[_Model], body: bytes) -> _Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _as_problem(error) from None


def _as_problem(error: ValidationError) -> Problem:
    """The first mistake that pydantic found; what was given is not repeated, it may be megabytes."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return Problem("bad_request", f"the body is not JSON: {first['msg']}"[:300])
    place = first["loc"]
    if place == ("images",) and first["type"] == "too_short":
        return Problem("no_images", "images is empty")
    where = ".".join(str(part) for part in place)[:100] or "the body"
    image = place[1] if len(place) > 1 and place[0] == "images" and isinstance(place[1], int) else None
    return Problem("invalid_field", f"{where}: {first['msg']}"[:300], image=image)


def _decoded(image: EncodedImage, number: int) -> bytes:
    try:
        return base64.b64decode(image.data, validate=True)
    except (binascii.Error, ValueError):
        raise Problem("bad_base64", "data is not base64 of an image file", image=number) from None


async def _form(request: Request, name: str, limits: RequestLimits) -> tuple[list[tuple[bytes, str | None]], dict[str, str]]:
    """The files called `name`, and the other fields."""
    # One part more than may be, to tell the difference; files stay in memory, where the body's limit holds.
    parser = MultiPartParser(request.headers, request.stream(), max_files=limits.images + 1, max_fields=16, max_part_size=_FIELD_BYTES)
    parser.spool_max_size = sys.maxsize
    try:
        form = await parser.parse()
    except MultiPartException as error:
        code = "too_many_images" if error.message.startswith("Too many files") else "bad_request"
        raise Problem(code, f"the form cannot be read: {error.message}") from None
    except (LookupError, ValueError) as error:  # a charset that is none of text
        raise Problem("bad_request", f"the form cannot be read: {error}"[:300]) from None
    files: list[tuple[bytes, str | None]] = []
    fields: dict[str, str] = {}
    try:
        for field, value in form.multi_items():
            if isinstance(value, UploadFile):
                if field != name:
                    raise Problem("invalid_field", f"there is no file {field[:100]!r}, expected {name}")
                files.append((await value.read(), value.filename))
            elif field == name:
                raise Problem("invalid_field", f"{name} is a part without a file name; send it as a file (curl -F {name}=@cat.jpg)")
            elif field in fields:
                raise Problem("invalid_field", f"{field[:100]} is given twice")
            else:
                fields[field] = value
    finally:
        await form.close()
    if not files:
        raise Problem("no_images", f"the form holds no file called {name}")
    return files, fields


def _settings(model: type[_Model], fields: Mapping[str, str], **images: Any) -> _Model:
    """A form's fields, which are text, checked as those of the JSON body; an empty one is as if it were not there."""
    try:
        return model.model_validate({k: v for k, v in fields.items() if v != ""} | images, strict=False)
    except ValidationError as error:
        raise _as_problem(error) from None


def _counted(images: Sequence[Any], limits: RequestLimits) -> Sequence[Any]:
    if len(images) > limits.images:
        raise Problem("too_many_images", f"{len(images)} images, a request may hold {limits.images}")
    return images


def _pictures(files: Sequence[tuple[bytes, str | None]], limits: RequestLimits) -> tuple[Picture, ...]:
    pictures = []
    for i, (data, name) in enumerate(_counted(files, limits)):
        if not data:
            raise Problem("unreadable_image", "empty file", image=i)
        if len(data) > limits.image_bytes:
            raise Problem("image_too_large", f"{len(data):,} bytes, an image may have {limits.image_bytes:,}", image=i)
        said = (name or f"image {i + 1}").encode("utf-8", "replace").decode()  # a form may hold halves of characters
        pictures.append(Picture(data, said[:NAME_CHARACTERS]))
    return tuple(pictures)
