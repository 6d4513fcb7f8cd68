"""A trained run teaches another: the loss is the textbook's, the teacher sees its own kind of image, and resuming repeats it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import convmix
from convmix.config import Optim
from convmix.data.preprocessing import Preprocess
from convmix.errors import ConfigError, RunError
from convmix.tasks.classify import Classify
from convmix.training import loop
from convmix.training.teacher import Teacher, open_teacher
from tests.made_once import MadeOnce
from tests.tiny_run import LABELS, make_run
from tests.trained_runs import CLASSIFIER, classifier, dense_run

CPU = torch.device("cpu")


def preprocess(size: tuple[int, int] = (8, 8), mean: float = 0.2, std: float = 0.3) -> Preprocess:
    return Preprocess(size=size, fit="crop", interpolation="bicubic", crop_pct=1.0, mean=(mean,) * 3, std=(std,) * 3)


def teacher(run: Path, labels: tuple[str, ...] = LABELS, size: tuple[int, int] = (8, 8), **optim: Any) -> Teacher:
    made = open_teacher(Optim(teacher=str(run), **optim), preprocess(size), Classify(labels), device=CPU, precision="fp32")
    assert made is not None
    return made


def test_the_teacher_sees_the_image_as_it_was_trained_and_answers_in_our_order(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    pixels = torch.rand(4, 3, 8, 8)
    theirs = run.model((pixels - 0.5) / 0.25).detach()
    order = (LABELS[2], LABELS[0], LABELS[1])
    ours = teacher(tmp_path / "run", order).logits((pixels - 0.2) / 0.3)
    torch.testing.assert_close(ours, theirs[:, [2, 0, 1]], rtol=1e-4, atol=1e-5)
    flat = torch.full((1, 3, 16, 16), 0.4)
    resized = teacher(tmp_path / "run", size=(16, 16)).logits((flat - 0.2) / 0.3)
    torch.testing.assert_close(resized, run.model((flat[..., :8, :8] - 0.5) / 0.25).detach(), rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_textbooks(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    one = teacher(tmp_path / "run", teacher_share=0.7, teacher_temperature=3.0)
    images, outputs, own = torch.randn(5, 3, 8, 8), torch.randn(5, 3, requires_grad=True), torch.tensor(2.0)
    wanted = (one.logits(images) / 3).softmax(1)
    cross = -(wanted * (outputs / 3).log_softmax(1)).sum(1).mean()
    entropy = -(wanted * wanted.log()).sum(1).mean()
    loss = one.loss(own, outputs, images)
    torch.testing.assert_close(loss, 0.3 * own + 0.7 * 9 * (cross - entropy))
    loss.backward()
    assert outputs.grad is not None
    assert one.loss(torch.tensor(0.0), one.logits(images), images).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_a_student_learns_from_a_teacher_what_its_labels_do_not_say(photos: Path, made_once: MadeOnce, tmp_path: Path) -> None:
    """With the teacher's answers alone the student agrees with it, without ever being told a label."""
    settings = {**CLASSIFIER, "epochs": 6, "teacher": str(classifier(made_once, photos)), "teacher_share": 1.0}
    run = convmix.train(photos, out=tmp_path / "run", quiet=True, **settings)
    assert run.metrics["val"]["accuracy"] >= 0.8


@pytest.mark.slow
def test_a_taught_training_resumes_bit_for_bit_and_with_the_same_teacher_only(
    photos: Path, made_once: MadeOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    master = Path(shutil.copytree(classifier(made_once, photos), tmp_path / "teacher"))
    settings = {**CLASSIFIER, "epochs": 2, "teacher": str(master), "save_every": 0, "mixup": 0.2}
    convmix.train(photos, out=tmp_path / "whole", quiet=True, device="cpu", **settings)

    class Killed(BaseException):
        pass

    steps = iter(range(5))

    def step(t: loop.Training, batch: loop.Batch) -> None:
        if next(steps, None) is None:
            raise Killed
        real(t, batch)

    real = loop.train_step
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        with pytest.raises(Killed):
            convmix.train(photos, out=tmp_path / "parts", quiet=True, device="cpu", **settings)
    shutil.copytree(tmp_path / "parts", tmp_path / "other")
    convmix.train(photos, out=tmp_path / "parts", quiet=True, device="cpu", resume=True)
    a, b = (load_file(tmp_path / name / "state/last.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    state = load_file(master / "model.safetensors")
    save_file({k: v + 1 if k == "head.bias" else v for k, v in state.items()}, master / "model.safetensors")
    with pytest.raises(RunError, match="no longer the one"):
        convmix.train(photos, out=tmp_path / "other", quiet=True, device="cpu", resume=True)


def test_who_cannot_teach_is_said(tmp_path: Path, made_once: MadeOnce) -> None:
    make_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="does not know dog; it knows ant, bee, cat"):
        teacher(tmp_path / "run", ("ant", "dog"))
    with pytest.raises(ConfigError, match="runs/resnet18 is neither a model directory nor the name of a model"):
        teacher(Path("runs/resnet18"))
    with pytest.raises(ConfigError, match="not a run of a classifier"):
        teacher(dense_run(made_once, "detect"))
