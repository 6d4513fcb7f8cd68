"""What the middle unit of a stage really looks at: the effective receptive field beside the possible one.

d (middle unit, channels with random signs) / d image -> size per pixel, mean over images: H,W     (Luo et al. 2016, arXiv 1701.04128)
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from convmix.explanation.hooked_copy import images_per_pass
from convmix.explanation.stages import spread, stage_maps
from convmix.models.receptive import receptive_field

SHOWN = 4  # stages, evenly over the depth
MASS = 0.95  # of the gradient, that the side of the effective field's square is measured at


@dataclass(frozen=True)
class Field:
    """The receptive field of one stage's middle unit."""

    stage: str
    effective_px: int  # side of the smallest square around the unit that holds MASS of the gradient; at most the image's longer side
    half_px: int  # the same for half of the gradient
    possible_px: int | None  # side of the square that has any influence, whatever the weights; may exceed the image; None: not known
    centre: tuple[float, float]  # y and x in pixels: as much of the gradient lies above as below, and as much to the left as to the right
    gradient: Tensor = field(repr=False)  # H,W, sums to 1; zeros where no gradient arrives


def receptive_fields(model: nn.Module, images: Tensor) -> list[Field]:
    """The fields of some stages of a specimen, over images N,C,H,W; empty for a model in which no map is found."""
    sums: dict[str, Tensor] = {}
    step = images_per_pass(*images.shape[2:])
    for start in range(0, len(images), step):
        batch = images[start : start + step].detach().clone().requires_grad_()
        with torch.enable_grad():
            stages = spread(stage_maps(model, batch), SHOWN)
            for i, stage in enumerate(stages):
                h, w = stage.maps.shape[2:]
                middle = stage.maps[:, :, h // 2, w // 2]  # B,C
                # Plain sums cancel: after a norm the channels of one position may always add up to the same number.
                signs = torch.randint(0, 2, middle.shape[1:], generator=torch.Generator().manual_seed(0)).to(middle) * 2 - 1
                (gradient,) = torch.autograd.grad((middle * signs).sum(), batch, retain_graph=i < len(stages) - 1)
                part = gradient.abs().sum((0, 1)).cpu()  # B,C,H,W -> H,W
                sums[stage.name] = sums.get(stage.name, torch.zeros_like(part)) + part
    possible = _possible(model, images)
    fields = []
    for name, size in sums.items():
        total = size.sum()
        gradient = size / total if total > 0 else size
        centre = _median(gradient.sum(1)), _median(gradient.sum(0))
        sides = square_side(gradient, centre, share=MASS), square_side(gradient, centre, share=0.5)
        fields.append(Field(name, *sides, possible.get(name), centre, gradient))
    return fields


def square_side(mass: Tensor, centre: Sequence[float], *, share: float) -> int:
    """Side in pixels of the smallest square around `centre` (y, x) that holds `share` of the mass (H,W); 0 where there is none."""
    height, width = mass.shape
    if not mass.sum() > 0:
        return 0
    rows, columns = (torch.arange(n, dtype=torch.float64) + 0.5 for n in (height, width))
    reach = torch.maximum((rows - centre[0]).abs()[:, None], (columns - centre[1]).abs()) + 0.5  # half the side that takes in the pixel
    order = reach.flatten().argsort()
    held = mass.double().flatten()[order].cumsum(0)
    last = int(torch.searchsorted(held, share * held[-1]).clamp(max=len(order) - 1))
    return min(round(2 * float(reach.flatten()[order[last]])), max(height, width))


def _median(mass: Tensor) -> float:
    """Where half of the mass (n) lies on either side, in pixels from the first one's edge. A unit's place differs with the padding."""
    held = mass.double().cumsum(0)
    if not held[-1] > 0:
        return len(mass) / 2
    at = int(torch.searchsorted(held, held[-1] / 2))
    return at + 1 - float((held[at] - held[-1] / 2) / mass[at])


def _possible(model: nn.Module, images: Tensor) -> dict[str, int | None]:
    """The possible field of every stage, read off the graph of a copy without storage."""
    image = torch.empty(1, *images.shape[1:], device="meta", requires_grad=True)
    try:
        with torch.enable_grad():
            stages = stage_maps(copy.deepcopy(model).to("meta"), image)
            return {s.name: receptive_field(s.maps, image, reduction=s.stride) for s in stages}
    except (NotImplementedError, RuntimeError):  # a model that computes with the values of its tensors
        return {}
