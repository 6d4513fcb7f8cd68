"""Confident learning by hand, and on a run whose held-out labels were spoiled."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_run import LABELS, make_run, write_folder

from convmix import api
from convmix.artifacts.artifact import load_artifact
from convmix.artifacts.provenance import recorded_rows
from convmix.audit.doctor import doctor
from convmix.audit.labels import suspect
from convmix.config import Data
from convmix.data.sources import open_source
from convmix.errors import DataError, RunError
from tests.made_once import MadeOnce

FLIPPED_EVERY = 20  # 5 % of the labels


def test_thresholds_joint_and_order_are_the_papers() -> None:
    # Thresholds, the mean self-confidence of each class: (0.9 + 0.7 + 0.2) / 3 = 0.6 and (0.8 + 0.4) / 2 = 0.6.
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.2, 0.8], [0.6, 0.4]])
    found = suspect(probabilities, np.array([0, 0, 0, 1, 1]))
    assert found.index.tolist() == [2, 4]  # 4: 0.6 reaches class 0's threshold of 0.6, its own 0.4 does not
    assert found.given.tolist() == [0, 1] and found.suggested.tolist() == [1, 0]
    np.testing.assert_allclose(found.margin, [0.6, 0.2])
    assert found.joint.tolist() == [[2, 1], [1, 1]]


def test_the_joint_is_scaled_to_all_images_of_a_label() -> None:
    """Two images of label 0 reach a threshold, one each; so half of the three are wrong: 1.5, and the third is suspected as well."""
    probabilities = np.array([[0.9, 0.1], [0.05, 0.95], [0.3, 0.7], [0.1, 0.9], [0.3, 0.7]])
    found = suspect(probabilities, np.array([0, 0, 0, 1, 1]))  # thresholds 0.417 and 0.8: image 2 reaches neither
    assert found.joint.tolist() == [[1, 1], [0, 1]]
    assert found.index.tolist() == [1, 2] and found.suggested.tolist() == [1, 1]


def test_an_image_that_the_model_agrees_with_is_never_suspected() -> None:
    """0.45 is much for class 1, whose own images get 0.4: it counts in the joint, and yet class 0 is more probable."""
    probabilities = np.array([[0.55, 0.45], [0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    found = suspect(probabilities, np.array([0, 0, 0, 1, 1]))
    assert found.joint[0, 1] == 1 and 0 not in found.index.tolist()


def test_a_class_without_images_is_never_suggested() -> None:
    found = suspect(np.array([[0.1, 0.1, 0.8], [0.2, 0.1, 0.7]]), np.array([0, 1]))
    assert 2 not in found.suggested.tolist()


@pytest.fixture(scope="session")
def spoiled(made_once: MadeOnce) -> tuple[Path, Path, set[str]]:
    """Scanned digits with 5 % of the labels changed, a run trained on half of them, and the names of the changed images; read only."""
    folder = made_once("spoiled", spoil)
    return folder / "data", folder / "run", set((folder / "changed.txt").read_text().split())


def spoil(folder: Path) -> None:
    digits = open_source("digits", Data()).splits["all"]
    changed = []
    for i in range(len(digits)):
        flip = i % FLIPPED_EVERY == 7
        label = int(digits.labels[i] + (1 + i % 9) * flip) % 10
        name = f"{'train' if i // FLIPPED_EVERY % 2 else 'val'}/{label}/{i:04}.png"
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).write_bytes(digits.source(i))  # type: ignore[arg-type]
        changed += [name] * flip
    (folder / "changed.txt").write_text("\n".join(changed))
    api.train(
        folder / "data", out=folder / "run", model="convmixer_32_4_k3_p1", epochs=12, batch_size=32, test_fraction=0, lr=0.01, quiet=True,
        device="cpu", workers=0,
    )  # fmt: skip


def names_of_training_images(run: Path) -> set[str]:
    return {row["name"] for row in recorded_rows(load_artifact(run)) if row["split"] == "train"}


@pytest.mark.slow
def test_spoiled_labels_are_found_among_the_held_out_images(spoiled: tuple[Path, Path, set[str]], tmp_path: Path) -> None:
    data, run, changed = spoiled
    examined = doctor(data, run=run, output=tmp_path, near=False, device="cpu", workers=0)
    suspected = {f.image for f in examined.findings if f.kind == "probable label error"}
    trained = names_of_training_images(run)
    assert not suspected & trained  # not a word about what it has learned
    to_find = changed - trained
    assert len(to_find) >= 40
    recall = len(suspected & to_find) / len(to_find)
    precision = len(suspected & to_find) / len(suspected)
    assert recall >= 0.85 and precision >= 0.85, (recall, precision, len(to_find), sorted(suspected - changed))
    first = [f.image for f in examined.findings if f.kind == "probable label error"][: len(to_find) // 2]
    assert set(first) <= changed  # the surest come first


@pytest.mark.slow
def test_copies_of_training_images_are_not_judged(spoiled: tuple[Path, Path, set[str]], tmp_path: Path) -> None:
    data, run, _ = spoiled
    for name in sorted(names_of_training_images(run))[::10]:
        copy = tmp_path / "copies" / Path(name).parts[1] / f"{Path(name).stem}.webp"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / name, copy.with_suffix(".png"))
        Image.open(data / name).save(copy, lossless=True)
    with pytest.raises(DataError, match="leave the run out"):
        doctor(tmp_path / "copies", run=run, output=tmp_path / "found", device="cpu", workers=0)


def test_a_run_with_other_labels_is_an_error(tmp_path: Path) -> None:
    make_run(tmp_path / "run", labels=LABELS, splits={"train": write_folder(tmp_path / "own", {"ant": 2, "bee": 2, "cat": 2}, seed=50)})
    other = write_folder(tmp_path / "other", {"ant": 12, "wasp": 12})
    with pytest.raises(DataError, match="does not know its class wasp"):
        doctor(other, run=tmp_path / "run", output=tmp_path / "found", device="cpu", workers=0)
    with pytest.raises(RunError, match="not a model directory"):
        doctor(other, run=tmp_path / "nowhere", output=tmp_path / "found")
