"""Formats of phones and cameras that Pillow opens with a package beside it (the extra `formats`), registered when the first is met."""

from functools import lru_cache
from importlib import import_module

import PIL.Image

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_JXL_MAGIC = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_PACKAGES = {"HEIF": "pillow_heif", "JXL": "pillow_jxl", "AVIF": "pillow_heif"}
_FORMAT_OF = {".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF", ".jxl": "JXL", ".avif": "AVIF"}


@lru_cache
def _register(name: str) -> bool:
    """Makes Pillow open a format of phones and cameras; False where the package for it is not installed."""
    PIL.Image.init()
    if name in PIL.Image.OPEN:
        return True
    try:
        package = import_module(_PACKAGES[name])
    except ImportError:
        return False
    if name == "HEIF":
        package.register_heif_opener()  # pillow_jxl registers itself
    return name in PIL.Image.OPEN


def missing_package(suffix: str) -> str:
    """The package that images of this suffix need and that is not installed; "" where there is none."""
    name = _FORMAT_OF.get(suffix.lower())
    return "" if name is None or _register(name) else _PACKAGES[name].replace("_", "-")


def register_for(data: bytes) -> None:
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        _register("HEIF")
    elif data.startswith(_JXL_MAGIC):
        _register("JXL")
