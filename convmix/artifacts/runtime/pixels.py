"""What is left of the preprocessing in front of an exported graph that has the rest of it inside.

The pipeline asks them what it asks `Preprocess`, and gets levels 0..255 (0..1 of what is no picture) where it else gets normalised values.
"""

from dataclasses import fields
from typing import Self

import numpy as np
import PIL.Image
from torch import Tensor

from convmix.data.decode import MODES, Image
from convmix.data.preprocessing import Preprocess


class Pixels(Preprocess):
    """Images brought to the input size and left there: what graphs with the normalisation inside take."""

    @classmethod
    def of(cls, preprocess: Preprocess) -> Self:
        return cls(**{f.name: getattr(preprocess, f.name) for f in fields(Preprocess)})

    def affine(self, *, levels: int) -> tuple[np.ndarray, np.ndarray]:
        """Nothing but the change from 0..levels to what the graph takes."""
        top = 255 if self.in_chans in MODES else 1
        return np.full((self.in_chans, 1, 1), top / levels, np.float32), np.zeros((self.in_chans, 1, 1), np.float32)

    def place(self, image: Image) -> Image:
        return super().place(self._picture(image))

    def _picture(self, image: Image) -> Image:
        """An array where the graph takes pictures: rounded to 8 bits, as 16-bit pictures are."""
        if not isinstance(image, np.ndarray) or self.in_chans not in MODES:
            return image
        levels_hwc = np.rint(image * 255).clip(0, 255).astype(np.uint8)
        return PIL.Image.fromarray(levels_hwc[:, :, 0] if self.in_chans == 1 else levels_hwc, MODES[self.in_chans])


class WholePixels(Pixels):
    """Whole images: what graphs take that resize inside. One at a time goes through the pipeline, for they differ in size."""

    def place(self, image: Image) -> Tensor:  # type: ignore[override]  # `Loads.change` may give either
        return self.normalise(self._picture(image))

    def normalise(self, image: Image | Tensor) -> Tensor:
        """C,H,W levels, also of what has been through here before."""
        return image if isinstance(image, Tensor) else super().normalise(image)
