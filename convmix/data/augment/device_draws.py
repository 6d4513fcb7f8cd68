"""What chance decides about a batch before anything is done to it, for all images at once.

(seed, epoch, step) -> numpy's generator -> Draws: boxes, flips, operations and their strengths

The distributions are those of `transforms.TrainTransform`, timm's RandAugment and torchvision's, image by image; the draws are of the whole
batch of all processes, so that how many there are changes nothing. A process takes its part of the arrays.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from convmix.config import Augment
from convmix.data.augment.device_geometry import BICUBIC, BILINEAR, NEAREST
from convmix.errors import ConfigError

NONE, AUTO_CONTRAST, EQUALIZE, INVERT, POSTERIZE, SOLARIZE, SOLARIZE_ADD, COLOR, CONTRAST, BRIGHTNESS, SHARPNESS, AFFINE = range(12)
_KINDS = {
    "Identity": NONE, "AutoContrast": AUTO_CONTRAST, "Equalize": EQUALIZE, "Invert": INVERT, "SolarizeAdd": SOLARIZE_ADD,
    "Posterize": POSTERIZE, "PosterizeIncreasing": POSTERIZE, "Solarize": SOLARIZE, "SolarizeIncreasing": SOLARIZE,
    "Color": COLOR, "ColorIncreasing": COLOR, "Desaturate": COLOR, "Contrast": CONTRAST, "ContrastIncreasing": CONTRAST,
    "Brightness": BRIGHTNESS, "BrightnessIncreasing": BRIGHTNESS, "Sharpness": SHARPNESS, "SharpnessIncreasing": SHARPNESS,
    **dict.fromkeys(("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "TranslateXRel", "TranslateYRel"), AFFINE),
}  # fmt: skip
_RESAMPLING = {0: NEAREST, 2: BILINEAR, 3: BICUBIC}  # by Pillow's numbers
_TRIES = 10


@dataclass(frozen=True)
class DrawnOperation:
    """One operation for every image."""

    kind: np.ndarray  # n int: NONE .. AFFINE
    value: np.ndarray  # n float64: bits, threshold, what is added, factor
    matrix: np.ndarray  # n,6 float64, of AFFINE
    resample: np.ndarray  # n int: NEAREST, BILINEAR or BICUBIC, of AFFINE

    def part(self, a: int, b: int) -> "DrawnOperation":
        return DrawnOperation(*(getattr(self, f.name)[a:b] for f in fields(self)))


@dataclass(frozen=True)
class Draws:
    """For n images."""

    boxes: np.ndarray  # n,4 int: top, left, height, width of what becomes the input
    bicubic: np.ndarray  # n bool: the filter that resizes it
    shift: np.ndarray  # n,2 int: row and column at which the padded image is cut
    hflip: np.ndarray  # n bool
    vflip: np.ndarray  # n bool
    layers: tuple[DrawnOperation, ...]
    erased: np.ndarray  # n,4 int: top, left, height, width; empty boxes where nothing is

    def part(self, a: int, b: int) -> "Draws":
        """Of the images a to b."""
        own = {f.name: getattr(self, f.name)[a:b] for f in fields(self) if f.name != "layers"}
        return replace(self, **own, layers=tuple(layer.part(a, b) for layer in self.layers))


Layers = Callable[[np.random.Generator, int], list[DrawnOperation]]


def boxes(rng: np.random.Generator, n: int, image: tuple[int, int], *, aspect: float, augment: Augment) -> np.ndarray:
    """n,4: as `geometry.random_box`."""
    height, width = image
    low, high = (math.log(r) for r in augment.ratio)
    area = rng.uniform(*augment.scale, (n, _TRIES)) * height * width
    drawn = aspect * np.exp(rng.uniform(low, high, (n, _TRIES)))
    w, h = np.rint(np.sqrt(area * drawn)).astype(int), np.rint(np.sqrt(area / drawn)).astype(int)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.argmax(1)
    rows = np.arange(n)
    w, h = w[rows, first], h[rows, first]
    nearest = min(max(width / height, aspect * augment.ratio[0]), aspect * augment.ratio[1])
    whole_h, whole_w = min(height, max(round(width / nearest), 1)), min(width, max(round(height * nearest), 1))
    found = fits.any(1)
    h, w = np.where(found, h, whole_h), np.where(found, w, whole_w)
    top = np.where(found, rng.integers(0, height - h + 1), round((height - whole_h) / 2))
    left = np.where(found, rng.integers(0, width - w + 1), round((width - whole_w) / 2))
    return np.stack([top, left, h, w], 1)


def erased(rng: np.random.Generator, n: int, size: tuple[int, int], erasing: Any) -> np.ndarray:
    """n,4: as timm's `RandomErasing`, with one rectangle at most."""
    height, width = size
    area = rng.uniform(erasing.min_area, erasing.max_area, (n, _TRIES)) * height * width
    narrowest, widest = erasing.log_aspect_ratio
    aspect = np.exp(rng.uniform(narrowest, widest, (n, _TRIES)))
    h, w = np.rint(np.sqrt(area * aspect)).astype(int), np.rint(np.sqrt(area / aspect)).astype(int)
    fits = (w < width) & (h < height)
    rows, first = np.arange(n), fits.argmax(1)
    done = fits.any(1) & (rng.random(n) <= erasing.probability)
    h, w = np.where(done, h[rows, first], 0), np.where(done, w[rows, first], 0)
    return np.stack([rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w], 1)


