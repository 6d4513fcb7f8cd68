"""What the explanation worker does: one image -> where in it a class is seen, as a picture of the image with the map over it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.data.decode import BadImage
from convmix.errors import ConfigError
from convmix.explanation.attribution import attribute, check_methods
from convmix.explanation.attribution_maps import overlaid
from convmix.explanation.subject import Subject, prepare
from convmix.inference.batches import resolve
from convmix.serving.messages import ExplainMessage
from convmix.serving.problem import Problem
from convmix.serving.worker import checked_size, refusal, within


@dataclass(frozen=True)
class Explaining:
    """How the worker that explains is made; called in the worker."""

    run: str
    device: str | None
    pixels: int  # an image with more is refused

    def __call__(self) -> "Explainer":
        torch.set_num_threads(max(1, torch.get_num_threads() // 2))  # predictions go on beside it
        return Explainer(within(load_artifact(self.run), self.pixels), device=resolve(self.device, "fp32")[0], pixels=self.pixels)


class Explainer:
    """Orders in, overlays out; one caller."""

    def __init__(self, artifact: Artifact, *, device: torch.device, pixels: int) -> None:
        self._artifact, self._device, self._pixels = artifact, device, pixels
        self._subject: Subject | None = None  # made with the first image, which shows where the model holds maps

    def __call__(self, orders: Sequence[ExplainMessage]) -> list[dict[str, Any] | Problem]:
        """What POST /v1/explain answers, for each."""
        replies: list[dict[str, Any] | Problem] = []
        for order in orders:
            try:
                replies.append(self._explain(order))
            except Problem as problem:
                replies.append(problem)
            except BadImage as error:
                replies.append(refusal(error, pixels=self._pixels))
            except ConfigError as error:  # captum is missing
                replies.append(Problem("cannot_explain", str(error)))
        return replies

    def _explain(self, order: ExplainMessage) -> dict[str, Any]:
        preprocess, labels = self._artifact.preprocess, self._artifact.labels
        check_methods([order.method])
        checked_size(order.data, in_chans=preprocess.in_chans, pixels=self._pixels)
        image = preprocess.load(order.data).to(self._device)  # C,H,W
        subject = self._subject = self._subject or prepare(self._artifact, image[None], self._device)
        if order.method == "gradcam" and subject.layer is None:
            raise Problem("cannot_explain", "no layer of this model holds a map over the image, as gradcam needs; take saliency")
        shares = subject.probabilities(image[None])[0]  # k
        if not shares.isfinite().all():
            raise Problem("no_answer", "the model's output is not finite")
        column = labels.index(order.label) if order.label is not None else int(shares.argmax())
        heat = attribute(subject.model, image[None], [column], method=order.method, layer=subject.layer)[0]  # H,W
        return {
            "label": labels[column],
            "method": order.method,
            "probability": float(shares[column]),
            "overlay": base64.b64encode(_overlay(preprocess.denormalise(image), heat)).decode(),
        }


def _overlay(pixels: Tensor, heat: Tensor) -> bytes:
    """A PNG of the image C,H,W uint8, as the model sees it, with the map H,W over it."""
    picture = overlaid(pixels.cpu().numpy(), heat.numpy())  # H,W,3 in 0..1
    out = io.BytesIO()
    PIL.Image.fromarray((255 * picture).round().clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()
