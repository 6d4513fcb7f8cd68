"""Dense predictions as files: other programs read them back as they were, whatever the images are called and whatever went wrong."""

import contextlib
import copy
import csv
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from convmix.data import rle
from convmix.errors import ConfigError
from convmix.inference.output_forms import FORMATS, output_format
from convmix.inference.prediction_files import DetectionFile, common_folder, encode, write
from convmix.inference.result_files import DenseResult
from convmix.results import Boxes, Masks, SemanticMap

LABELS = ("red & <white>", "blood, cell", "ünit")
SIZE = (20, 30)  # height, width


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Boxes:
    """Rows of left, top, right, bottom, score, column."""
    values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Boxes(values[:, :4], values[:, 4], values[:, 5].long(), LABELS, SIZE)


def masks(*rows: tuple[int, int, int, int, float, int]) -> Masks:
    """Objects whose outlines are the same boxes without their top left pixel."""
    found, outlines = boxes(*rows), np.zeros((len(rows), *SIZE), np.uint8)
    for outline, (left, top, right, bottom, *_) in zip(outlines, rows, strict=True):
        outline[top:bottom, left:right] = 1
        outline[top, left] = 0
    return Masks(found.boxes, found.scores, found.columns, LABELS, SIZE, rle.encode(outlines))


def class_map(seed: int = 0, labels: tuple[str, ...] = LABELS) -> SemanticMap:
    rng = np.random.default_rng(seed)
    classes = torch.from_numpy(rng.integers(0, 2, SIZE).astype(np.uint8 if len(labels) < 256 else np.int16))
    return SemanticMap(classes, torch.from_numpy(rng.random(SIZE, dtype=np.float32)), labels)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """photos/a.jpg, photos/a.png and photos/b/a.jpg."""
    for i, name in enumerate(("a.jpg", "a.png", "b/a.jpg")):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*SIZE, 3), 60 * i, np.uint8)).save(file)
    return tmp_path / "photos"


def found_in(photos: Path, *results: DenseResult) -> list[DetectionFile]:
    """A row per result, the images in turn, and one that cannot be read."""
    files = sorted(map(str, photos.rglob("*.*")))
    rows = [DetectionFile(file, file, result) for file, result in zip(files, results, strict=False)]
    return [*rows, DetectionFile("broken.jpg", "broken.jpg", None, "not an image of a known format")]


def csv_rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text())))


TWO = boxes((1.25, 2.5, 11, 12.5, 0.9, 0), (3, 4, 30, 20, 0.25, 1))
OUTLINED = masks((1, 2, 11, 12, 0.9, 0), (3, 4, 30, 20, 0.25, 1))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools, under numpy 2
def test_pycocotools_reads_the_coco_file_and_scores_it(photos: Path, tmp_path: Path) -> None:
    rows = found_in(photos, OUTLINED, masks(), masks((2, 2, 9, 9, 0.5, 2)))
    write(rows, kind=Masks, format=None, output=tmp_path / "found.json", labels=LABELS)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "found.json"))
        again = coco.loadRes(copy.deepcopy(list(coco.anns.values())))  # it changes what it is given
        score = COCOeval(coco, again, "segm")
        score.evaluate()
        score.accumulate()
        score.summarize()
    assert score.stats[0] == pytest.approx(1.0)  # against itself
    assert [c["name"] for c in coco.loadCats([1, 2, 3])] == list(LABELS)
    assert [i["file_name"] for i in coco.loadImgs([1, 2, 3])] == [row.name for row in rows[:3]]
    assert [(i["width"], i["height"]) for i in coco.loadImgs([1, 3])] == [(30, 20)] * 2
    first, second, third = coco.loadAnns([1, 2, 3])
    assert (first["image_id"], first["category_id"], first["bbox"], first["iscrowd"]) == (1, 1, [1, 2, 10, 10], 0)
    assert (third["image_id"], third["category_id"], third["area"]) == (3, 3, 48)
    assert first["score"] == pytest.approx(0.9) and second["area"] == 27 * 16 - 1
    outline = coco.annToMask(first)
    assert outline.shape == SIZE and outline[2, 1] == 0 and outline.sum() == 99 and outline[11, 10] == 1
    assert json.loads((tmp_path / "found.json").read_text())["errors"] == [
        {"file_name": "broken.jpg", "error": "not an image of a known format"}
    ]


def test_boxes_alone_have_no_segmentation_in_coco(tmp_path: Path, photos: Path) -> None:
    write(found_in(photos, TWO), kind=Boxes, format="coco", output=tmp_path / "found.json", labels=LABELS)
    first = json.loads((tmp_path / "found.json").read_text())["annotations"][0]
    assert first["bbox"] == [1.25, 2.5, 9.75, 10.0] and first["area"] == 97.5 and "segmentation" not in first