def jitter_layers(strength: float) -> Layers:
    """Brightness, contrast and saturation in random order: torchvision's ColorJitter."""
    low, high = max(0.0, 1 - strength), 1 + strength

    def draw(rng: np.random.Generator, n: int) -> list[DrawnOperation]:
        order = rng.permuted(np.tile([BRIGHTNESS, CONTRAST, COLOR], (n, 1)), axis=1)
        return [_layer(order[:, i], rng.uniform(low, high, n)) for i in range(3)]

    return draw


def timm_layers(transform: Any, size: tuple[int, int]) -> Layers:
    """Of timm's RandAugment; ConfigError for an operation that the device does not have."""
    ops, weights = transform.ops, transform.choice_weights
    if missing := [op.name for op in ops if op.name not in _KINDS]:
        raise ConfigError(f"augment.randaugment: {missing[0]} is not computed on the device; set augment_on to workers")
    resample = ops[0].kwargs["resample"]
    choices = np.array([_RESAMPLING[int(r)] for r in (resample if isinstance(resample, (list, tuple)) else [resample])])

    def draw(rng: np.random.Generator, n: int) -> list[DrawnOperation]:
        if weights is None:
            chosen = rng.integers(0, len(ops), (n, transform.num_layers))
        else:  # without replacement
            chosen = np.argsort(np.log(rng.random((n, len(ops)))) / np.asarray(weights), axis=1)[:, ::-1][:, : transform.num_layers]
        return [_timm_layer(rng, ops, of_layer, size, choices) for of_layer in chosen.T]

    return draw


def _timm_layer(
    rng: np.random.Generator, ops: Sequence[Any], chosen: np.ndarray, size: tuple[int, int], resample: np.ndarray
) -> DrawnOperation:
    n, op = len(chosen), ops[0]
    std = op.magnitude_std
    magnitude = rng.uniform(0, op.magnitude, n) if std == math.inf else op.magnitude + std * rng.standard_normal(n)
    level = np.clip(magnitude, 0.0, op.magnitude_max or 10.0) / 10.0
    sign = np.where(rng.random(n) > 0.5, -1.0, 1.0)
    done = rng.random(n) <= op.prob
    layer = _layer(np.zeros(n, int), np.zeros(n), resample=rng.choice(resample, n))
    for number, of in enumerate(ops):
        rows = np.flatnonzero((chosen == number) & done)
        layer.kind[rows] = _KINDS[of.name]
        value = _timm_value(of.name, level[rows], sign[rows], of.hparams)
        layer.value[rows] = value
        if layer.kind[rows].size and _KINDS[of.name] == AFFINE:
            layer.matrix[rows] = moves(of.name, value, size)
    return layer


