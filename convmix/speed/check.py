"""Whether a faster model still is the same model: its outputs beside those of the float32 original, on the same images."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from convmix.errors import ModelError
from convmix.speed.backends import Dtype


@dataclass(frozen=True)
class OutputTolerance:
    """What an output may differ by from the original's; whatever breaks one of these is rejected."""

    difference: float  # of any output, as a share of the original's largest
    changed: float  # share of the images whose first class is another one
    lost: float = 0.005  # share of the images that were right before and in sum no more; a single image is no evidence


LIMITS: dict[Dtype, OutputTolerance] = {  # several times what a correct engine shows, far below what a wrong one does
    "fp32": OutputTolerance(1e-4, 0.005),
    "bf16": OutputTolerance(0.05, 0.02),
    "autocast": OutputTolerance(0.05, 0.02),  # in bf16
    "int8": OutputTolerance(0.25, 0.05),
}


@dataclass(frozen=True)
class Original:
    """Images with what the original says about them. Raises ModelError where that is not finite."""

    images: Tensor  # n,C,H,W float32
    outputs: Tensor  # n,k float32
    targets: Tensor | None = None  # n, the right classes
    is_noise: bool = False  # no images but noise, on which no class is right

    def __post_init__(self) -> None:
        if not self.outputs.isfinite().all():
            raise ModelError("the model's output is not finite, so nothing can be compared with it")

    @cached_property
    def largest(self) -> float:
        """Of the outputs, by magnitude; what differences are a share of."""
        return max(float(self.outputs.abs().max()), 1e-30)

    @property
    def correct(self) -> int | None:
        """Images with the right class, where the right ones are known."""
        return self.count_correct(self.outputs)

    def difference(self, outputs: Tensor) -> float:
        """Of m,k outputs for the first m images: the largest, as a share; NaN where an output is."""
        return float((outputs - self.outputs[: len(outputs)]).abs().max()) / self.largest

    def count_changed(self, outputs: Tensor) -> int | None:
        """Of n,k outputs: images whose first class is another one; None for noise."""
        return None if self.is_noise else int((outputs.argmax(1) != self.outputs.argmax(1)).sum())

    def count_correct(self, outputs: Tensor) -> int | None:
        """Of n,k outputs: images with the right class, where the right ones are known."""
        return None if self.targets is None else int((outputs.argmax(1) == self.targets).sum())

    def objection(self, outputs: Tensor, limits: OutputTolerance) -> str | None:
        """Why outputs, m,k for the first m images, break the limits; None where they don't. Classes are counted on all images only."""
        difference = self.difference(outputs)
        if not difference <= limits.difference:  # also for NaN
            return f"wrong: an output differs by {difference:.1e} of the largest, {limits.difference:.0e} is allowed"
        n = len(self.outputs)
        if len(outputs) < n:
            return None
        changed = self.count_changed(outputs)
        if changed is not None and changed > limits.changed * n:
            return f"another class for {changed} of {n} images, {100 * limits.changed:g} % are allowed"
        before, after = self.correct, self.count_correct(outputs)
        if before is not None and after is not None and before - after > max(1, limits.lost * n):
            return f"right for {after} of {n} images, the original for {before}; {100 * limits.lost:g} % are allowed"
        return None
