"""Predictions have the ids of the COCO file that their images are from, so that pycocotools scores them against that file."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from convmix.atomic import write_json
from convmix.config import Data
from convmix.data.coco_ids import FILE, NO_IDS, CocoIds, read_coco_ids
from convmix.data.sources import open_source
from convmix.inference.prediction_files import DetectionFile, write
from convmix.results import Boxes
from tests.dense_scenes import write_coco


def test_an_image_is_known_by_the_folders_that_end_its_path() -> None:
    ids = CocoIds({}, {"train/a.png": 7, "val/a.png": 30, "val/b.png": 12})
    assert [ids.find(p) for p in ("/x/val/a.png", "data/train/a.png", "elsewhere/b.png", "val\\a.png")] == [30, 7, 12, 30]
    assert ids.find("a.png") is None and ids.find("c.png") is None and ids.find("") is None
    give = ids.of_images()
    assert [give(p) for p in ("val/b.png", "new.png", "again/val/b.png", "train/a.png")] == [12, 31, 32, 7]


def test_without_ids_everything_counts_from_one(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{broken")
    assert read_coco_ids(tmp_path) is NO_IDS is read_coco_ids(tmp_path / "nowhere")
    give = NO_IDS.of_images()
    assert [give(p) for p in ("b.png", "a.png")] == [1, 2] and NO_IDS.of_classes(("disc", "square")) == [1, 2]
    assert CocoIds({"square": 90}, {}).of_classes(("disc", "square")) == [91, 90]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools, under numpy 2
def test_what_is_predicted_is_scored_against_the_users_own_file(tmp_path: Path) -> None:
    data = write_coco(tmp_path / "data", {"train": 2, "val": 3}, masks=False)
    given: dict[str, Any] = {}
    for split in ("train", "val"):
        file = data / f"annotations/instances_{split}.json"
        given = json.loads(file.read_text())
        for category in given["categories"]:
            category["id"] = {1: 44, 2: 3}[category["id"]]
        for image in given["images"]:
            image["id"] = 5000 - 7 * image["id"]
        for annotation in given["annotations"]:
            annotation["image_id"], annotation["category_id"] = 5000 - 7 * annotation["image_id"], {1: 44, 2: 3}[annotation["category_id"]]
        file.write_text(json.dumps(given))
    source = open_source(str(data), Data())
    assert source.ids is not None
    write_json(tmp_path / FILE, source.ids.to_dict())
    names = {c["id"]: source.classes.index(c["name"]) for c in given["categories"]}
    rows = []
    for image in reversed(given["images"]):  # the truth, as if it had been found
        objects = [a for a in given["annotations"] if a["image_id"] == image["id"]]
        corners = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in objects)]
        path = str(data / "val" / image["file_name"])
        found = Boxes(
            boxes=torch.tensor(corners, dtype=torch.float32), scores=torch.full((len(objects),), 0.9), labels=source.classes,
            columns=torch.tensor([names[a["category_id"]] for a in objects]), size=(image["height"], image["width"]),
        )  # fmt: skip
        rows.append(DetectionFile(path, path, found))
    write(rows, kind=Boxes, format="coco", output=tmp_path / "found.json", labels=source.classes, ids=read_coco_ids(tmp_path))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data / "annotations/instances_val.json"))
        score = COCOeval(truth, truth.loadRes(json.loads((tmp_path / "found.json").read_text())["annotations"]), "bbox")
        score.evaluate()
        score.accumulate()
        score.summarize()
    assert score.stats[0] == pytest.approx(1.0)
