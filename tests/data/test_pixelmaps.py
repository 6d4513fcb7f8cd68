"""Maps of one number or colour a pixel: what is written is what is read, and what has no meaning is refused with its value."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import save_map, write
from PIL import Image

from convmix.data import rle
from convmix.data.decode import BadImage
from convmix.data.readers.pixelmaps import read_meaning, read_objects, read_regions
from convmix.data.targets import IGNORE, UNKNOWN, Regions
from convmix.errors import DataError

ADE20K = "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.16\t11664\t1172\t1\twall, x\n2\t0.05\t4750\t455\t1\ttree\n"
VALUES = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)


def regions(path: Path, folder: Path) -> Regions:
    meaning = read_meaning(folder)
    assert meaning is not None
    return Regions(str(path), meaning.values, meaning.palette)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_values_are_classes_and_255_is_ignored(tmp_path: Path, mode: str) -> None:
    write(tmp_path / "classes.json", json.dumps({"names": ["sky", "road", "car"]}))
    read = read_regions(regions(save_map(tmp_path / "m.png", VALUES, mode), tmp_path))
    assert read.dtype == np.uint8 and np.array_equal(read, VALUES)


def test_the_ignored_value_is_no_class_and_the_later_ones_move_up(tmp_path: Path) -> None:
    write(tmp_path / "classes.json", json.dumps({"names": ["void", "road", "car"], "ignore_index": 0}))
    meaning = read_meaning(tmp_path)
    assert meaning is not None and meaning.classes == ("road", "car")
    read = read_regions(regions(save_map(tmp_path / "m.png", VALUES), tmp_path))
    assert read.tolist() == [[IGNORE, 0, 1], [1, IGNORE, IGNORE]]


def test_a_class_called_void_is_a_class_where_nothing_says_otherwise(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "void\nroad\n")
    meaning = read_meaning(tmp_path)
    assert meaning is not None and meaning.classes == ("void", "road") and meaning.values[0] == 0


@pytest.mark.parametrize(
    ("file", "text", "classes", "values"),
    [
        ("classes.json", '{"names": {"7": "road", "3": "car"}}', ("car", "road"), {3: 0, 7: 1}),
        ("classes.json", '{"0": "background", "255": "object"}', ("background", "object"), {0: 0, 255: 1}),
        ("classes.json", '["road", "car"]', ("road", "car"), {0: 0, 1: 1}),
        ("classes.json", '{"names": ["a", "b", "a", "c"], "ignore_index": [3]}', ("a", "b"), {0: 0, 1: 1, 2: 0, 3: IGNORE}),
        ("objectInfo150.txt", ADE20K, ("wall", "tree"), {0: IGNORE, 2: 1}),
    ],
)  # fmt: skip
def test_the_forms_of_names(tmp_path: Path, file: str, text: str, classes: tuple[str, ...], values: dict[int, int]) -> None:
    write(tmp_path / file, text)
    meaning = read_meaning(tmp_path)
    assert meaning is not None and meaning.classes == classes
    assert {v: meaning.values[v] for v in values} == values
    assert meaning.values[200] == UNKNOWN and len(meaning.values) == 256


def test_colours_of_a_palette_are_classes(tmp_path: Path) -> None:
    write(tmp_path / "class_dict.csv", "name, r, g, b\nsky,10,20,30\nroad,200,0,1\n\nvoid,0,0,0\n")
    write(tmp_path / "classes.json", json.dumps({"names": [], "ignore_index": 2}))
    colours = np.array([[[10, 20, 30], [200, 0, 1]], [[0, 0, 0], [200, 0, 1]]], np.uint8)
    found = regions(save_map(tmp_path / "m.png", colours), tmp_path)
    assert found.palette == ((10, 20, 30), (200, 0, 1), (0, 0, 0))
    assert read_regions(found).tolist() == [[0, 1], [IGNORE, 1]]
    with pytest.raises(BadImage, match=r"the colour 11,20,30 in the class map"):
        read_regions(Regions(str(save_map(tmp_path / "n.png", colours + np.uint8([1, 0, 0]))), found.classes, found.palette))


def test_a_grey_map_saved_in_colour_is_read_by_its_grey(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "sky\nroad\ncar\n")
    assert np.array_equal(read_regions(regions(save_map(tmp_path / "m.png", np.stack([VALUES] * 3, 2)), tmp_path)), VALUES)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_a_pixel_are_not_stretched(tmp_path: Path, bits: int) -> None:
    """Pillow reads a grey PNG of 4 bits as 0, 17, 34, ...; programs that shrink PNG files write such."""
    import struct
    import zlib

    values = np.array([[0, 1, 1, 0], [1, 0, 1, 1]]) * (2**bits - 1 if bits == 2 else 1)
    rows = [b"\0" + np.packbits(((row[:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8)).tobytes() for row in values]
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 4, 2, bits, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    packed = b"".join(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks)
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + packed)
    write(tmp_path / "classes.txt", "a\nb\nc\nd\n")
    assert np.array_equal(read_regions(regions(tmp_path / "m.png", tmp_path)), values)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, 3]], np.uint8), "the value 3 in the class map, which no class has"),
        (np.array([[0, 300]], np.uint16), "the value 300 in the class map, expected 0 to 255"),
        (np.arange(6, dtype=np.uint8).reshape(1, 2, 3), "mode RGB, expected one number a pixel"),
        (np.arange(8, dtype=np.uint8).reshape(1, 2, 4), "mode RGBA"),
    ],
)
def test_maps_that_hold_something_else_say_what(tmp_path: Path, values: Any, reason: str) -> None:
    write(tmp_path / "classes.txt", "sky\nroad\ncar\n")
    with pytest.raises(BadImage, match=reason):
        read_regions(regions(save_map(tmp_path / "m.png", values), tmp_path))


def test_16_bits_within_the_names_are_read(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "sky\nroad\ncar\n")
    assert np.array_equal(read_regions(regions(save_map(tmp_path / "m.png", VALUES.astype(np.uint16)), tmp_path)), VALUES)


def test_a_map_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "sky\nroad\n")
    whole = io.BytesIO()
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(whole, "PNG")
    for name, content, reason in (
        ("empty.png", b"", "empty"),
        ("text.png", b"no picture", "cannot be decoded"),
        ("cut.png", whole.getvalue()[:60], "cannot be decoded"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadImage, match=reason):
            read_regions(regions(tmp_path / name, tmp_path))
    with pytest.raises(BadImage, match="no such file"):
        read_regions(regions(tmp_path / "gone.png", tmp_path))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classes.json", '{"names": ["a", 3]}', "expected a list of names"),
        ("classes.json", '{"names": {"300": "a"}}', "a class of value '300', expected 0 to 255"),
        ("classes.json", '{"names": ["a"], "ignore_index": "b"}', "a class of value 'b'"),
        ("classes.json", '{"names": ["a"], "ignore_index": 0}', "0 classes"),
        ("classes.json", '{"names": [', "cannot be read as class names"),
        ("class_dict.csv", "name,r,g,b\nsky,1,2,256\n", r"class_dict\.csv:2: 'sky,1,2,256'"),
        ("class_dict.csv", "sky,1,2,3\nroad,1,2,3\n", r"class_dict\.csv:2: the colour 1,2,3 a second time"),
        ("class_dict.csv", "name,r,g,b\n", "0 colours"),
    ],
)
def test_a_names_file_that_makes_no_sense_is_refused(tmp_path: Path, file: str, text: str, message: str) -> None:
    write(tmp_path / file, text)
    with pytest.raises(DataError, match=message):
        read_meaning(tmp_path)


def test_no_names_file_is_no_meaning(tmp_path: Path) -> None:
    assert read_meaning(tmp_path) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_of_an_object_map_is_one_object(tmp_path: Path, dtype: type) -> None:
    values = np.array([[0, 7, 7], [3, 0, 7]]).astype(dtype) * (300 if dtype is np.uint16 else 1)
    found = list(read_objects(save_map(tmp_path / "m.png", values), (2, 3)))
    assert [value for value, _ in found] == sorted({*values.ravel().tolist()} - {0})
    masks = rle.decode([mask for _, mask in found], (2, 3))
    assert masks.tolist() == [[[0, 0, 0], [1, 0, 0]], [[0, 1, 1], [0, 0, 1]]]
    with pytest.raises(BadImage, match="the object map is 3x2, the image 2x3"):
        list(read_objects(tmp_path / "m.png", (3, 2)))
