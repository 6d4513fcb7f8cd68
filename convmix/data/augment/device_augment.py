"""The random changes of training images, for whole batches on the device: `transforms.TrainTransform` without its workers.

x N,H,W,C uint8, (seed, epoch, step) -> placed, flipped, RandAugment, colour jitter N,C,h,w uint8 -> normalised -> erased N,C,h,w float32

Equal in distribution to what the workers do, not draw by draw. Mixup and CutMix follow on the device in any case (`mixing`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from convmix.data.augment import device_color as color
from convmix.data.augment import device_draws as draws
from convmix.data.augment import device_geometry as geometry
from convmix.data.augment.device_draws import DrawnOperation, Draws, Layers
from convmix.data.augment.randaugment import RandAugment
from convmix.data.augment.training_transform import ColorJitter, TrainTransform
from convmix.errors import ConfigError


@dataclass(frozen=True)
class DeviceAugment:
    """What `transform` does to images of one size, (height, width); `for_transform` makes it."""

    transform: TrainTransform
    image: tuple[int, int]
    layers: tuple[Layers, ...]
    fill: tuple[int, ...]  # per channel, what a move of RandAugment uncovers
    erasing: RandomErasing | None

    def draw(self, n: int, *, seed: int, epoch: int, step: int) -> Draws:
        """For the n images of a batch of all processes."""
        rng = np.random.default_rng([seed, epoch, step])
        p, a = self.transform.preprocess, self.transform.augment
        height, width = self.image
        if a.scale == (1.0, 1.0):
            boxes = np.tile([0, 0, height, width], (n, 1))
        else:
            boxes = draws.boxes(rng, n, self.image, aspect=p.size[1] / p.size[0] if p.fit == "crop" else width / height, augment=a)
        return Draws(
            boxes,
            rng.random(n) < 0.5 if a.random_interpolation else np.full(n, p.interpolation == "bicubic"),
            rng.integers(0, 2 * a.pad + 1, (n, 2)),
            rng.random(n) < a.hflip,
            rng.random(n) < a.vflip,
            tuple(layer for make in self.layers for layer in make(rng, n)),
            draws.erased(rng, n, p.size, self.erasing) if self.erasing else np.zeros((n, 4), int),
        )

    def __call__(self, x_nhwc: Tensor, drawn: Draws, *, noise: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        """Images and what was drawn for them -> n,C,h,w float32, normalised. noise: normal values of a shape, n first."""
        p, a = self.transform.preprocess, self.transform.augment
        x = x_nhwc.permute(0, 3, 1, 2).contiguous()  # n,H,W,C -> n,C,H,W
        device = x.device
        if a.scale != (1.0, 1.0):
            x = geometry.resized_part(x, torch.from_numpy(drawn.boxes).to(device), p.size, torch.from_numpy(drawn.bicubic).to(device))
        if a.pad:
            top, left = torch.from_numpy(drawn.shift).to(device).unbind(1)
            x = geometry.shifted(x, top, left, a.pad, _levels(p.mean, device))
        for which, vertical in ((drawn.hflip, False), (drawn.vflip, True)):
            if which.any():
                x = geometry.flipped(x, torch.from_numpy(which).to(device), vertical=vertical)
        for layer in drawn.layers:
            apply(x, layer, torch.tensor(self.fill, dtype=torch.uint8, device=device))
        y = p.normalise_batch(x.permute(0, 2, 3, 1))
        return self._erase(y, drawn.erased, noise) if self.erasing else y

    def _erase(self, y: Tensor, boxes: np.ndarray, noise: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        n, channels, height, width = y.shape
        top, left, h, w = (torch.from_numpy(boxes[:, i, None]).to(y.device) for i in range(4))
        rows, columns = torch.arange(height, device=y.device), torch.arange(width, device=y.device)
        inside = ((rows >= top) & (rows < top + h))[:, None, :, None] & ((columns >= left) & (columns < left + w))[:, None, None]
        if self.erasing is not None and self.erasing.per_pixel:
            filled = noise((n, channels, height, width))
        elif self.erasing is not None and self.erasing.rand_color:
            filled = noise((n, channels, 1, 1))
        else:
            filled = torch.zeros(1, device=y.device)
        return torch.where(inside, filled, y)


def apply(x: Tensor, layer: DrawnOperation, fill: Tensor) -> None:
    """One operation on every image of x n,C,h,w uint8, in place. Which image has which is known before, so nothing waits for the device."""
    for kind, change in _CHANGES.items():
        rows = np.flatnonzero(layer.kind == kind)
        if len(rows):
            at = torch.from_numpy(rows).to(x.device)
            x[at] = change(x[at], layer.value[rows])
    for resample in (geometry.NEAREST, geometry.BILINEAR, geometry.BICUBIC):
        rows = np.flatnonzero((layer.kind == draws.AFFINE) & (layer.resample == resample))
        if len(rows):
            at = torch.from_numpy(rows).to(x.device)
            x[at] = geometry.affine(x[at], torch.from_numpy(layer.matrix[rows]).to(x.device), resample, fill)


def _by(table: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensor, np.ndarray], Tensor]:
    return lambda x, value: color.look_up(x, torch.from_numpy(table(value)).to(x.device)[:, None])


def _factors(value: np.ndarray, x: Tensor) -> Tensor:
    return torch.from_numpy(value.astype(np.float32)).to(x.device)


_CHANGES: dict[int, Callable[[Tensor, np.ndarray], Tensor]] = {
    draws.AUTO_CONTRAST: lambda x, _: color.look_up(x, color.auto_contrast_table(x)),
    draws.EQUALIZE: lambda x, _: color.look_up(x, color.equalize_table(x)),
    draws.CONTRAST: lambda x, value: color.look_up(x, color.contrast_table(x, _factors(value, x))),
    draws.COLOR: lambda x, value: color.saturate(x, _factors(value, x)),
    draws.SHARPNESS: lambda x, value: color.sharpen(x, _factors(value, x)),
    draws.INVERT: _by(lambda value: color.invert_table(len(value))),
    draws.POSTERIZE: _by(color.posterize_table),
    draws.SOLARIZE: _by(color.solarize_table),
    draws.SOLARIZE_ADD: _by(color.solarize_add_table),
    draws.BRIGHTNESS: _by(color.brightness_table),
}


def for_transform(transform: object, image: tuple[int, int]) -> DeviceAugment:
    """The same changes on the device, for images that all have the size `image`; ConfigError, with the reason, where there are none."""
    if not isinstance(transform, TrainTransform):
        raise ConfigError("augment_on: device is for classification; its images alone are changed without their annotations")
    p, a = transform.preprocess, transform.augment
    if p.in_chans != 3:
        raise ConfigError(f"augment_on: device takes RGB images, these have {p.in_chans} channels")
    if p.fit == "letterbox":
        raise ConfigError("augment_on: device has no letterbox; take fit crop or stretch, or workers")
    if a.scale == (1.0, 1.0) and tuple(image) != tuple(p.size):
        raise ConfigError(
            f"augment_on: device resizes in random crops alone, and images of {image[0]}x{image[1]} are not {p.size[0]}x{p.size[1]}"
        )
    if a.scale == (1.0, 1.0) and p.fit == "crop" and p.crop_pct != 1:
        raise ConfigError("augment_on: device crops at random or not at all; set crop_pct to 1, or a scale")
    if a.scale != (1.0, 1.0) and p.interpolation == "nearest" and not a.random_interpolation:
        raise ConfigError("augment_on: device resizes bilinear or bicubic")
    layers: list[Layers] = []
    fill = (0, 0, 0)
    for change in transform.picture_changes:
        if isinstance(change, RandAugment):
            inner: Any = change.change
            if hasattr(inner, "ops"):
                layers.append(draws.timm_layers(inner, p.size))
                fill = inner.ops[0].kwargs["fillcolor"]
            else:
                layers.append(draws.torchvision_layers(inner, p.size))
        elif isinstance(change, ColorJitter):
            layers.append(draws.jitter_layers(a.color_jitter))
    erasing = next((change for change in transform.tensor_changes if isinstance(change, RandomErasing)), None)
    return DeviceAugment(transform, (image[0], image[1]), tuple(layers), tuple(fill), erasing)


def _levels(mean: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor([min(max(round(255 * v), 0), 255) for v in mean], dtype=torch.uint8, device=device)
