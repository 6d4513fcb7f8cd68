"""Where an image lies on the model's input, and the way back: boxes and maps between the two frames.

    image pixel (y, x)  --  * scale + offset -->  input pixel

Boxes are left, top, right, bottom, edges rather than centres, so no half pixels appear: the whole image is the box 0, 0, width, height.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from convmix.config import Size


@dataclass(frozen=True)
class Placement:
    """An image of `size` on an input of `input_size`; where a part of it is cut off, the offset is negative."""

    size: Size  # height, width of the upright image
    input_size: Size  # of the model's input
    scale: tuple[float, float]  # vertical, horizontal: input pixels per image pixel
    offset: tuple[int, int]  # top, left of the image on the input, input pixels

    @property
    def laid_size(self) -> Size:
        """Height and width of the whole image in input pixels."""
        return round(self.size[0] * self.scale[0]), round(self.size[1] * self.scale[1])

    @property
    def shown(self) -> tuple[int, int, int, int]:
        """Top, left, height, width of the part of the input that shows the image."""
        (height, width), (top, left), (room_h, room_w) = self.laid_size, self.offset, self.input_size
        first, before = max(top, 0), max(left, 0)
        return first, before, min(top + height, room_h) - first, min(left + width, room_w) - before

    def boxes_to_image(self, boxes: Tensor) -> Tensor:
        """n,4 xyxy on the input -> n,4 xyxy on the image, cut to it."""
        (sy, sx), (top, left), (height, width) = self.scale, self.offset, self.size
        x = ((boxes[:, 0::2] - left) / sx).clamp(0, width)
        y = ((boxes[:, 1::2] - top) / sy).clamp(0, height)
        return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)

    def boxes_to_input(self, boxes: Tensor) -> Tensor:
        """n,4 xyxy on the image -> n,4 xyxy on the input, cut to it."""
        (sy, sx), (top, left), (height, width) = self.scale, self.offset, self.input_size
        x = (boxes[:, 0::2] * sx + left).clamp(0, width)
        y = (boxes[:, 1::2] * sy + top).clamp(0, height)
        return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)

    def map_to_image(self, maps: Tensor) -> Tensor:
        """k,h,w floats over the input, at any resolution -> k,height,width float32 over the image, bilinear.

        What lies beside the image on the input is not mixed in, and what `crop` cut off repeats the nearest shown border.
        """
        y, x = (self._seen_from(axis, cells, maps.device) for axis, cells in enumerate(maps.shape[1:]))
        grid = torch.stack([x.expand(len(y), len(x)), y[:, None].expand(len(y), len(x))], 2)  # height,width,2
        sampled = torch.nn.functional.grid_sample(
            maps[None].float(), grid[None], mode="bilinear", padding_mode="border", align_corners=False
        )
        return sampled[0]

    def _seen_from(self, axis: int, cells: int, device: torch.device) -> Tensor:
        """Where the centres of the image's rows (axis 0) or columns (1) fall on a map of so many cells over the input, counted
        -1..1 from its first edge to its last as grid_sample does; none nearer to the image's edge than half a cell."""
        size, scale, offset, length = self.size[axis], self.scale[axis], self.offset[axis], self.input_size[axis]
        centres = (torch.arange(size, dtype=torch.float64, device=device) + 0.5) * scale + offset  # input pixels
        first, last = max(offset, 0), min(offset + size * scale, length)
        inset = min(length / cells, last - first) / 2
        return (centres.clamp(first + inset, last - inset) / length * 2 - 1).float()
