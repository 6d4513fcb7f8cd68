"""`Placement` inside an exported graph: numbers that depend on the size of the image that comes are tensors."""

from dataclasses import dataclass

from torch import Tensor

from convmix.config import Size


@dataclass(frozen=True)
class Frame:
    """Images of one size on an input of `input_size`; image pixel (y, x) * scale + offset = input pixel, edges rather than centres."""

    size: tuple[int, int]  # height, width of the images, whole; symbolic (torch.SymInt) while a graph is made
    input_size: Size  # of the network's input
    scale: tuple[Tensor, Tensor]  # vertical, horizontal: input pixels per image pixel; float32 without dimensions
    offset: tuple[Tensor, Tensor]  # top, left of the image on the input, input pixels, negative where it is cut off; float32 likewise
