"""Images without labels: the teacher's answers to them are learned, every run shows the same ones, and none is a validation image."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import convmix
from convmix.config import Optim, Run
from convmix.errors import ConfigError, RunError
from convmix.training import loop
from convmix.training.teacher import Teacher
from convmix.training.unlabelled import open_unlabelled
from tests.made_once import MadeOnce
from tests.tiny_run import write_image
from tests.trained_runs import CLASSIFIER, classifier

Write = Callable[[], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven pictures, and one that is broken."""
    for i in range(7):
        write_image(tmp_path / "unlabelled" / f"{i}.png", 100 + i, size=(24, 24))
    (tmp_path / "unlabelled" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    return tmp_path / "unlabelled"


def settings(made_once: MadeOnce, photos: Path, folder: Path) -> dict[str, Any]:
    teacher = str(classifier(made_once, photos))
    return {**CLASSIFIER, "epochs": 2, "teacher": teacher, "unlabelled": str(folder), "unlabelled_share": 0.25, "save_every": 0}


def opened(folder: Path, kept_back: list[tuple[str, str, str, str]] | None = None, **optim: Any) -> Any:
    return open_unlabelled(Run(optim=Optim(unlabelled=str(folder), teacher="runs/teacher", **optim)), kept_back or [])


def test_every_image_comes_once_before_any_comes_again(folder: Path) -> None:
    some = opened(folder, batch_size=9, unlabelled_share=0.25)
    assert some.per_step == 3
    keys = [key for step in range(8) for key in some.keys(step)]  # 24 places for 8 files
    assert sorted(keys) == [(i, k) for i in range(8) for k in range(3)]
    assert [i for i, k in keys if k == 0] != [i for i, k in keys if k == 1]  # each pass in an order of its own
    assert "25% of what is shown" in some.sentence


def test_copies_of_validation_and_test_images_are_left_out_and_counted(folder: Path, photos: Path, made_once: MadeOnce) -> None:
    run = classifier(made_once, photos)
    with (run / "splits.csv").open() as file:
        rows = [(r["split"], r["name"], r["digest"], r["label"]) for r in csv.DictReader(file)]
    for split in ("train", "val", "test"):
        name = next(n for s, n, _, _ in rows if s == split)
        shutil.copy(photos / name, folder / f"copy_of_{split}.png")
    some = opened(folder, rows)
    assert some.copies == 2
    assert not {"copy_of_val.png", "copy_of_test.png"} & {Path(n).name for n in some.files.names}
    assert "copy_of_train.png" in {Path(n).name for n in some.files.names}
    assert "left out: 2 that are validation or test images" in some.sentence


@pytest.mark.slow
def test_the_teacher_answers_for_them_and_the_student_learns_it(
    photos: Path, made_once: MadeOnce, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step's loss is over 12 images with labels and 4 without, which are those of the folder."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    real = Teacher.loss

    def loss(self: Teacher, own: torch.Tensor, outputs: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        seen.append((outputs.detach(), images))
        return real(self, own, outputs, images)

    monkeypatch.setattr(Teacher, "loss", loss)
    for file in folder.glob("?.png"):
        Image.new("RGB", (24, 24), (255, 0, 255)).save(file)  # as no photo is
    out = tmp_path / "run"
    convmix.train(photos, out=out, quiet=True, device="cpu", **settings(made_once, photos, folder))
    broken = 0
    for outputs, images in seen:
        assert len(outputs) == len(images)
        flat = images[12:].flatten(2)
        assert (flat.amax(2) == flat.amin(2)).all()  # one colour
        assert (images[:12].flatten(2).std(2) > 0).any()
        broken += 16 - len(images)
    some = opened(folder, batch_size=12, unlabelled_share=0.25)
    assert broken == sum(some.files.names[i].endswith("broken.png") for step in range(len(seen)) for i, _ in some.keys(step)) > 0
    with (out / "bad_images.csv").open() as file:
        assert [(row["split"], Path(row["name"]).name) for row in csv.DictReader(file)] == [("unlabelled", "broken.png")]


@pytest.mark.slow
def test_a_training_with_them_resumes_bit_for_bit_and_on_the_same_images_only(
    photos: Path, made_once: MadeOnce, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings(made_once, photos, folder)
    convmix.train(photos, out=tmp_path / "whole", quiet=True, device="cpu", **asked)

    class Killed(BaseException):
        pass

    steps = iter(range(5))
    real = loop.train_step

    def step(t: loop.Training, batch: loop.Batch) -> None:
        if next(steps, None) is None:
            raise Killed
        real(t, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        with pytest.raises(Killed):
            convmix.train(photos, out=tmp_path / "parts", quiet=True, device="cpu", **asked)
    shutil.copytree(tmp_path / "parts", tmp_path / "other")
    convmix.train(photos, out=tmp_path / "parts", quiet=True, device="cpu", resume=True)
    a, b = (load_file(tmp_path / name / "state/last.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    (folder / "0.png").unlink()
    with pytest.raises(RunError, match="has changed since"):
        convmix.train(photos, out=tmp_path / "other", quiet=True, device="cpu", resume=True)


def test_what_cannot_be_is_said(folder: Path) -> None:
    with pytest.raises(ConfigError, match="name one with --teacher"):
        open_unlabelled(Run(optim=Optim(unlabelled=str(folder))), [])
    with pytest.raises(ConfigError, match="both ends excluded"):
        opened(folder, unlabelled_share=0.0)
