"""What a model says about images, one small validated type per task."""

from dataclasses import dataclass

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