def _timm_value(name: str, level: np.ndarray, sign: np.ndarray, hparams: Mapping[str, Any]) -> np.ndarray:
    """timm's argument of the operation; level is the magnitude in tenths, 0..1 and more where a recipe says so."""
    if name.endswith("Increasing") and name.startswith(("Color", "Contrast", "Brightness", "Sharpness")):
        return np.maximum(0.1, 1 + sign * level * 0.9)
    match name:
        case "Rotate":
            return sign * level * 30
        case "ShearX" | "ShearY":
            return sign * level * 0.3
        case "TranslateXRel" | "TranslateYRel":
            return sign * level * hparams.get("translate_pct", 0.45)
        case "Posterize":
            return np.clip(np.floor(level * 4), 1, 8)
        case "PosterizeIncreasing":
            return np.clip(4 - np.floor(level * 4), 1, 8)  # no bits at all would be no image: randaugment._posterize
        case "Solarize":
            return np.minimum(256, np.floor(level * 256))
        case "SolarizeIncreasing":
            return 256 - np.minimum(256, np.floor(level * 256))
        case "SolarizeAdd":
            return np.minimum(128, np.floor(level * 110))
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return level * 1.8 + 0.1
        case "Desaturate":
            return np.clip(1 - np.clip(0.5 + 0.5 * level, 0.5, 1.0), 0, 1)
    return np.zeros_like(level)


def moves(name: str, value: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """n,6: Pillow's matrices of timm's moves by `value` degrees, or shares of the side or of the size."""
    height, width = size
    matrix = np.tile([1.0, 0, 0, 0, 1, 0], (len(value), 1))
    if name == "Rotate":
        angle = -np.radians(value % 360.0)
        c, s = np.cos(angle).round(15), np.sin(angle).round(15)
        x, y = width / 2, height / 2
        return np.stack([c, s, c * -x + s * -y + x, -s, c, -s * -x + c * -y + y], 1)
    column = {"ShearX": 1, "ShearY": 3, "TranslateXRel": 2, "TranslateYRel": 5}[name]
    matrix[:, column] = value * {2: width, 5: height}.get(column, 1)
    return matrix


def torchvision_layers(transform: Any, size: tuple[int, int]) -> Layers:
    """Of torchvision's RandAugment: its own table of strengths, its own matrices, both signs of each operation made once."""
    table = transform._augmentation_space(transform.num_magnitude_bins, size)
    made = [_torchvision_op(name, float(m[transform.magnitude] if m.ndim else 0), signed, size) for name, (m, signed) in table.items()]
    kind = np.array([m[0] for m in made])
    value, matrix = np.array([m[1] for m in made]), np.array([m[2] for m in made])  # ops,2 and ops,2,6: by sign

    def draw(rng: np.random.Generator, n: int) -> list[DrawnOperation]:
        layers = []
        for _ in range(transform.num_ops):
            chosen, sign = rng.integers(0, len(made), n), rng.integers(0, 2, n)
            layers.append(DrawnOperation(kind[chosen], value[chosen, sign], matrix[chosen, sign], np.full(n, NEAREST)))
        return layers

    return draw


def _torchvision_op(name: str, magnitude: float, signed: bool, size: tuple[int, int]) -> tuple[int, list[float], list[list[float]]]:
    """Kind, and value and matrix for both signs."""
    from torchvision.transforms.functional import _get_inverse_affine_matrix

    height, width = size
    values, matrices = [], []
    for sign in (1.0, -1.0) if signed else (1.0, 1.0):
        m = sign * magnitude
        matrix = [1.0, 0, 0, 0, 1, 0]
        if name == "Rotate":
            matrix = moves("Rotate", np.array([m]), size)[0].tolist()
        elif name in ("ShearX", "ShearY"):
            degrees = math.degrees(math.atan(m))
            shear = [degrees, 0.0] if name == "ShearX" else [0.0, degrees]
            matrix = _get_inverse_affine_matrix([0.0, 0.0], 0.0, [0, 0], 1.0, shear)
        elif name in ("TranslateX", "TranslateY"):
            by = [float(int(m)), 0.0] if name == "TranslateX" else [0.0, float(int(m))]
            matrix = _get_inverse_affine_matrix([width * 0.5, height * 0.5], 0.0, by, 1.0, [0.0, 0.0])
        values.append(1 + m if name in ("Brightness", "Color", "Contrast", "Sharpness") else float(int(m)) if name == "Posterize" else m)
        matrices.append(matrix)
    return _KINDS[name], values, matrices


def _layer(kind: np.ndarray, value: np.ndarray, resample: np.ndarray | None = None) -> DrawnOperation:
    n = len(kind)
    return DrawnOperation(kind, value, np.tile([1.0, 0, 0, 0, 1, 0], (n, 1)), np.full(n, NEAREST) if resample is None else resample)