def test_a_row_per_object_and_one_for_an_image_without(tmp_path: Path, photos: Path) -> None:
    rows = found_in(photos, OUTLINED, masks())
    write(rows, kind=Masks, format=None, output=tmp_path / "found.csv", labels=LABELS)
    read = csv_rows(tmp_path / "found.csv")
    assert [row["name"] for row in read] == [rows[0].name, rows[0].name, rows[1].name, "broken.jpg"]
    assert read[0]["label"] == LABELS[0] and [float(read[0][k]) for k in ("left", "top", "right", "bottom", "area")] == [1, 2, 11, 12, 99]
    assert read[2]["label"] == read[2]["error"] == "" and read[3]["error"] == "not an image of a known format"
    write(found_in(photos, TWO), kind=Boxes, format=None, output=tmp_path / "boxes.csv", labels=LABELS)
    assert list(csv_rows(tmp_path / "boxes.csv")[0]) == ["name", "label", "score", "left", "top", "right", "bottom", "error"]


def test_json_lines_hold_the_outlines(tmp_path: Path, photos: Path) -> None:
    write(found_in(photos, OUTLINED), kind=Masks, format=None, output=tmp_path / "found.jsonl", labels=LABELS)
    first, broken = map(json.loads, (tmp_path / "found.jsonl").read_text().splitlines())
    assert first["size"] == [20, 30] and first["error"] is None and first["objects"][0]["label"] == LABELS[0]
    counts = [o["segmentation"]["counts"].encode() for o in first["objects"]]
    assert rle.areas(counts, SIZE).tolist() == [99, 431]
    assert broken == {"name": "broken.jpg", "error": "not an image of a known format"}


def test_a_map_is_a_row_per_class_whose_shares_sum_to_one(tmp_path: Path, photos: Path) -> None:
    said = class_map()
    write(found_in(photos, said), kind=SemanticMap, format=None, output=tmp_path / "maps.csv", labels=LABELS)
    read = csv_rows(tmp_path / "maps.csv")
    assert [row["label"] for row in read] == [*LABELS, ""]
    shares = [float(row["share"]) for row in read[:3]]
    assert shares == [(said.classes == c).sum().item() / 600 for c in range(3)] and shares[2] == 0
    write(found_in(photos, said), kind=SemanticMap, format=None, output=tmp_path / "maps.json", labels=LABELS)
    first, broken = json.loads((tmp_path / "maps.json").read_text())
    assert list(first["shares"].values()) == shares and first["certainty"] == pytest.approx(said.certainty.mean().item(), abs=1e-6)
    assert broken["error"] and "shares" not in broken


def test_voc_files_are_mirrored_and_escaped(tmp_path: Path, photos: Path) -> None:
    rows = found_in(photos, TWO, boxes(), boxes((29.6, 19.7, 30, 20, 0.5, 2)))
    names = [row.name for row in rows[:3]]
    write(rows, kind=Boxes, format="voc", output=tmp_path / "out", labels=LABELS, root=common_folder(names))
    listing = {row["name"]: row for row in csv_rows(tmp_path / "out" / "files.csv")}
    assert [listing[name]["file"] for name in names] == ["a.xml", "a-2.xml", "b/a.xml"]  # a.jpg, a.png, b/a.jpg
    assert listing["broken.jpg"]["file"] == "" and listing["broken.jpg"]["error"]
    tree = ElementTree.parse(tmp_path / "out" / "a.xml")
    assert [e.text for e in tree.iter("name")] == list(LABELS[:2]) and tree.findtext("filename") == "a.jpg"
    assert [tree.findtext(f"size/{k}") for k in ("width", "height")] == ["30", "20"]
    assert [tree.findtext(f"object/bndbox/{k}") for k in ("xmin", "ymin", "xmax", "ymax")] == ["1", "2", "11", "12"]
    assert not list(ElementTree.parse(tmp_path / "out" / "a-2.xml").iter("object"))
    corner = ElementTree.parse(tmp_path / "out" / "b" / "a.xml")
    assert [int(corner.findtext(f"object/bndbox/{k}", "")) for k in ("xmin", "ymin", "xmax", "ymax")] == [29, 19, 30, 20]


