"""What a model says about images, one small validated type per task."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Classes:
    """Classification of n images into k classes."""

    probabilities: Tensor  # n,k float32, every row sums to 1
    labels: tuple[str, ...]  # k names, in the order of the columns
    threshold: float | None = None  # an image whose best probability is below it is not sure; None: all are sure

    def __post_init__(self) -> None:
        p = self.probabilities
        if p.ndim != 2 or p.shape[1] != len(self.labels):
            raise ValueError(f"probabilities are {tuple(p.shape)}, expected n,{len(self.labels)}")
        if not torch.allclose(p.sum(1), torch.ones(len(p), dtype=p.dtype), atol=1e-3):
            raise ValueError("probabilities do not sum to 1 over the classes")

    @property
    def sure(self) -> Tensor:
        """Whether the best probability of each image reaches the threshold: n bool."""
        best = self.probabilities.amax(1).double()  # as exact as the threshold
        return best >= (0.0 if self.threshold is None else self.threshold)

    def top(self, k: int = 1) -> list[list[tuple[str, float]]]:
        """Per image the k most probable (label, probability), best first."""
        values, columns = self.probabilities.topk(min(k, len(self.labels)), dim=1)
        return [
            [(self.labels[c], float(v)) for v, c in zip(row_v, row_c, strict=True)]
            for row_v, row_c in zip(values.tolist(), columns.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class ImageLabels:
    """Which labels one image has, where an image may have several or none."""

    probabilities: Tensor  # k float32, 0..1, each for itself
    thresholds: Tensor  # k float64: from this probability on the image is said to have the label
    labels: tuple[str, ...]  # k names

    def __post_init__(self) -> None:
        p, k = self.probabilities, len(self.labels)
        if p.shape != (k,) or self.thresholds.shape != (k,):
            raise ValueError(f"probabilities are {tuple(p.shape)}, thresholds {tuple(self.thresholds.shape)}, expected {k} of both")
        if k and not (float(p.min()) >= 0 and float(p.max()) <= 1):
            raise ValueError(f"probabilities lie in {float(p.min())}..{float(p.max())}, expected 0..1")

    @property
    def present(self) -> Tensor:
        """Whether the image is said to have each label: k bool."""
        return self.probabilities.double() >= self.thresholds

    def said(self) -> list[tuple[str, float]]:
        """The labels that the image is said to have, with their probabilities, the most probable first."""
        ranked = sorted(zip(self.labels, self.probabilities.tolist(), self.present.tolist(), strict=True), key=lambda row: -row[1])
        return [(label, probability) for label, probability, is_present in ranked if is_present]


@dataclass(frozen=True)
class Boxes:
    """Objects found in one image, the surest first."""

    boxes: Tensor  # n,4 float32 xyxy, pixels of the upright image
    scores: Tensor  # n float32, 0..1
    columns: Tensor  # n int64, indices of `labels`
    labels: tuple[str, ...]
    size: tuple[int, int]  # height, width of the image

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.boxes.shape != (n, 4) or self.columns.shape != (n,):
            raise ValueError(f"boxes are {tuple(self.boxes.shape)}, columns {tuple(self.columns.shape)}, expected {n},4 and {n}")
        if n and not 0 <= int(self.columns.min()) <= int(self.columns.max()) < len(self.labels):
            raise ValueError(f"columns run to {int(self.columns.max())}, expected indices of {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> Self:
        """Those whose score reaches the threshold."""
        return self.take(self.scores.double() >= threshold)

    def take(self, which: Tensor) -> Self:
        """Those at these positions, n int64, or where n bool is true."""
        return replace(self, boxes=self.boxes[which], scores=self.scores[which], columns=self.columns[which])


@dataclass(frozen=True)
class Masks(Boxes):
    """Objects found in one image with their outlines, the surest first."""

    masks: tuple[bytes, ...] = ()  # n COCO RLE counts (compressed) over `size`; `data.rle` reads them

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.masks) != len(self.scores):
            raise ValueError(f"{len(self.masks)} masks for {len(self.scores)} objects")

    def take(self, which: Tensor) -> Self:
        positions = which.nonzero()[:, 0] if which.dtype == torch.bool else which
        return replace(
            self, boxes=self.boxes[positions], scores=self.scores[positions], columns=self.columns[positions],
            masks=tuple(self.masks[i] for i in positions.tolist()),
        )  # fmt: skip


@dataclass(frozen=True)
class SemanticMap:
    """A class for every pixel of one image."""

    classes: Tensor  # H,W uint8 (int16 above 255 classes), indices of `labels`
    certainty: Tensor  # H,W float32: the probability of that class
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.classes.ndim != 2 or self.certainty.shape != self.classes.shape:
            raise ValueError(f"classes are {tuple(self.classes.shape)}, certainty {tuple(self.certainty.shape)}, expected H,W both")

    @property
    def shares(self) -> Tensor:
        """How much of the image each class covers: k float64, summing to 1."""
        return torch.bincount(self.classes.flatten().long(), minlength=len(self.labels)).double() / self.classes.numel()
