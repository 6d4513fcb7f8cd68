"""Other data than the run's own is scored under the run's names of the classes; two runs are compared on the same images."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import convmix
from convmix.artifacts.renumbering import Renumbered, columns
from convmix.config import Data
from convmix.data.scan import scan
from convmix.data.sources import open_source
from convmix.data.targets import IGNORE, Objects, Regions
from convmix.errors import ConfigError, DataError
from tests.dense_scenes import write_coco, write_maps
from tests.made_once import MadeOnce
from tests.trained_runs import dense_run


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    examples = open_source(write_coco(tmp_path / "boxes", {"train": 3}, masks=False), Data()).splits["train"]
    column_of = columns(examples.classes, ("disc", "other", "square"), "scenes")
    assert column_of.tolist() == [2, 0]
    before, after = examples.annotation(1), Renumbered(examples, column_of).annotation(1)
    assert isinstance(before, Objects) and isinstance(after, Objects)
    assert after.labels.tolist() == [column_of[c] for c in before.labels] and np.array_equal(before.boxes, after.boxes)

    maps = open_source(write_maps(tmp_path / "maps", {"train": 3}), Data()).splits["train"]
    regions = Renumbered(maps, np.array([1, 2, 0])).annotation(0)
    assert isinstance(regions, Regions) and regions.classes[:3] == (1, 2, 0) and regions.classes[255] == IGNORE
    with pytest.raises(DataError, match="does not know its class sqare, did you mean square"):
        columns(("disc", "sqare"), ("disc", "square"), "scenes")


def test_a_moved_box_is_other_data_and_the_smallest_class_is_measured(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "boxes", {"train": 6}, masks=False)
    first = scan(open_source(root, Data()), Data(), workers=0)
    source = open_source(root, Data())
    sides: dict[int, list[float]] = {}
    for i in range(6):
        known = source.splits["train"].annotation(i)
        assert isinstance(known, Objects)
        for label, (left, top, right, bottom) in zip(known.labels.tolist(), known.boxes.tolist(), strict=True):
            sides.setdefault(label, []).append(((right - left) * (bottom - top)) ** 0.5 / 64)
    assert first.facts.small_object == pytest.approx(min(np.median(s) for s in sides.values()))

    listing = root / "annotations" / "instances_train.json"
    content = json.loads(listing.read_text())
    content["annotations"][0]["bbox"][2] -= 1
    listing.write_text(json.dumps(content))
    assert scan(open_source(root, Data()), Data(), workers=0).fingerprint != first.fingerprint


def test_an_image_annotated_at_another_size_is_left_out_before_training(tmp_path: Path) -> None:
    source = open_source(write_coco(tmp_path / "boxes", {"train": 4}, masks=False), Data())
    rows = source.splits["train"].rows.map(lambda row, i: {"height": 32 if i == 2 else row["height"]}, with_indices=True)
    turned = replace(source, splits={"train": replace(source.splits["train"], rows=rows)})
    seen = scan(turned, Data(), workers=0).splits["train"]
    assert seen.ok.tolist() == [True, True, False, True] and "annotated for 32x64, the image is 64x64" in seen.reason[2]


def otherwise(run: Path, path: Path) -> Path:
    """The run with other weights, as another seed would have left them."""
    shutil.copytree(run, path)
    generator = torch.Generator().manual_seed(1)
    weights = load_file(path / "model.safetensors")
    noisy = {k: v + 0.1 * torch.randn(v.shape, generator=generator) if k.endswith("weight") else v for k, v in weights.items()}
    save_file(noisy, path / "model.safetensors")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detect", "segment"])
def test_two_runs_are_compared_on_the_same_images(task: str, made_once: MadeOnce, tmp_path: Path) -> None:
    run = shutil.copytree(dense_run(made_once, task), tmp_path / "run")
    rival = otherwise(run, tmp_path / "rival")
    result = convmix.evaluate(run, against=rival)
    assert result.against is not None and result.against.rival == str(rival)
    low, high = result.against.interval
    assert low <= result.against.difference <= high
    with pytest.raises(ConfigError, match="against"):
        convmix.evaluate(run, against=dense_run(made_once, "instances"))
