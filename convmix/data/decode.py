"""Bytes or a file -> an upright image in the model's number of channels; whatever cannot be read says why.

    in_chans 3, 1, 4   -> PIL image RGB, L, RGBA (8 bits)
    other in_chans, .npy, multi-band TIFF -> array H,W,C float32

8-bit values of arrays are divided by 255, 16-bit ones by 65535, floats stay as they are. 16-bit pictures are scaled to 8 bits, not clipped.
Where a value range is given, 16-bit values are scaled from that range instead, and those outside it clipped: cameras of 10 or 12 bits and
microscopes leave most of 16 bits unused, and eight bits of the whole would be a few shades.
"""

import io
import logging
import stat
import struct
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image

from convmix.data.bad_images import BadImage, fits_in_memory
from convmix.data.extra_formats import register_for
from convmix.data.modes import in_mode
from convmix.data.png import ends_early
from convmix.data.regular import open_regular
from convmix.errors import first_line

__all__ = [
    "MODES", "BadImage", "Image", "decode", "fits_in_memory", "read_file", "read_header", "turned_by_exif", "upright_size", "viewable",
]  # fmt: skip

MODES = {3: "RGB", 1: "L", 4: "RGBA"}  # in_chans -> the mode of an 8-bit picture
Image = PIL.Image.Image | np.ndarray  # an ndarray is H,W,C float32
ValueRange = tuple[float, float]  # of 16-bit images: what becomes 0 and what becomes the largest value

# Formats that hold pictures and are decoded in process; EPS, say, would start Ghostscript. HEIF only where pillow-heif is registered.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000", "HEIF", "JXL", "QOI", "SGI", "PCX", "DDS", "TGA")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY_MAGIC = b"\x93NUMPY"
_UPRIGHT = {  # EXIF orientation -> what undoes it
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT, 3: PIL.Image.Transpose.ROTATE_180, 4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE, 6: PIL.Image.Transpose.ROTATE_270, 7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}  # fmt: skip
_LARGEST = 1e15  # of a float: sums of squares over all images stay finite
_ORIENTATION_TAG = 0x0112
_SAMPLES_TAG = 0x0115  # SamplesPerPixel of a TIFF


def decode(source: bytes | str | Path, *, in_chans: int, max_pixels: int, value_range: ValueRange | None = None) -> Image:
    """The image in encoded bytes or in a file, EXIF orientation applied, first frame of several.

    value_range: the darkest and the brightest value of 16-bit images; None: 0 to 65535.
    Transparency is composited on white unless `in_chans` is 4; CMYK, palette, grey and bilevel pictures become RGB (or L).
    Raises BadImage for whatever is missing, empty, truncated, no image, larger than `max_pixels` (seen in the header, before
    decoding) or of another number of bands.
    """
    data = source if isinstance(source, bytes) else read_file(source)
    if not data:
        raise BadImage("empty file")
    with _quiet(max_pixels):
        try:
            return _decode(data, in_chans, max_pixels, value_range)
        except BadImage:
            raise
        except PIL.Image.DecompressionBombError:
            raise BadImage(f"more than {max_pixels:,} pixels (data.max_pixels)") from None
        except PIL.UnidentifiedImageError:
            raise BadImage("not an image of a known format") from None
        except MemoryError:
            raise BadImage("too large for the memory") from None
        except Exception as e:  # codecs raise anything on broken bytes
            raise BadImage(_reason(e)) from None


def viewable(source: bytes | str | Path, *, size: tuple[int, int], max_pixels: int, value_range: ValueRange | None = None) -> np.ndarray:
    """An image for people to look at: H,W,3 uint8 of `size`; grey where it cannot be shown, as with five channels."""
    try:
        image = decode(source, in_chans=3, max_pixels=max_pixels, value_range=value_range)
    except BadImage:
        image = np.zeros(0)
    if isinstance(image, PIL.Image.Image) and (image.height, image.width) == size:
        return np.array(image)
    return np.full((*size, 3), 128, np.uint8)


def sixteen_bit_span(data: bytes) -> ValueRange | None:
    """The smallest and the largest value of an encoded 16-bit image that `decode` has read; None for any other image."""
    with _quiet(sys.maxsize):
        if data.startswith(_NPY_MAGIC):
            pixels = np.load(io.BytesIO(data), allow_pickle=False)
        elif data.startswith(_TIFF_MAGIC) and not read_header(data).mode:
            pixels = _tiff_pixels(data)
        elif read_header(data).mode.startswith("I"):
            with PIL.Image.open(io.BytesIO(data), formats=_formats(data)) as im:
                pixels = np.asarray(im)
        else:
            return None
    return (float(pixels.min()), float(pixels.max())) if pixels.dtype.kind in "iu" and pixels.dtype.itemsize > 1 else None


