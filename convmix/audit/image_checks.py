"""What is wrong with single images, told from the facts alone: a check per kind of fault.

To add a fault: its sentence in `finding.KINDS`, a function here that yields (position, what is to be said), and a line in CHECKS.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import PurePath

import numpy as np
import PIL.Image

from convmix.audit.finding import Finding
from convmix.audit.image_facts import ImageFacts

FAINT = 4.0  # standard deviation on the scale 0..255; the faintest of CIFAR-10 has 9.0
TINY_PX = (4, 64)  # a shorter side below the first is always tiny, one of at least the second never
TINY_SHARE = 0.25  # of the median shorter side
LONG = 4.0  # longer side over shorter side
_MODES = {  # what becomes of a mode when an RGB image is asked for
    "L": "grey: becomes RGB without loss",
    "1": "black and white: becomes RGB without loss",
    "P": "a palette: becomes RGB",
    "LA": "grey with transparency: what is transparent becomes white",
    "PA": "a palette with transparency: what is transparent becomes white",
    "RGBA": "transparency: what is transparent becomes white",
    "CMYK": "printing inks: the colours change when they become RGB",
    "YCCK": "printing inks: the colours change when they become RGB",
    "I;16": "16 bits: becomes 8 bits",
    "I;16B": "16 bits: becomes 8 bits",
    "I": "32-bit integers: become 8 bits",
    "F": "floating point: becomes 8 bits",
    "": "an array",
}
_ALIKE = {"MPO": "JPEG", "DIB": "BMP"}  # formats that share their suffixes
_TURNS = {2: "mirrored", 3: "upside down", 4: "upside down and mirrored", 5: "on its side and mirrored", 6: "on its side, to the left",
          7: "on its side and mirrored", 8: "on its side, to the right"}  # fmt: skip
_SUFFIXES = {
    "JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "TIFF": ".tif", "BMP": ".bmp", "PPM": ".ppm", "AVIF": ".avif",
    "JPEG2000": ".jp2", "TGA": ".tga", "NPY": ".npy", "HEIF": ".heic",
}  # fmt: skip

Said = Iterator[tuple[int, str]]  # position, what is to be said


def examine_images(facts: ImageFacts) -> Iterator[Finding]:
    """The faults of all images, kind by kind."""
    for kind, check in CHECKS.items():
        for i, about in check(facts):
            yield Finding(kind, facts.name(i), facts.split(i), facts.label_name(i), about, at=i)


def is_row(name: str) -> bool:
    """Whether this names a row of a table, such as train[12], and no file."""
    return re.fullmatch(r"\w+\[\d+\]", name) is not None


def right_suffix(name: str, content: str) -> str | None:
    """The suffix that a file with content of this format should have, None where its own will do or nothing is known."""
    PIL.Image.init()
    suffix = PurePath(name).suffix.lower()
    known = {**PIL.Image.registered_extensions(), ".npy": "NPY", ".jpe": "JPEG", ".jfif": "JPEG"}
    family = _ALIKE.get(content, content)
    if family not in _SUFFIXES or _ALIKE.get(known.get(suffix, ""), known.get(suffix)) == family:
        return None
    return _SUFFIXES[family]


def usual_mode(facts: ImageFacts) -> str:
    """How most images are stored."""
    modes, counts = np.unique(facts.mode[facts.ok], return_counts=True)
    return str(modes[counts.argmax()]) if len(modes) else ""


def faint(facts: ImageFacts) -> np.ndarray:
    """n bool: images with so little contrast that a likeness between them says nothing."""
    return facts.ok & (facts.contrast < FAINT)


def _truncated(facts: ImageFacts) -> Said:
    return ((i, reason) for i, reason in sorted(facts.reason.items()) if reason == "truncated")


def _unreadable(facts: ImageFacts) -> Said:
    return ((i, reason) for i, reason in sorted(facts.reason.items()) if reason != "truncated")


def _constant(facts: ImageFacts) -> Said:
    return ((i, "every pixel has the same value") for i in _where(facts.ok & (facts.contrast < 1e-3)))


def _near_constant(facts: ImageFacts) -> Said:
    found = faint(facts) & (facts.contrast >= 1e-3)
    return ((i, f"contrast {facts.contrast[i]:.1f} of 255") for i in _where(found))


def _tiny(facts: ImageFacts) -> Said:
    shorter = np.minimum(facts.height, facts.width)
    if not facts.ok.any():
        return
    usual = float(np.median(shorter[facts.ok]))
    limit = min(max(TINY_SHARE * usual, TINY_PX[0]), TINY_PX[1])
    for i in _where(facts.ok & (shorter < limit)):
        yield i, f"{facts.width[i]}x{facts.height[i]} pixels; the median shorter side is {usual:g}"


def _extreme_aspect(facts: ImageFacts) -> Said:
    shorter, longer = np.minimum(facts.height, facts.width), np.maximum(facts.height, facts.width)
    aspect = longer / np.maximum(shorter, 1)
    if not facts.ok.any():
        return
    usual = float(np.median(aspect[facts.ok]))
    for i in _where(facts.ok & (aspect > max(LONG, 2 * usual))):
        yield i, f"{facts.width[i]}x{facts.height[i]} pixels, 1:{aspect[i]:.1f}"


def _exif_rotation(facts: ImageFacts) -> Said:
    for i in _where(facts.ok & (facts.orientation > 1)):
        yield i, f"stored {_TURNS[int(facts.orientation[i])]} (orientation {facts.orientation[i]})"


def _wrong_extension(facts: ImageFacts) -> Said:
    known: dict[tuple[str, str], str | None] = {}  # a million names have few suffixes
    for i in _where(facts.ok):
        name = facts.name(i)
        if is_row(name):
            continue
        suffix, content = PurePath(name).suffix, str(facts.format[i])
        if (suffix, content) not in known:
            known[suffix, content] = right_suffix(name, content)
        if known[suffix, content]:
            yield i, f"the content is {content}, the name ends in {suffix or 'nothing that tells'}"


def _odd_mode(facts: ImageFacts) -> Said:
    usual = usual_mode(facts)
    for i in _where(facts.ok & (facts.mode != usual)):
        mode = str(facts.mode[i])
        yield i, f"{mode or 'no mode'} where most are {usual or 'arrays'}: {_MODES.get(mode, 'becomes what the others are')}"


def _where(found: np.ndarray) -> list[int]:
    return np.flatnonzero(found).tolist()


CHECKS: dict[str, Callable[[ImageFacts], Said]] = {
    "truncated": _truncated,
    "unreadable": _unreadable,
    "constant": _constant,
    "near-constant": _near_constant,
    "tiny": _tiny,
    "extreme aspect": _extreme_aspect,
    "EXIF rotation": _exif_rotation,
    "wrong extension": _wrong_extension,
    "odd mode": _odd_mode,
}
