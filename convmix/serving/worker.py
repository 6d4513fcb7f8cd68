"""What a prediction worker does: images of one batch -> a row for each, as `convmix predict --format jsonl` writes it.

bytes -> size from the header, foreign formats refused -> Predictor.prepare, several at once -> Predictor.answers -> row or Problem
"""

import base64
import io
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL.Image
import torch

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.data.decode import MODES, BadImage, upright_size
from convmix.inference.embedding import neighbours_for
from convmix.inference.prediction import prediction
from convmix.inference.prediction_files import DetectionFile
from convmix.inference.predictor import Answer, Predictor, Prepared
from convmix.inference.result_files import classes_png
from convmix.models.neighbours import Neighbours
from convmix.plots.overlay import palette
from convmix.results import Classes, SemanticMap
from convmix.serving.messages import ImageMessage
from convmix.serving.problem import Problem
from convmix.serving.schema import MOST_NEAREST
from convmix.system.processors import processors

_PIXELS_SETTING = "data.max_pixels"  # `decode` names the setting that an image is too large for
_DECODERS = 4  # threads at most; Pillow's decoders let go of the interpreter
_HEAD = 1024  # bytes in which programs look for these:
_FOREIGN = re.compile(rb"%PDF-|<script|<!doctype|<html|<\?php|<svg", re.IGNORECASE)
_ZIP_END = b"PK\5\6"  # 22 bytes before the end of an archive, or as much earlier as its comment is long
_ZIP_END_BYTES, _ZIP_COMMENT_BYTES = 22, 65_535


@dataclass(frozen=True)
class PredictWorker:
    """How a worker that answers is made; called in the worker."""

    run: str
    device: str | None
    precision: str
    optimize: str
    pixels: int  # an image with more is refused
    batch_size: int
    workers: int  # that share this machine's processors

    def __call__(self) -> "RequestAnswerer":
        torch.set_num_threads(max(1, torch.get_num_threads() // self.workers))
        artifact = within(load_artifact(self.run), self.pixels)
        predictor = Predictor(
            artifact, images=0, batch_size=self.batch_size, device=self.device, precision=self.precision, optimize=self.optimize,
            neighbours=served_neighbours(artifact, precision=self.precision, optimize=self.optimize), nearest=MOST_NEAREST,
        )  # fmt: skip
        answerer = RequestAnswerer(predictor, pixels=self.pixels)
        answerer.warm_up()
        return answerer


class RequestAnswerer:
    """Orders in, rows out; one caller."""

    def __init__(self, predictor: Predictor, *, pixels: int) -> None:
        self._predictor, self._pixels = predictor, pixels
        self._threads = ThreadPoolExecutor(min(_DECODERS, processors()))

    def __call__(self, orders: Sequence[ImageMessage]) -> list[dict[str, Any] | Problem]:
        """A row or the reason why there is none, for each."""
        replies: list[Any] = list(self._threads.map(self._read, orders))
        for threshold in dict.fromkeys(order.threshold for order in orders):  # one batch per threshold
            asked = [i for i, order in enumerate(orders) if order.threshold == threshold and not isinstance(replies[i], Problem)]
            if asked:
                answers = self._predictor.answers([replies[i].prepared for i in asked], threshold=threshold)
                for i, answer in zip(asked, answers, strict=True):
                    replies[i] = _row(orders[i], answer, replies[i].size)
        return replies

    def warm_up(self) -> None:
        """Answer for a blank image, so that the first client does not wait for what is built on the first call."""
        channels, *size = self._predictor.loads.shape
        blank = io.BytesIO()
        if channels in MODES:
            PIL.Image.new(MODES[channels], (size[1], size[0])).save(blank, "PNG")
        else:
            np.save(blank, np.zeros((*size, channels), np.float32))
        self._predictor.answers([self._predictor.prepare(blank.getvalue())])

    def _read(self, order: ImageMessage) -> "_Read | Problem":
        try:
            size = checked_size(order.data, in_chans=self._predictor.loads.shape[0], pixels=self._pixels)
            return _Read(self._predictor.prepare(order.data), size)
        except Problem as problem:
            return problem
        except BadImage as error:
            return refusal(error, pixels=self._pixels)


@dataclass(frozen=True)
class _Read:
    prepared: Prepared
    size: tuple[int, int]  # height, width of the upright image


def served_neighbours(artifact: Artifact, *, precision: str, optimize: str) -> Neighbours | None:
    """The training images that answers are compared with; None where the model does not know them or is to run without features."""
    return neighbours_for(artifact, 0, nearest=0, plain=optimize != "always" and precision != "int8")


def within(artifact: Artifact, pixels: int) -> Artifact:
    """The artifact with its own limit of pixels lowered to this one."""
    preprocess = artifact.preprocess
    return replace(artifact, preprocess=replace(preprocess, max_pixels=min(pixels, preprocess.max_pixels)))


def checked_size(data: bytes, *, in_chans: int, pixels: int) -> tuple[int, int]:
    """Height and width of the upright image, from its header.

    Raises Problem for too many pixels and for a file that is something else as well: an image that is stored where it came in, and opened
    by a browser or an unpacker there, is an old way in. BadImage as `decode`.
    """
    if _FOREIGN.search(data, 0, _HEAD):
        raise Problem("not_only_an_image", "the file begins like a document or a program")
    if _ends_as_an_archive(data):
        raise Problem("not_only_an_image", "the file is a ZIP archive as well")
    height, width = upright_size(data, in_chans=in_chans, max_pixels=pixels)
    if height * width > pixels:
        raise Problem("image_too_large", f"{width} x {height} pixels, at most {pixels:,} are taken")
    return height, width


def refusal(error: BadImage, *, pixels: int) -> Problem:
    """Why an image cannot be read, as it is said to a client."""
    if _PIXELS_SETTING in error.reason:
        return Problem("image_too_large", f"more than {pixels:,} pixels")
    return Problem("unreadable_image", error.reason)


def _ends_as_an_archive(data: bytes) -> bool:
    at = data.rfind(_ZIP_END, max(0, len(data) - _ZIP_END_BYTES - _ZIP_COMMENT_BYTES))
    return at >= 0 and at + _ZIP_END_BYTES + int.from_bytes(data[at + 20 : at + 22], "little") == len(data)


def _row(order: ImageMessage, answer: Answer, size: tuple[int, int]) -> dict[str, Any] | Problem:
    result = answer.result
    if result is None:
        return Problem("no_answer", answer.error or "the model says nothing about this image")
    shape = {"width": size[1], "height": size[0]}
    if isinstance(result, Classes):
        if answer.likeness is not None:
            answer = replace(answer, likeness=replace(answer.likeness, nearest=answer.likeness.nearest[: order.nearest]))
        return prediction(order.name, answer, top=order.top).to_dict() | shape
    row = DetectionFile(order.name, "", result).to_dict() | shape
    if isinstance(result, SemanticMap):
        row["map"] = base64.b64encode(classes_png(result, palette(len(result.labels)))).decode()
    return row
