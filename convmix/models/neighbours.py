"""Which training images an image is like, and whether it is like any of them at all.

    features of the training images n,d  -- unit length -->  Neighbours
    features of an image -> cosine to each of them -> the nearest by name; distance of the K-th nearest -> "unlike the training images"

The distance of the K-th nearest neighbour is the score of Sun et al. 2022 (arXiv 2204.06507); its threshold leaves `FALSE_ALARMS` of the
validation images above it. Kept in the model directory as neighbours.safetensors, which training and `embed` write and nobody
changes; it tells of single images, by name, and so stays at home when a model is pushed. An export has it without the names.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convmix.errors import RunError

FILE = "neighbours.safetensors"
FACT = "weights"  # under which an export says what it was made from
K = 5
FALSE_ALARMS = 0.02
FEWEST = 30  # validation images that a threshold is taken from; with fewer the training images judge each other
AT_ONCE = 1_024  # rows of a product


@dataclass(frozen=True)
class Neighbours:
    """The training images of a run in the space of its features."""

    features: Tensor  # n,d float32 of length 1
    labels: Tensor  # n int64
    names: tuple[str, ...]  # n, as in splits.csv; none in an export, which strangers may get
    threshold: float  # distance above which an image is unlike them, 0..2
    threshold_from: str  # "validation" or "training"
    weights: str  # digest of the model's weights file, whose features these are

    def distances(self, features: Tensor, *, but_itself: bool = False) -> Tensor:
        """m,d -> m float32: one minus the cosine of the K-th nearest; but_itself: these are the training images, each in its place."""
        k = min(K + but_itself, len(self.features))
        return torch.cat([1 - part.topk(k, dim=1).values[:, -1] for part in self._cosines(features)]) if len(features) else torch.empty(0)

    def nearest(self, features: Tensor, count: int) -> list[list[tuple[int, float]]]:
        """m,d -> per image the positions and cosines of the nearest training images, the nearest first."""
        found: list[list[tuple[int, float]]] = []
        for part in self._cosines(features):
            values, places = part.topk(min(count, len(self.features)), dim=1)
            found += [list(zip(p, v, strict=True)) for p, v in zip(places.tolist(), values.tolist(), strict=True)]
        return found

    def _cosines(self, features: Tensor) -> Sequence[Tensor]:
        """m,n, some rows at a time."""
        return [unit(part) @ self.features.T for part in features.float().split(AT_ONCE)]

    def nameless(self) -> "Neighbours":
        """For an export."""
        return replace(self, names=())

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """What the file holds: features in half precision, and its header."""
        about = {"names": list(self.names), "threshold": self.threshold, "threshold_from": self.threshold_from, "weights": self.weights}
        return {"features": self.features.half(), "labels": self.labels}, {"neighbours": json.dumps(about)}


def unit(features: Tensor) -> Tensor:
    """Rows of length 1."""
    return torch.nn.functional.normalize(features.float(), dim=1)


def make_neighbours(train: Tensor, labels: Tensor, names: Sequence[str], validation: Tensor | None, *, weights: str) -> Neighbours:
    """train n,d, validation m,d: features of the plain view, all images of each split."""
    features = unit(train).half().float()  # as the file will have them
    own = Neighbours(features, labels, tuple(names), 2.0, "training", weights)
    if validation is not None and len(validation) >= FEWEST:
        distances, source = own.distances(validation), "validation"
    else:
        distances, source = own.distances(train, but_itself=True), "training"
    return Neighbours(features, labels, tuple(names), float(distances.quantile(1 - FALSE_ALARMS)), source, weights)


def read_neighbours(run: Path, *, exported: Mapping[str, Any] | None = None) -> Neighbours | None:
    """Those of a model directory; None where it has none, or only those of other weights. RunError for a broken file.

    exported: of an export what it says of itself (`Artifact.info`); the digest of the weights that it was made from is in there.
    """
    from safetensors import SafetensorError, safe_open

    path = run / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads(file.metadata()["neighbours"])
            features, labels = file.get_tensor("features").float(), file.get_tensor("labels")
        found = Neighbours(
            features, labels, tuple(about["names"]), float(about["threshold"]), about["threshold_from"], about["weights"]
        )  # fmt: skip
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {str(error).splitlines()[0]}; delete it, `predict --nearest` makes it again") from None
    weights = digest_of_weights(run) if exported is None else exported.get(FACT)
    return found if found.weights == weights else None


def digest_of_weights(run: Path) -> str:
    """16 hex digits of the model's weights."""
    return digest_of_file(run / "model.safetensors")


def digest_of_file(path: Path) -> str:
    """16 hex digits of its bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
