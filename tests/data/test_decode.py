"""Every kind of picture becomes the right pixels; everything else says why not."""

import io
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

from convmix.data.decode import BadImage, decode, viewable

LIMIT = 1_000_000
UNDO: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # orientation -> how a camera held so stores the upright picture
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def encode(im: PIL.Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    im.save(stream, format, **options)
    return stream.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def pixels(data: bytes | str | Path, in_chans: int = 3) -> np.ndarray:
    return np.asarray(decode(data, in_chans=in_chans, max_pixels=LIMIT))


def reason(data: bytes | str | Path, in_chans: int = 3, max_pixels: int = LIMIT) -> str:
    with pytest.raises(BadImage) as caught:
        decode(data, in_chans=in_chans, max_pixels=max_pixels)
    return caught.value.reason


def corners() -> np.ndarray:
    """24x16 with four different corners: no two orientations look alike."""
    picture = np.full((16, 24, 3), 128, np.uint8)
    for (y, x), colour in zip(((0, 0), (0, 16), (8, 0), (8, 16)), ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)), strict=True):
        picture[y : y + 8, x : x + 8] = colour
    return picture


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_same_upright_picture(orientation: int, format: str) -> None:
    stored = PIL.Image.fromarray(np.ascontiguousarray(UNDO[orientation](corners())))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    upright = pixels(encode(stored, format, exif=exif, **options))
    assert upright.shape == (16, 24, 3)
    assert np.abs(upright.astype(int) - corners()).mean() < (3 if format == "JPEG" else 0.01)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_multi_band_tiff_obeys_its_orientation(orientation: int) -> None:
    upright = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)
    data = tiff(
        np.ascontiguousarray(UNDO[orientation](upright)),
        photometric="minisblack",
        planarconfig="contig",
        extratags=[(274, 3, 1, orientation, True)],
    )
    np.testing.assert_allclose(pixels(data, 5), upright / np.float32(255))


