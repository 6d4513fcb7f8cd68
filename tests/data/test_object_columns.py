"""Hugging Face's rows with `objects` are boxes: in parquet or a saved data set, classes by name or number, whatever form the boxes have."""

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from convmix.config import Data
from convmix.data.sources import open_source
from convmix.data.targets import Objects
from convmix.errors import DataError

BOXES = [[[2.0, 3.0, 10.0, 5.0], [20.0, 1.0, 8.0, 9.0]], [], [[0.0, 0.0, 30.0, 20.0]], [[15.0, 12.0, 14.0, 7.0]], [[16.0, 14.0, 12.0, 5.0]]]
CLASSES = [[0, 1], [], [1], [0], [1]]


def picture(i: int) -> dict[str, Any]:
    out = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), 40 * i, np.uint8)).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


def rows(boxes: Any = BOXES, classes: Any = CLASSES, *, named: bool = True, listed: bool = False) -> datasets.Dataset:
    kind: Any = datasets.ClassLabel(names=["cat", "dog"]) if named else datasets.Value("string")
    box = datasets.Sequence(datasets.Value("float32"))
    objects: Any = {"bbox": datasets.Sequence(box), "category": datasets.Sequence(kind)}
    held: Any = [{"bbox": b, "category": c} for b, c in zip(boxes, classes, strict=True)]
    if listed:
        objects = [{"bbox": box, "category": kind}]
        held = [[{"bbox": b, "category": c} for b, c in zip(o["bbox"], o["category"], strict=True)] for o in held]
    features = datasets.Features({"image": datasets.Image(decode=False), "objects": objects})
    return datasets.Dataset.from_dict({"image": [picture(i) for i in range(len(boxes))], "objects": held}, features=features)


def known(source: Any, split: str) -> list[tuple[list[list[float]], list[int]]]:
    found = []
    for i in range(len(source.splits[split])):
        objects = source.splits[split].annotation(i)
        assert isinstance(objects, Objects)
        found.append((objects.boxes.tolist(), objects.labels.tolist()))
    return found


WANTED = [
    ([[2, 3, 12, 8], [20, 1, 28, 10]], [0, 1]), ([], []), ([[0, 0, 30, 20]], [1]), ([[15, 12, 29, 19]], [0]), ([[16, 14, 28, 19]], [1]),
]  # fmt: skip


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_parquet_with_objects_is_a_set_of_boxes(tmp_path: Path, named: bool, listed: bool) -> None:
    classes = CLASSES if named else [["cat" if c == 0 else "dog" for c in of] for of in CLASSES]
    for split in ("train", "validation"):
        rows(classes=classes, named=named, listed=listed).to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    source = open_source(tmp_path, Data())
    assert (source.task, source.layout, source.classes) == ("detect", "parquet", ("cat", "dog"))
    assert known(source, "train") == known(source, "val") == WANTED and not source.dropped
    assert isinstance(source.splits["train"].source(3), bytes)


def test_a_saved_data_set_and_one_parquet_file_are_not_split(tmp_path: Path) -> None:
    rows().save_to_disk(tmp_path / "saved")
    rows().to_parquet(tmp_path / "boxes.parquet")
    for place in (tmp_path / "saved", tmp_path / "boxes.parquet"):
        assert known(open_source(str(place), Data(task="detect")), "all") == WANTED


def test_corners_and_shares_are_seen_and_said(tmp_path: Path) -> None:
    corners = [[[a, b, a + c, b + d] for a, b, c, d in of] for of in BOXES]
    rows(corners).to_parquet(tmp_path / "corners.parquet")
    source = open_source(tmp_path / "corners.parquet", Data())
    assert known(source, "all") == WANTED and any("xyxy" in note for note in source.notes)
    shares = [[[a / 30, b / 20, c / 30, d / 20] for a, b, c, d in of] for of in BOXES]
    rows(shares).to_parquet(tmp_path / "shares.parquet")
    source = open_source(tmp_path / "shares.parquet", Data())
    for (given, labels), (boxes, wanted) in zip(known(source, "all"), WANTED, strict=True):
        assert np.allclose(given, boxes, atol=1e-4) and labels == wanted
    assert any("shares of the image" in note for note in source.notes)


def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path: Path) -> None:
    boxes = [[[2.0, 3.0, 10.0, 5.0], [2.0, 3.0]], [[50.0, 50.0, 4.0, 4.0]], [[1.0, 1.0, 0.0, 4.0]]]
    rows(boxes, [[0, 1], [1], [0]]).to_parquet(tmp_path / "some.parquet")
    source = open_source(tmp_path / "some.parquet", Data())
    assert [name for name, _ in source.dropped] == ["all[0] object 1", "all[1] object 0", "all[2] object 0"]
    assert "2 numbers" in source.dropped[0][1] and "outside the image" in source.dropped[1][1]
    rows([[], []], [[], []]).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="no object can be used"):
        open_source(tmp_path / "none.parquet", Data())
