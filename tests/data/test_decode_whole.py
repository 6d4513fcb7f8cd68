"""All of a picture is there, or it is a bad one; conversions take little memory beside the result."""

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from convmix.data import modes
from convmix.data.decode import BadImage, decode
from convmix.data.modes import in_mode


def png(pixels: np.ndarray, *, rows: int | None = None, bits: int = 8, colour: int = 2, interlaced: bool = False) -> bytes:
    """A PNG whose stream, in good order, ends after so many rows; pixels: H,bytes of a row uint8, or bytes as they are for `interlaced`."""
    width = pixels.shape[1] * 8 // (bits * {0: 1, 2: 3, 3: 1, 6: 4}[colour])
    raw = b"".join(b"\0" + row.tobytes() for row in pixels[:rows])
    head = struct.pack(">IIBBBBB", width, len(pixels), bits, colour, 0, 0, interlaced)
    palette = [(b"PLTE", bytes(range(48)))] if colour == 3 else []
    chunks = [(b"IHDR", head), *palette, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


NOISE = np.random.default_rng(0).integers(1, 256, (20, 48), np.uint8)


@pytest.mark.parametrize(("bits", "colour"), [(8, 0), (8, 2), (8, 6), (16, 0), (16, 2), (4, 3), (1, 0)])
def test_a_png_whose_data_ends_early_is_truncated(bits: int, colour: int) -> None:
    assert decode(png(NOISE, bits=bits, colour=colour), in_chans=3, max_pixels=10**6)
    for rows in (0, 1, 19):
        with pytest.raises(BadImage, match="truncated"):
            decode(png(NOISE, rows=rows, bits=bits, colour=colour), in_chans=3, max_pixels=10**6)


def test_a_png_that_ends_in_black_is_whole() -> None:
    dark = NOISE.copy()
    dark[10:] = 0
    image = decode(png(dark), in_chans=3, max_pixels=10**6)
    assert not np.asarray(image)[10:].any()


def test_an_interlaced_png_is_counted_pass_by_pass(tmp_path: Path) -> None:
    """Written by hand, since Pillow writes none: 5x3 grey, whose seven passes have 3 + 0 + 2 + 4 + 6 + ... bytes."""
    width, height = 5, 3
    passes = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
    pixels = np.arange(1, 16, dtype=np.uint8).reshape(height, width)
    raw = b""
    for row, rows, column, columns in passes:
        for line in pixels[row::rows, column::columns]:
            raw += b"\0" + line.tobytes() if line.size else b""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)

    def file(stream: bytes) -> bytes:
        chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(stream)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)

    assert np.array_equal(np.asarray(decode(file(raw), in_chans=1, max_pixels=100)), pixels)
    with pytest.raises(BadImage, match="truncated"):
        decode(file(raw[:-1]), in_chans=1, max_pixels=100)


@pytest.mark.parametrize("mode", ["1", "P", "PA", "LA", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
@pytest.mark.parametrize("into", ["RGB", "L", "RGBA"])
def test_strips_give_what_the_whole_gives(mode: str, into: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    if mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = PIL.Image.fromarray((rng.random((37, 23)) * (1 if mode == "F" else 60_000)).astype(kind))
        assert image.mode == mode
    else:
        image = PIL.Image.fromarray(rng.integers(0, 256, (37, 23, 4), np.uint8), "RGBA")
        image = image if mode == "RGBA" else image.convert("LA").convert(mode) if mode == "PA" else image.convert("RGB").convert(mode)
        if mode == "P":
            image.info["transparency"] = 3
    whole = in_mode(image, into)
    monkeypatch.setattr(modes, "_AT_ONCE", 60)
    strips = in_mode(image, into)
    assert (whole.mode, whole.size) == (strips.mode, strips.size) == (into, (23, 37))
    assert np.array_equal(np.asarray(whole), np.asarray(strips))


def test_numbers_of_an_unknown_scale_are_refused_whatever_the_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "_AT_ONCE", 8)
    pixels = np.zeros((40, 4), np.float32)
    pixels[39, 3] = 300
    with pytest.raises(BadImage, match=r"outside 0\.\.255"):
        in_mode(PIL.Image.fromarray(pixels), "RGB")
    pixels[39, 3] = np.nan
    with pytest.raises(BadImage, match="not finite"):
        in_mode(PIL.Image.fromarray(pixels), "RGB")
    pixels[39, 3] = 100  # the first strips alone would lie in 0..1
    assert np.asarray(in_mode(PIL.Image.fromarray(pixels), "L")).max() == 100


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_a_conversion_takes_little_memory(mode: str) -> None:
    file = io.BytesIO()
    kind = np.uint16 if mode == "I;16" else np.float32
    PIL.Image.fromarray(np.zeros((4000, 4000), kind)).save(file, "TIFF")
    tracemalloc.start()
    image = decode(file.getvalue(), in_chans=3, max_pixels=10**8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(image, PIL.Image.Image) and image.mode == "RGB"
    assert peak < 3 * len(file.getvalue()) + 100_000_000  # numpy's part; whole copies would be 400 MB
