"""What is said to a client whose request cannot be answered: always {"error": {"code", "message", "image"}}."""

from collections.abc import Mapping
from typing import Any

# code -> (status, what it means); the OpenAPI document lists them
PROBLEMS: Mapping[str, tuple[int, str]] = {
    "bad_request": (400, "the body is not what its content type says"),
    "invalid_field": (400, "a field is unknown, missing or out of its range"),
    "bad_base64": (400, "the data of an image is not base64"),
    "no_images": (400, "the request holds no image"),
    "too_many_images": (400, "more images than a request may hold"),
    "unauthorized": (401, "the API key is missing or wrong"),
    "not_found": (404, "there is no such route"),
    "method_not_allowed": (405, "the route has no such method"),
    "too_slow": (408, "the head or the body of the request did not arrive in time"),
    "length_required": (411, "the length of the body is not a number"),
    "request_too_large": (413, "the body has too many bytes"),
    "image_too_large": (413, "an image has too many bytes or pixels"),
    "unsupported_content_type": (415, "the content type is neither JSON nor a form with files"),
    "wrong_host": (421, "the server does not answer to the name in the header Host"),
    "unreadable_image": (422, "an image is empty, truncated, broken or no image of a known format"),
    "not_only_an_image": (422, "an image is an archive, a document or a program as well"),
    "unknown_label": (422, "the model has no such label"),
    "cannot_explain": (422, "this model or this installation cannot be explained"),
    "queue_full": (429, "too many images wait already; try again after Retry-After seconds"),
    "internal": (500, "a mistake of the server"),
    "no_answer": (503, "the image ended the worker that computed it, twice, or the model's output is not finite"),
    "not_ready": (503, "no worker can answer yet"),
    "too_many_connections": (503, "the server has all the connections it takes"),
    "timeout": (504, "the answer was not there in time"),
}


class Problem(Exception):  # noqa: N818 - raised to be answered, not a mistake of the program
    """A refusal; `image` is the position of the image it is about, from 0."""

    def __init__(self, code: str, message: str, *, image: int | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code, message, image, headers)
        self.code, self.message, self.image, self.headers = code, message, image, dict(headers or {})

    @property
    def status(self) -> int:
        return PROBLEMS[self.code][0]

    def to_dict(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message, "image": self.image}}

    def of_image(self, image: int) -> "Problem":
        """The same, about this image."""
        return Problem(self.code, self.message, image=image, headers=self.headers)

    def __reduce__(self) -> tuple[Any, ...]:
        return _problem, (self.code, self.message, self.image, self.headers)  # it crosses from the worker process


def _problem(code: str, message: str, image: int | None, headers: Mapping[str, str]) -> Problem:
    return Problem(code, message, image=image, headers=headers)