@pytest.mark.parametrize("in_chans, mode", [(3, "RGB"), (1, "L"), (4, "RGBA")])
@pytest.mark.parametrize("stored", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr"])
def test_every_mode_becomes_the_models(stored: str, in_chans: int, mode: str) -> None:
    level = {"1": 1, "I;16": 65535, "I": 65535, "F": 1.0, "P": 3}.get(stored, 255)
    im = PIL.Image.fromarray(np.full((5, 7), level, np.uint16)) if stored == "I;16" else PIL.Image.new(stored, (7, 5), 0)
    if stored == "P":
        im = PIL.Image.new("RGB", (7, 5), "white").convert("P", palette=PIL.Image.Palette.ADAPTIVE)
    elif stored == "CMYK":
        im = PIL.Image.new("CMYK", (7, 5), (0, 0, 0, 0))
    elif stored in ("RGB", "RGBA", "LA", "YCbCr"):
        im = PIL.Image.new("RGB", (7, 5), "white").convert(stored)
    elif stored != "I;16":
        im = PIL.Image.new(stored, (7, 5), level)
    image = decode(encode(im, "TIFF"), in_chans=in_chans, max_pixels=LIMIT)
    assert isinstance(image, PIL.Image.Image)
    assert (image.mode, image.size) == (mode, (7, 5))
    assert np.asarray(image).min() == 255


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    expected = np.rint(ramp / 257).astype(np.uint8)
    for data in (
        encode(PIL.Image.fromarray(ramp)),
        tiff(ramp),
        tiff(ramp, byteorder=">"),
        encode(PIL.Image.fromarray(ramp.astype(np.int32)), "TIFF"),
    ):
        np.testing.assert_array_equal(pixels(data, 1), expected)
        np.testing.assert_array_equal(pixels(data, 3)[..., 2], expected)


def test_integers_beyond_sixteen_bits_have_no_known_scale() -> None:
    assert "outside 0..65535" in reason(encode(PIL.Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF"), 1)


def test_float_pictures_are_read_on_either_common_scale() -> None:
    unit = PIL.Image.fromarray(np.full((4, 4), 0.5, np.float32))
    eight = PIL.Image.fromarray(np.full((4, 4), 128.0, np.float32))
    assert pixels(encode(unit, "TIFF"), 1).max() == pixels(encode(eight, "TIFF"), 1).max() == 128
    assert "outside 0..255" in reason(encode(PIL.Image.fromarray(np.full((4, 4), 3000.0, np.float32)), "TIFF"))
    assert "not finite" in reason(encode(PIL.Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"))


def test_transparency_lies_on_white() -> None:
    rgba = PIL.Image.new("RGBA", (6, 6), (255, 0, 0, 0))
    rgba.paste((255, 0, 0, 255), (0, 0, 3, 6))
    rgba.paste((0, 0, 0, 128), (0, 0, 3, 3))
    palette = PIL.Image.new("P", (6, 6), 1)
    palette.putpalette([10, 20, 30, 200, 0, 0])
    for data, opaque in ((encode(rgba), (255, 0, 0)), (encode(rgba, "WEBP", lossless=True), (255, 0, 0))):
        image = pixels(data)
        assert tuple(image[5, 0]) == opaque
        assert tuple(image[5, 5]) == (255, 255, 255)
        assert tuple(image[0, 0]) == (127, 127, 127)
    assert tuple(pixels(encode(palette, transparency=1))[0, 0]) == (255, 255, 255)
    assert tuple(pixels(encode(palette, transparency=0))[0, 0]) == (200, 0, 0)
    assert tuple(pixels(encode(palette, transparency=b"\0\x80"))[0, 0]) == (227, 127, 127)
    assert pixels(encode(PIL.Image.new("LA", (4, 4), (0, 0))), 1).min() == 255
    assert tuple(pixels(encode(PIL.Image.new("RGB", (4, 4), (9, 9, 9)), transparency=(9, 9, 9)))[0, 0]) == (255, 255, 255)
    assert tuple(pixels(encode(rgba), 4)[5, 5]) == (255, 0, 0, 0)  # four channels keep their opacity


def test_cmyk_jpeg_keeps_its_colours() -> None:
    data = encode(PIL.Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(pixels(data)[8, 8].astype(int) - (255, 0, 0)).max() <= 4


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert tuple(pixels(data)[4, 4]) == (255, 0, 0), kind


@pytest.mark.parametrize("dtype, full", [(np.uint8, 255), (np.uint16, 65535)])
def test_bands_are_divided_by_their_full_scale(dtype: type, full: int) -> None:
    bands = np.random.default_rng(0).integers(0, full + 1, (6, 7, 5)).astype(dtype)
    expected = bands.astype(np.float32) / np.float32(full)
    planes = np.ascontiguousarray(bands.transpose(2, 0, 1))
    pages = io.BytesIO()
    with tifffile.TiffWriter(pages) as writer:
        for page in planes:
            writer.write(page, photometric="minisblack", contiguous=True)
    sources = (
        npy(bands), npy(planes), npy(bands.astype(bands.dtype.newbyteorder(">"))), pages.getvalue(),
        tiff(bands, photometric="minisblack", planarconfig="contig"),
        tiff(planes, photometric="minisblack", planarconfig="separate", compression="zlib"),
    )  # fmt: skip
    for data in sources:
        image = pixels(data, 5)
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, expected)


def test_float_bands_stay_as_they_are() -> None:
    bands = np.random.default_rng(0).normal(0, 1000, (3, 4, 2))
    np.testing.assert_array_equal(pixels(npy(bands), 2), bands.astype(np.float32))
    bands[0, 0, 0] = np.inf
    assert reason(npy(bands), 2) == "values that are not finite"
    bands[0, 0, 0] = -3.4e38  # as geographers mark what is missing; its square is infinite
    assert reason(npy(bands), 2) == "values up to 3.4e+38, expected at most 1e+15: a mark for missing data, or damage"


def test_arrays_serve_rgb_and_grey_models_too() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_allclose(pixels(npy(grey), 1), grey[:, :, None] / 255, rtol=1e-6)
    assert reason(npy(grey), 3) == "1 channel, expected 3"
    assert reason(tiff(np.zeros((4, 5, 6), np.uint8), photometric="minisblack", planarconfig="contig"), 3) == "6 channels, expected 3"


def test_a_fourth_band_that_is_not_opacity_is_kept() -> None:
    bands = np.random.default_rng(0).integers(0, 255, (5, 6, 4), np.uint8)
    np.testing.assert_allclose(pixels(tiff(bands, photometric="rgb", extrasamples=["unspecified"]), 4), bands / 255, rtol=1e-6)


def test_wrong_channel_counts_say_both_numbers() -> None:
    assert reason(tiff(np.zeros((4, 5, 6), np.uint8), photometric="minisblack", planarconfig="contig"), 13) == "6 channels, expected 13"
    assert reason(encode(PIL.Image.new("RGB", (4, 4))), 2) == "3 channels, expected 2"
    np.testing.assert_allclose(pixels(encode(PIL.Image.new("LA", (4, 4), (51, 102))), 2)[0, 0], (0.2, 0.4))


def bomb_png(side: int) -> bytes:
    """A header that promises side x side pixels over the data of one."""
    data = bytearray(encode(PIL.Image.new("RGB", (1, 1))))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def test_too_many_pixels_are_refused_by_the_header_alone() -> None:
    assert reason(encode(PIL.Image.new("RGB", (40, 30))), max_pixels=1199) == "40x30 is more than 1,199 pixels (data.max_pixels)"
    assert decode(encode(PIL.Image.new("RGB", (40, 30))), in_chans=3, max_pixels=1200)
    assert "pixels (data.max_pixels)" in reason(bomb_png(60_000))
    assert reason(npy(np.zeros((600, 2000, 5), np.uint8)), 5) == "2000x600 is more than 1,000,000 pixels (data.max_pixels)"
    assert "data.max_pixels" in reason(tiff(np.zeros((2000, 600, 5), np.uint8), photometric="minisblack", planarconfig="contig"), 5)


def test_our_limit_stands_above_pillows_own() -> None:
    """Pillow refuses 179 million pixels and warns at 89 million whatever the caller allows."""
    assert reason(bomb_png(20_000), max_pixels=10**9) != "not an image of a known format"
    assert "pixels" not in reason(bomb_png(20_000), max_pixels=10**9)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_files_are_bad(format: str, share: float) -> None:
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    data = encode(noise, format)
    why = reason(data[: int(len(data) * share)])
    assert 0 < len(why) < 140
    assert "object at" not in why


def test_every_other_failure_has_a_short_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("not a picture")
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(tmp_path / "empty.jpg") == "empty file"
    assert reason(tmp_path / "text.png") == "not an image of a known format"
    assert reason(str(tmp_path / "missing.png")) == "no such file"
    assert reason(tmp_path) == "a folder"
    assert reason(tmp_path / "pipe.png") == "not a regular file"
    assert reason("a\0b.png") == "cannot be read: impossible name"
    assert reason(b"") == "empty file"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "not an image of a known format"
    assert reason(npy(np.array([[object()]]))) == "the array holds Python objects"
    assert reason(npy(np.zeros((0, 4, 3), np.uint8))) == "an array without values"
    assert reason(npy(np.zeros((4, 4, 3), np.uint8))[:-1]) == "truncated"
    assert reason(npy(np.zeros(4, np.uint8))) == "an array of 1 dimensions, expected H,W or H,W,C"
    assert reason(npy(np.zeros((4, 4, 3), np.int64))) == "values of type int64, expected uint8, uint16 or float"


def test_bytes_str_and_path_give_the_same_image(tmp_path: Path) -> None:
    data = encode(PIL.Image.fromarray(corners()))
    (tmp_path / "a.png").write_bytes(data)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(pixels(source), pixels(data))


@pytest.mark.parametrize("broken", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12"])
def test_corrupt_exif_is_ignored_without_a_word(broken: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as seen, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        assert pixels(encode(PIL.Image.fromarray(corners()), "JPEG", exif=broken, icc_profile=b"nonsense")).shape == (16, 24, 3)
    assert not seen
    assert not caplog.records


def test_pillows_settings_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 12345)
    filters = list(warnings.filters)
    reason(b"nonsense")
    pixels(encode(PIL.Image.new("RGB", (4, 4))))
    assert PIL.Image.MAX_IMAGE_PIXELS == 12345
    assert warnings.filters == filters


def test_random_bytes_never_escape_as_another_error() -> None:
    rng = np.random.default_rng(0)
    good: list[Callable[[], bytes]] = [
        lambda: encode(PIL.Image.fromarray(corners())), lambda: encode(PIL.Image.fromarray(corners()), "WEBP"),
        lambda: encode(PIL.Image.fromarray(corners()), "TIFF", compression="tiff_lzw"), lambda: npy(corners()),
        lambda: tiff(np.zeros((8, 8, 5), np.uint8), photometric="minisblack", planarconfig="contig"),
        lambda: encode(PIL.Image.fromarray(corners()), "GIF"), lambda: encode(PIL.Image.fromarray(corners()), "JPEG"),
    ]  # fmt: skip
    for make in good:
        data = np.frombuffer(make(), np.uint8)
        for _ in range(40):
            hurt = data.copy()
            hurt[rng.integers(0, min(len(hurt), 400), 6)] = rng.integers(0, 256, 6)
            for in_chans in (3, 5):
                try:
                    decode(hurt.tobytes(), in_chans=in_chans, max_pixels=LIMIT)
                except BadImage as e:
                    assert e.reason


def test_what_cannot_be_shown_is_a_grey_picture_of_its_size(tmp_path: Path) -> None:
    bands = tmp_path / "bands.npy"
    np.save(bands, np.zeros((6, 8, 5), np.float32))
    shown = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    assert np.array_equal(viewable(encode(PIL.Image.fromarray(shown)), size=(6, 8), max_pixels=LIMIT), shown)
    for source in (bands, b"no image", encode(PIL.Image.new("RGB", (5, 5)))):
        assert np.array_equal(viewable(source, size=(6, 8), max_pixels=LIMIT), np.full((6, 8, 3), 128, np.uint8))