def upright_size(source: bytes | str | Path, *, in_chans: int, max_pixels: int) -> tuple[int, int]:
    """Height and width of what `decode` would give, from the header alone where Pillow knows the format; BadImage as there."""
    with _quiet(max_pixels):
        try:
            with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file, _opened(file) as im:
                # Pillow's size of a TIFF is upright already
                turned = im.format != "TIFF" and im.getexif().get(_ORIENTATION_TAG) in (5, 6, 7, 8)
                return (im.width, im.height) if turned else (im.height, im.width)
        except Exception:  # an array, a TIFF of many bands, corrupt EXIF, or nothing readable: `decode` knows
            pass
    image = decode(source, in_chans=in_chans, max_pixels=max_pixels)
    return (image.shape[0], image.shape[1]) if isinstance(image, np.ndarray) else (image.height, image.width)


def _opened(file: BinaryIO) -> PIL.Image.Image:
    register_for(file.read(32))
    file.seek(0)
    return PIL.Image.open(file)


def turned_by_exif(path: str | Path) -> int:
    """The EXIF orientation of a file, 1 where nothing can be read: 5 to 8 exchange its sides."""
    with _quiet(sys.maxsize):
        try:
            with open_regular(path) as file, PIL.Image.open(file) as im:
                return 1 if im.format == "TIFF" else _orientation(im)  # Pillow turns a TIFF itself
        except Exception:  # `decode` says what is wrong with it
            return 1


@dataclass(frozen=True)
class Header:
    """What an encoded image says of itself."""

    format: str  # Pillow's name of it: JPEG, PNG, ...; NPY; "" where nothing tells
    mode: str  # as stored: RGB, L, P, CMYK, I;16, ...; "" for arrays and for TIFFs of many bands
    orientation: int  # EXIF: 1 upright, 2 to 8 turned or mirrored


def read_header(data: bytes) -> Header:
    """The header of encoded bytes that `decode` can read; never raises."""
    if data.startswith(_NPY_MAGIC):
        return Header("NPY", "", 1)
    with _quiet(sys.maxsize):  # nothing is decoded
        try:
            with PIL.Image.open(io.BytesIO(data), formats=_formats(data)) as im:
                return Header(im.format or "", im.mode, _orientation(im))
        except Exception:  # more bands than Pillow knows a mode for
            return Header("TIFF" if data.startswith(_TIFF_MAGIC) else "", "", 1)


def _decode(data: bytes, in_chans: int, max_pixels: int, value_range: ValueRange | None) -> Image:
    if data.startswith(_NPY_MAGIC):
        return _array_in_range(_bands_last(_read_npy(data, max_pixels), in_chans), value_range)
    is_tiff = data.startswith(_TIFF_MAGIC)
    if is_tiff and in_chans not in MODES:
        return _array_in_range(_read_tiff(data, in_chans, max_pixels), value_range)
    try:
        im: PIL.Image.Image = PIL.Image.open(io.BytesIO(data), formats=_formats(data))
    except PIL.UnidentifiedImageError:
        if is_tiff:  # more bands than Pillow knows a mode for
            return _array_in_range(_read_tiff(data, in_chans, max_pixels), value_range)
        raise
    if is_tiff and in_chans == 4 and im.mode in ("RGB", "RGBX") and _tiff_bands(im) == 4:  # the fourth is not opacity
        return _array_in_range(_read_tiff(data, in_chans, max_pixels), value_range)
    _check_size(im.height, im.width, max_pixels)
    im.load()
    if im.format == "PNG" and ends_early(data, im):
        raise BadImage("truncated")
    im = _upright(im)
    if in_chans not in MODES:
        return _array_in_range(_bands_last(np.asarray(im), in_chans), value_range)
    return in_mode(im, MODES[in_chans], value_range)


def read_file(path: str | Path) -> bytes:
    """The bytes of a file, perhaps none; BadImage says why it cannot be read."""
    try:
        kind = Path(path).stat().st_mode
        if not stat.S_ISREG(kind):  # reading a pipe would wait for ever
            raise BadImage("a folder" if stat.S_ISDIR(kind) else "not a regular file")
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise BadImage("no such file") from None
    except PermissionError:
        raise BadImage("no permission to read it") from None
    except (OSError, ValueError) as e:
        raise BadImage(f"cannot be read: {getattr(e, 'strerror', None) or 'impossible name'}") from None


def _formats(data: bytes) -> tuple[str, ...]:
    """The common formats by their first bytes; asking all of Pillow's plugins costs more than decoding a small picture."""
    if data.startswith(b"\x89PNG"):
        return ("PNG",)
    if data.startswith(b"\xff\xd8"):
        return ("JPEG",)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return ("WEBP",)
    PIL.Image.init()
    register_for(data)
    return tuple(f for f in _FORMATS if f in PIL.Image.OPEN)


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise BadImage(f"no pixels: {width}x{height}")
    if height * width > max_pixels:
        raise BadImage(f"{width}x{height} is more than {max_pixels:,} pixels (data.max_pixels)")


def _upright(im: PIL.Image.Image) -> PIL.Image.Image:
    orientation = _orientation(im)
    return im.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else im


