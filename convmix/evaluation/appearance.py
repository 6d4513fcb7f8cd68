"""What the scored images look like: their size as they came, and how bright they are.

No second pass over the pixels: the size stands in a file's header, and the brightness is taken from the batches on their way to the model,
so it is that of the part that the model sees.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from convmix.data.decode import MODES, upright_size
from convmix.data.examples import Examples
from convmix.data.loaders import Batch
from convmix.data.preprocessing import Preprocess

_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


class Brightness:
    """Notes the brightness of every image that passes."""

    def __init__(self, preprocess: Preprocess) -> None:
        self._scale, self._shift = (torch.from_numpy(a)[:, 0, 0].double() for a in preprocess.affine(levels=1))
        self._seen: list[np.ndarray] = []

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches."""
        for batch in batches:
            if len(batch):
                # the mean of normalised pixels is the normalised mean of the pixels
                channels = (batch.images.mean((2, 3)).double().cpu() - self._shift) / self._scale  # n,C,H,W -> n,C
                is_colour = channels.shape[1] in MODES and channels.shape[1] > 1
                level = channels[:, :3] @ torch.tensor(_LUMA, dtype=torch.float64) if is_colour else channels.mean(1)  # n,C -> n
                self._seen.append(level.numpy())
            yield batch

    @property
    def values(self) -> np.ndarray:
        """n float64 in the order seen, 0 black to 255 white; of colours their luma, of other channels the mean."""
        return 255 * np.concatenate(self._seen) if self._seen else np.empty(0)


def original_sizes(examples: Examples, indices: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Height and width in pixels of images that can be read, upright, before any preprocessing: n,2 int64."""
    limits = {"in_chans": preprocess.in_chans, "max_pixels": preprocess.max_pixels}
    return np.array([upright_size(examples.source(i), **limits) for i in indices], dtype=np.int64).reshape(-1, 2)
