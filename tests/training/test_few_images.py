"""Fewer training images than a batch train, and a line says what an epoch is then."""

from pathlib import Path

import pytest

from tests.command_line import Command
from tests.conftest import make_photos
from tests.training.test_extension import SETTINGS


@pytest.mark.slow
def test_fewer_images_than_a_batch_are_said_with_what_to_do(tmp_path: Path, command: Command) -> None:
    photos = make_photos(tmp_path / "photos", classes=2, per_class=4)
    small = {**SETTINGS, "batch_size": 64, "epochs": 2, "val_fraction": 0, "test_fraction": 0}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in small.items()]
    done = command("train", photos, "--out", tmp_path / "run", "--device", "cpu", *options)
    assert done.code == 0, done.err
    assert "8 training images are less than a batch of 64: an epoch is one step of all of them; --batch-size 2 makes it 4" in done.out
    enough = [*(o for o in options if "batch-size" not in o), "--batch-size=4"]
    assert "less than a batch" not in command("train", photos, "--out", tmp_path / "other", "--device", "cpu", *enough).out