def _orientation(im: PIL.Image.Image) -> int:
    """1, which is upright, where EXIF says nothing that has a meaning."""
    try:
        orientation = im.getexif().get(_ORIENTATION_TAG)
    except Exception:  # corrupt EXIF: the pixels are still good
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _read_npy(data: bytes, max_pixels: int) -> np.ndarray:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise BadImage("the array holds Python objects")
    if len(shape) not in (2, 3):
        raise BadImage(f"an array of {len(shape)} dimensions, expected H,W or H,W,C")
    if min(shape) < 1:
        raise BadImage("an array without values")
    if len(data) - stream.tell() < dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise BadImage("truncated")
    # Which dimension holds the bands is known only later; the product of the two longest is the number of pixels of any real image.
    height, width = sorted(shape)[-2:]
    _check_size(height, width, max_pixels)
    stream.seek(0)
    array: np.ndarray = np.load(stream, allow_pickle=False)
    return array


def _read_tiff(data: bytes, in_chans: int, max_pixels: int) -> np.ndarray:
    """All bands H,W,C, whether stored side by side or one per page."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        series = tiff.series[0]
        axes, shape = series.axes, series.shape
        if "Y" not in axes or "X" not in axes or len(axes) > 3:
            raise BadImage(f"a TIFF with axes {axes}, expected one image with bands")
        _check_size(shape[axes.index("Y")], shape[axes.index("X")], max_pixels)
        other = [a for a in axes if a not in "YX"]
        found = shape[axes.index(other[0])] if other else 1
        if found != in_chans:
            raise BadImage(_wrong_bands(found, in_chans))
        order = (axes.index("Y"), axes.index("X"), *(axes.index(a) for a in other))
        pixels = series.asarray().transpose(order)  # H,W or H,W,C
        tag = tiff.pages[0].tags.get(_ORIENTATION_TAG)  # type: ignore[union-attr]
        orientation = int(tag.value) if tag else 1
    return _upright_array(pixels.reshape(*pixels.shape[:2], found), orientation)


def _tiff_pixels(data: bytes) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        return np.asarray(tiff.series[0].asarray())


def _tiff_bands(im: PIL.Image.Image) -> int:
    return int(getattr(im, "tag_v2", {}).get(_SAMPLES_TAG, 1))


def _upright_array(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5 and orientation <= 8:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _bands_last(pixels: np.ndarray, in_chans: int) -> np.ndarray:
    """H,W or H,W,C or (where only that fits) C,H,W -> H,W,C."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    elif pixels.shape[2] != in_chans and pixels.shape[0] == in_chans:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.shape[2] != in_chans:
        raise BadImage(_wrong_bands(pixels.shape[2], in_chans))
    return pixels


def _wrong_bands(found: int, expected: int) -> str:
    return f"{found} channel{'s' if found != 1 else ''}, expected {expected}"


def _array_in_range(pixels: np.ndarray, value_range: ValueRange | None) -> np.ndarray:
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels, np.float32) / np.float32(255)
    if pixels.dtype == np.uint16:
        darkest, brightest = value_range or (0.0, 65535.0)
        levels = np.ascontiguousarray(pixels, np.float32).clip(darkest, brightest)
        return (levels - np.float32(darkest)) / np.float32(brightest - darkest)
    if pixels.dtype == np.bool_:
        return np.ascontiguousarray(pixels, np.float32)
    if pixels.dtype.kind != "f":
        raise BadImage(f"values of type {pixels.dtype}, expected uint8, uint16 or float")
    with np.errstate(over="ignore"):
        pixels = np.ascontiguousarray(pixels, np.float32)
    if not np.isfinite(pixels).all():
        raise BadImage("values that are not finite")
    if (largest := float(np.abs(pixels).max(initial=0))) > _LARGEST:
        raise BadImage(f"values up to {largest:.3g}, expected at most {_LARGEST:g}: a mark for missing data, or damage")
    return pixels


def _reason(error: Exception) -> str:
    text = first_line(error)
    low = text.lower()
    if isinstance(error, (EOFError, struct.error)) or any(word in low for word in ("truncated", "unexpected end", "not enough", "eof")):
        return "truncated"
    if "object at 0x" in text:
        return "cannot be decoded"
    return f"cannot be decoded: {text[:100]}"


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_while_decoding = ExitStack()


@contextmanager
def _quiet(max_pixels: int) -> Iterator[None]:
    """`_pillow_quiet` for as long as any thread is inside: what it changes is global, so the last one out restores it."""
    global _quiet_depth
    with _quiet_lock:
        _quiet_depth += 1
        if _quiet_depth == 1:
            _quiet_while_decoding.enter_context(_pillow_quiet(max_pixels))
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_while_decoding.close()


@contextmanager
def _pillow_quiet(max_pixels: int) -> Iterator[None]:
    """Our pixel limit instead of Pillow's, and no warnings about corrupt EXIF, ICC or TIFF tags."""
    limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, max_pixels
    loggers = {logger: logger.disabled for logger in map(logging.getLogger, ("PIL.TiffImagePlugin", "tifffile"))}
    for logger in loggers:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = limit
        for logger, disabled in loggers.items():
            logger.disabled = disabled
