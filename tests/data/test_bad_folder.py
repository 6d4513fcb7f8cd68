"""A folder with every kind of bad file we could think of: nothing raises, each is named with its reason, the good ones all survive."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from convmix.config import Data
from convmix.data.examples import Source
from convmix.data.scan import Scan, clean, scan
from convmix.data.sources import open_source

RNG = np.random.default_rng(0)
PHOTO = Image.fromarray(RNG.integers(0, 256, (40, 60, 3), np.uint8))


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_with_header(width: int, height: int) -> bytes:
    """A PNG that declares a size its data does not have."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    whole = save(PHOTO, "PNG")
    return whole[:8] + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + whole[33:]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def tiff(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "a")
    return buffer.getvalue()


JPEG, PNG, GIF, WEBP = (save(PHOTO, kind) for kind in ("JPEG", "PNG", "GIF", "WEBP"))
CORRUPT_EXIF = JPEG[:2] + b"\xff\xe1\x00\x12Exif\0\0MM\x00*\xff\xff\xff\xff\xff\xff" + JPEG[2:]

BAD: dict[str, tuple[bytes, str]] = {  # name -> content, what the reason says
    "empty.jpg": (b"", "empty"),
    "empty.npy": (b"", "empty"),
    "one_byte.png": (b"\x89", "not an image"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "half.png": (PNG[: len(PNG) // 2], "truncated"),
    "half.gif": (GIF[: len(GIF) // 2], "truncated"),
    "half.webp": (WEBP[: len(WEBP) // 2], ""),
    "head_only.jpg": (JPEG[:24], ""),
    "bad_crc.png": (flipped(PNG, 40), ""),
    "text.jpg": (b"this was never a photo\n", "not an image"),
    "page.png": (b"<!DOCTYPE html><html><body>404</body></html>", "not an image"),
    "zeros.jpg": (bytes(500), "not an image"),
    "bomb.png": (png_with_header(60_000, 60_000), "pixels"),
    "zero_width.png": (png_with_header(0, 40), ""),
    "bands.npy": (npy(np.zeros((4, 4, 5), np.float32)), "5 channels, expected 3"),
    "cut.npy": (npy(np.zeros((4, 4, 3), np.float32))[:-20], "truncated"),
    "objects.npy": (npy(np.array([{}])), "Python objects"),
    "nan.tif": (tiff(np.full((6, 5), np.nan, np.float32)), "not finite"),
    "half.tif": (tiff(RNG.integers(0, 255, (20, 20, 3), np.uint8))[:400], ""),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), ""),
    "paper.pdf": (b"%PDF-1.7 ...", "not an image by its extension .pdf"),
    "logo.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image by its extension .svg"),
    "archive.zip": (zipped(), "not an image by its extension .zip"),
    "archive.jpg": (zipped(), "not an image"),
    "unknown": (b"no suffix, no picture", "no extension"),
}

GOOD: dict[str, bytes] = {
    "plain.jpg": JPEG,
    "upper.JPG": JPEG,
    "really_a_png.jpg": PNG,
    "really_a_jpeg.dat": JPEG,
    "tail.jpg": JPEG + b"garbage after the end" * 20,
    "cmyk.jpg": save(PHOTO.convert("CMYK"), "JPEG"),
    "sixteen.png": save(Image.fromarray(RNG.integers(0, 65536, (9, 8), np.uint16)), "PNG"),
    "la.png": save(PHOTO.convert("LA"), "PNG"),
    "palette.png": save(PHOTO.convert("P"), "PNG"),
    "rgba.png": save(PHOTO.convert("RGBA"), "PNG"),
    "bilevel.png": save(PHOTO.convert("1"), "PNG"),
    "grey.tif": save(PHOTO.convert("L"), "TIFF"),
    "corrupt_exif.jpg": CORRUPT_EXIF,
    "one_pixel.png": save(PHOTO.crop((0, 0, 1, 1)), "PNG"),
    "array.npy": npy(RNG.random((5, 6, 3), np.float32)),
    "new\nline.png": PNG,
    'comma, "quote"; tab\t.png': PNG,
    "猫 ü.png": PNG,
}
UNDECODABLE_NAME = b"caf\xe9.png"  # Latin-1, not UTF-8


@dataclass(frozen=True)
class Case:
    source: Source
    scan: Scan
    reasons: dict[str, str]
    undecodable_name: bool  # this file system took it


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    root = tmp_path_factory.mktemp("photos")
    folder, other = root / "cat", root / "dog"
    folder.mkdir()
    other.mkdir()
    (other / "fine.png").write_bytes(PNG)
    for name, content in {n: c for n, (c, _) in BAD.items()}.items():
        (folder / name).write_bytes(content)
    for name, content in GOOD.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    (folder / "dangling.png").symlink_to(root / "nowhere.png")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "secret.png").write_bytes(PNG)
    (folder / "secret.png").chmod(0)
    took_it = True
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + UNDECODABLE_NAME)).write_bytes(PNG)
    except OSError:
        took_it = False
    source = open_source(root, Data())
    found = scan(source, Data())
    yield Case(source, found, {name.removeprefix("cat/"): reason for name, _, reason in found.bad}, took_it)
    (folder / "secret.png").chmod(0o600)


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_named_with_its_reason(case: Case, name: str) -> None:
    assert case.reasons[name]
    assert BAD[name][1] in case.reasons[name]


@pytest.mark.parametrize("name", GOOD)
def test_good_file_survives(case: Case, name: str) -> None:
    assert name not in case.reasons, case.reasons[name]
    assert f"cat/{name}" in clean(case.source, case.scan).splits["all"].names


def test_what_is_no_file_is_named(case: Case) -> None:
    assert case.reasons["folder.jpg"] == "a folder named like an image"
    assert case.reasons["pipe.png"] == "not a regular file"
    assert "no such file" in case.reasons["dangling.png"]
    assert case.reasons["itself.png"]


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_named(case: Case) -> None:
    assert "permission" in case.reasons["secret.png"]


def test_name_that_is_no_text_is_read_and_shown(case: Case) -> None:
    if not case.undecodable_name:
        pytest.skip("this file system refuses names that are not UTF-8")
    kept = clean(case.source, case.scan).splits["all"]
    index = kept.names.index("cat/caf\\xe9.png")
    assert os.fsencode(str(kept.source(index))).endswith(UNDECODABLE_NAME)


def test_nothing_else_is_lost_and_every_reason_is_one_line(case: Case) -> None:
    extra = {"folder.jpg", "pipe.png", "dangling.png", "itself.png", "secret.png"}
    assert set(case.reasons) - extra == set(BAD)
    assert len(BAD) + len(extra) >= 20
    for reason in case.reasons.values():
        assert "\n" not in reason
        assert len(reason) < 120
    good = len(GOOD) + 1 + case.undecodable_name + ("secret.png" not in case.reasons)  # the other class has one
    assert int(case.scan.splits["all"].ok.sum()) == good
