"""A picture of any mode -> RGB, L or RGBA with 8 bits a channel; large ones strip by strip, so that nothing beside the result takes memory.

Transparency is composited on white where the result has none. 16 bits are scaled to 8, floats lie in 0..1 or on the 8-bit scale.
"""

from collections.abc import Iterator

import numpy as np
import PIL.Image

from convmix.data.bad_images import BadImage

_AT_ONCE = 2**22  # pixels; their copies in four modes take 64 MB


def in_mode(im: PIL.Image.Image, mode: str, value_range: tuple[float, float] | None = None) -> PIL.Image.Image:
    """The picture in `mode`, 16-bit values scaled from `value_range` (None: 0 to 65535); BadImage for numbers whose scale is unknown."""
    if im.mode == mode and (mode == "RGBA" or "transparency" not in im.info):
        return im
    scale = _scale(im) if im.mode == "F" or im.mode.startswith("I") else None
    if im.width * im.height <= _AT_ONCE:
        return _converted(im, mode, scale, value_range)
    result = PIL.Image.new(mode, im.size)
    for top, strip in _strips(im):
        result.paste(_converted(strip, mode, scale, value_range), (0, top))
    return result


def _strips(im: PIL.Image.Image) -> Iterator[tuple[int, PIL.Image.Image]]:
    rows = max(1, _AT_ONCE // im.width)
    for top in range(0, im.height, rows):
        yield top, im.crop((0, top, im.width, min(top + rows, im.height)))


def _converted(im: PIL.Image.Image, mode: str, scale: float | None, value_range: tuple[float, float] | None) -> PIL.Image.Image:
    if scale is not None:
        im = PIL.Image.fromarray(_eight_bits(np.asarray(im), scale, value_range))
    if mode != "RGBA" and im.has_transparency_data:
        im = PIL.Image.alpha_composite(PIL.Image.new("RGBA", im.size, "white"), im.convert("RGBA"))
    return im.convert(mode)


def _scale(im: PIL.Image.Image) -> float:
    """The value that is white: 65535 for whole numbers, 1 or 255 for others."""
    low, high, is_float = np.inf, -np.inf, im.mode.startswith("F")
    for _, strip in _strips(im):
        pixels = np.asarray(strip)
        if not np.isfinite(pixels).all():
            raise BadImage("values that are not finite")
        low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
    limit = 255 if is_float else 65535
    if low < 0 or high > limit:
        raise BadImage(f"values {low:g}..{high:g} outside 0..{limit}, their scale is unknown")
    return 1 if is_float and high <= 1 else limit


def _eight_bits(pixels: np.ndarray, scale: float, value_range: tuple[float, float] | None) -> np.ndarray:
    """H,W -> H,W uint8."""
    if scale == 65535:
        darkest, brightest = map(int, value_range or (0, 65535))
        span = brightest - darkest
        steps = (pixels.astype(np.int64).clip(darkest, brightest) - darkest) * 255
        return ((2 * steps + span) // (2 * span)).astype(np.uint8)  # rounded; brightest -> 255
    return np.rint(pixels * 255 if scale == 1 else pixels).astype(np.uint8)
