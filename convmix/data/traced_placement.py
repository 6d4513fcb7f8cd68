"""`Placement` inside an exported graph: numbers that depend on the size of the image that comes are tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from convmix.config import Size


@dataclass(frozen=True)
class TracedPlacement:
    """Images of one size on an input of `input_size`; image pixel (y, x) * scale + offset = input pixel, edges rather than centres."""

    size: tuple[int, int]  # height, width of the images, whole; symbolic (torch.SymInt) while a graph is made
    input_size: Size  # of the network's input
    scale: tuple[Tensor, Tensor]  # vertical, horizontal: input pixels per image pixel; float32 without dimensions
    offset: tuple[Tensor, Tensor]  # top, left of the image on the input, input pixels, negative where it is cut off; float32 likewise

    def boxes_to_image(self, boxes: Tensor) -> Tensor:
        """As Placement's, for N,n,4."""
        (sy, sx), (top, left) = self.scale, self.offset
        height, width = (torch.scalar_tensor(length, dtype=boxes.dtype, device=boxes.device) for length in self.size)
        x = torch.minimum(((boxes[..., 0::2] - left) / sx).clamp(min=0), width)
        y = torch.minimum(((boxes[..., 1::2] - top) / sy).clamp(min=0), height)
        return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1)

    def maps_to_image(self, maps: Tensor) -> Tensor:
        """As Placement's `map_to_image`, for N,k,h,w: rows, then columns, each between its two nearest cells."""
        for axis in (0, 1):
            at = self._seen_from(axis, maps.shape[2 + axis], maps.device)
            before = at.floor().long()
            behind = (before + 1).clamp(max=maps.shape[2 + axis] - 1)
            share = (at - before)[:, None] if axis == 0 else at - before
            near, far = maps.index_select(2 + axis, before), maps.index_select(2 + axis, behind)
            maps = near + (far - near) * share
        return maps

    def _seen_from(self, axis: int, cells: int, device: torch.device) -> Tensor:
        """Where the centres of the image's rows (axis 0) or columns (1) fall among the centres of so many cells over the input, 0 to
        cells - 1; none nearer to the image's edge than half a cell."""
        size, scale, offset, length = self.size[axis], self.scale[axis], self.offset[axis], self.input_size[axis]
        centres = (torch.arange(size, dtype=torch.float32, device=device) + 0.5) * scale + offset  # input pixels
        first, last = offset.clamp(min=0), (offset + size * scale).clamp(max=length)
        inset = (last - first).clamp(max=length / cells) / 2
        inside = torch.minimum(torch.maximum(centres, first + inset), last - inset)
        return (inside / length * cells - 0.5).clamp(0, cells - 1)