def test_numbers_in_instance_masks_are_those_of_the_listing_and_the_surest_is_in_front(tmp_path: Path, photos: Path) -> None:
    write(found_in(photos, OUTLINED, masks()), kind=Masks, format="masks", output=tmp_path / "out", labels=LABELS, root=photos)
    with Image.open(tmp_path / "out" / "a.png") as picture:
        numbers = np.asarray(picture)
    first, second = rle.decode(OUTLINED.masks, SIZE)
    assert numbers.dtype == np.uint16 and (numbers == np.where(first, 1, 2 * second)).all()
    listing = csv_rows(tmp_path / "out" / "files.csv")
    assert [(row["file"], row["number"], row["label"]) for row in listing] == [
        ("a.png", "1", LABELS[0]), ("a.png", "2", LABELS[1]), ("a-2.png", "", ""), ("", "", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("num_classes", [3, 300])
def test_class_masks_hold_the_classes(tmp_path: Path, photos: Path, num_classes: int) -> None:
    labels = tuple(f"class {i}" for i in range(num_classes))
    said = class_map(labels=labels)
    said.classes[0, 0] = num_classes - 1
    write(found_in(photos, said), kind=SemanticMap, format="masks", output=tmp_path / "out", labels=labels, root=photos)
    with Image.open(tmp_path / "out" / "a.png") as picture:
        assert picture.mode == ("P" if num_classes <= 256 else "I;16") and picture.size == SIZE[::-1]
        assert (np.asarray(picture) == said.classes.numpy()).all()
        if num_classes <= 256:
            colours = np.asarray(picture.convert("RGB"))
            assert len({tuple(colours[said.classes.numpy() == c][0]) for c in range(2)}) == 2
    assert json.loads((tmp_path / "out" / "classes.json").read_text())["names"] == list(labels)


@pytest.mark.parametrize(("kind", "result"), [(Boxes, TWO), (Masks, OUTLINED), (SemanticMap, class_map())])
def test_pictures_are_the_images_with_something_drawn_on_them(
    tmp_path: Path, photos: Path, kind: type[DenseResult], result: DenseResult
) -> None:
    write(found_in(photos, result, result, result), kind=kind, format=None, output=tmp_path / "out", labels=LABELS, root=photos)
    for name, form in (("a.jpg", "JPEG"), ("a.png", "PNG"), ("b/a.jpg", "JPEG")):
        with Image.open(tmp_path / "out" / name) as drawn, Image.open(photos / name) as plain:
            assert drawn.format == form
            times = drawn.width // plain.width  # small images are enlarged, and have a legend beneath
            changed = np.asarray(drawn)[: times * plain.height, : times * plain.width].astype(int) - plain.getpixel((0, 0))
        assert np.abs(changed).max() > 60


def test_an_image_that_is_gone_or_has_changed_is_a_row_with_a_reason(tmp_path: Path, photos: Path) -> None:
    rows = found_in(photos, TWO, TWO, TWO)
    (photos / "a.jpg").unlink()
    Image.new("RGB", (5, 6)).save(photos / "a.png")
    write(rows, kind=Boxes, format="pictures", output=tmp_path / "out", labels=LABELS, root=photos)
    assert [row["error"] for row in csv_rows(tmp_path / "out" / "files.csv")] == [
        "no such file", "has changed: it is 6x5 now and was 20x30", "", "not an image of a known format",
    ]  # fmt: skip
    assert sorted(f.name for f in (tmp_path / "out").rglob("*.*")) == ["a.jpg", "files.csv"]  # b/a.jpg


@pytest.mark.parametrize("format", ["pictures", "masks", "voc"])
def test_nothing_is_written_among_the_images(photos: Path, format: str) -> None:
    before = {file: file.read_bytes() for file in photos.rglob("*.*")}
    with pytest.raises(ConfigError, match="is where the images are"):
        write(found_in(photos, OUTLINED), kind=Masks, format=format, output=photos, labels=LABELS, root=photos)
    assert {file: file.read_bytes() for file in photos.rglob("*.*")} == before


def test_a_link_to_the_images_is_where_the_images_are(photos: Path, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in photos.rglob("*.*")}
    (tmp_path / "link").symlink_to(photos, target_is_directory=True)
    with pytest.raises(ConfigError, match="is where the images are"):
        write(found_in(photos, OUTLINED), kind=Masks, format="masks", output=tmp_path / "link", labels=LABELS, root=photos)
    assert {file: file.read_bytes() for file in photos.rglob("*.*")} == before


def test_names_outside_the_root_stay_inside_the_folder(tmp_path: Path) -> None:
    names = ["../../x/a.png", "/else/where/a.png", "x/a.png", "X/A.png", "x/a.png"]
    rows = [DetectionFile(name, name, boxes()) for name in names]
    write(rows, kind=Boxes, format="voc", output=tmp_path / "deep" / "out", labels=LABELS)
    places = [row["file"] for row in csv_rows(tmp_path / "deep" / "out" / "files.csv")]
    assert places[2] == places[4] and len(set(map(str.lower, places))) == 4
    assert all((tmp_path / "deep" / "out" / place).is_file() for place in places)
    assert [p.name for p in tmp_path.iterdir()] == ["deep"] and [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_common_folder() -> None:
    assert common_folder(["/a/b/1.png", "/a/b/c/2.png"]) == "/a/b"
    assert common_folder(["1.png", "/a/2.png"]) == common_folder([]) == ""
    assert common_folder(["x/1.png"]) == "x"


def test_the_table_says_what_is_there_and_what_went_wrong(photos: Path) -> None:
    rows = [
        *found_in(photos, boxes((0, 0, 9, 9, 0.875, 1), (0, 0, 9, 9, 0.5, 1), (1, 1, 5, 5, 0.25, 0)), boxes()),
        DetectionFile("\x1b[2J", "", TWO),
    ]
    said = b"".join(encode(rows, kind=Boxes, format="table", labels=LABELS)).decode()
    lines = said.splitlines()
    assert "2 blood, cell, 1 red & <white>" in lines[1] and "blood, cell 87.5 %" in lines[1]
    assert "nothing" in lines[2] and "not an image" in lines[3]
    assert "\x1b" not in said and r"\x1b[2J" in lines[4]
    maps = b"".join(encode(found_in(photos, class_map()), kind=SemanticMap, format="table", labels=LABELS)).decode()
    assert "red & <white>" in maps and "%" in maps and "ünit" not in maps


@pytest.mark.parametrize("kind", [Boxes, Masks, SemanticMap])
def test_every_format_writes_no_rows_and_only_errors(tmp_path: Path, kind: type[DenseResult]) -> None:
    broken = [DetectionFile("x.png", "x.png", None, "empty file")]
    for form, (n, rows) in itertools.product(FORMATS[kind], enumerate([[], broken])):
        output = tmp_path / f"{form}-{n}"
        write(rows, kind=kind, format=form, output=output, labels=LABELS)
        text = (output / "files.csv" if output.is_dir() else output).read_text()
        assert ("empty file" in text) is bool(rows)
        if form in ("coco", "json"):
            json.loads(text)


def test_files_stream_and_appear_only_when_complete(tmp_path: Path, photos: Path) -> None:
    """A row is written before the next one is asked for; what stood there stays when the rows break off."""
    asked = []

    def rows() -> Iterator[DetectionFile]:
        for i in range(3):
            asked.append(i)
            yield DetectionFile(f"{i}.png", "", TWO)

    for form, whole in (("csv", 3), ("jsonl", 1), ("coco", 3)):
        asked.clear()
        parts = encode(rows(), kind=Boxes, format=form, labels=LABELS)
        for _ in range(whole):
            next(parts)
        assert asked == [0]

    def breaking() -> Iterator[DetectionFile]:
        yield DetectionFile("0.png", "", TWO)
        raise RuntimeError("the device is gone")

    (tmp_path / "found.csv").write_text("before")
    with pytest.raises(RuntimeError):
        write(breaking(), kind=Boxes, format=None, output=tmp_path / "found.csv", labels=LABELS)
    assert (tmp_path / "found.csv").read_text() == "before" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("kind", "format", "output", "said"),
    [
        (Boxes, "coca", None, "format: coca is not one of table, csv, csv-raw, jsonl, coco, voc, pictures, did you mean coco?"),
        (Boxes, "masks", None, "format: masks is not one of table, csv, csv-raw, jsonl, coco, voc, pictures"),
        (SemanticMap, "coco", None, "format: coco is not one of table, csv, csv-raw, jsonl, json, masks, pictures"),
        (Boxes, None, "found.parquet", "output: found.parquet has the unknown suffix .parquet"),
        (Boxes, "voc", "-", "format: voc writes a folder of files"),
        (Masks, "csv", ".", "output: . is a folder, expected a file such as predictions.csv"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is(kind: type[DenseResult], format: str | None, output: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        output_format(format, output, kind=kind)
    assert str(error.value).startswith(said)


def test_the_suffix_tells_the_format(tmp_path: Path) -> None:
    suffixes = {
        "-": "table",
        "x.txt": "table",
        "x.csv": "csv",
        "x.NDJSON": "jsonl",
        "x.json": "coco",
        "new": "pictures",
        str(tmp_path): "pictures",
    }
    assert {output: output_format(None, output, kind=Masks) for output in suffixes} == suffixes
    assert output_format(None, "x.json", kind=SemanticMap) == "json" and output_format(None, None, kind=Boxes) == "table"
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError, match="is a file, voc writes a folder"):
        output_format("voc", tmp_path / "x", kind=Boxes)
