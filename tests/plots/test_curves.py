"""Pictures: the right size, drawn from what they are given, whatever that is."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from convmix.plots.curves import curves_picture, predictions_picture

ORANGE = (0xD5, 0x5E, 0x00)  # marks what is wrong


def row(epoch: int, **values: object) -> dict[str, object]:
    numbers = {"lr": 0.01, "train_loss": 2 / epoch, "val_loss": 2.5 / epoch, "val_accuracy": 1 - 1 / (epoch + 1)}
    return {"epoch": epoch, "step": 10 * epoch, "train_accuracy": 0.5, "images_per_s": 100.0, "elapsed_s": 1.0, **numbers, **values}


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def amount(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(-1).sum())


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 2, 30, 300])
def test_curves_are_900_pixels_wide(epochs: int) -> None:
    assert pixels(curves_picture([row(e) for e in range(1, epochs + 1)])).shape == (560, 900, 3)


@pytest.mark.slow
def test_curves_follow_their_numbers() -> None:
    history = [row(e) for e in range(1, 6)]
    assert curves_picture(history) == curves_picture(history)
    assert curves_picture(history) != curves_picture([*history[:-1], row(5, val_accuracy=0.1)])


def test_values_that_are_missing_or_not_finite_leave_a_gap() -> None:
    rows = [row(1), row(2, val_loss=None, val_accuracy=None), row(3, train_loss=math.nan, val_loss=math.inf), row(4)]
    assert pixels(curves_picture(rows)).shape[1] == 900
    assert pixels(curves_picture([row(1, val_loss=None, val_accuracy=None)])).shape[1] == 900


def test_no_epoch_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="empty"):
        curves_picture([])


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3, 8, 32])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (4, 20, 40), (6, 160, 120)])
def test_images_of_every_kind_are_drawn(n: int, shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
    picture = pixels(predictions_picture(images, [0] * n, [0] * n, [0.5] * n, ["a", "b"], title="x"))
    assert picture.shape[1] == 900
    assert amount(picture, ORANGE) == 0 or shape[0] > 1  # noise may hold the colour by chance


def test_wrong_predictions_alone_are_marked() -> None:
    images = np.full((4, 1, 8, 8), 128, np.uint8)
    right, one, two = (
        pixels(predictions_picture(images, [0, 1, 2, 0], p, [0.9] * 4, "abc", title="")) for p in ([0, 1, 2, 0], [0, 1, 2, 1], [0, 1, 0, 1])
    )
    assert amount(right, ORANGE) == 0
    assert 0 < amount(one, ORANGE) < amount(two, ORANGE)


def test_tiny_images_keep_their_pixels_sharp() -> None:
    images = np.zeros((1, 1, 2, 2), np.uint8)
    images[0, 0, 0, 0] = 255
    picture = pixels(predictions_picture(images, None, [0], [1.0], ["a"], title=""))
    middle = picture[60:300, 320:580]
    assert ((middle == 0).all(-1) | (middle == 255).all(-1)).mean() > 0.97


def test_tensors_are_taken_as_training_has_them() -> None:
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    truth, predicted, probabilities = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), torch.tensor([0.5, 0.6, 0.7])
    drawn = predictions_picture(images, truth, predicted, probabilities, ("a", "b"), title="t")
    assert drawn == predictions_picture(images.numpy(), [0, 1, 1], [0, 1, 0], probabilities.tolist(), ("a", "b"), title="t")


def test_labels_of_every_script_and_length_are_drawn() -> None:
    labels = ["$x_1$ \\frac", "日本語", "a" * 300, "two\nlines", ""]
    images = np.zeros((5, 3, 8, 8), np.uint8)
    assert pixels(predictions_picture(images, [1, 2, 3, 4, 0], range(5), [0.5] * 5, labels, title="$" * 300)).shape[1] == 900


def test_shapes_that_do_not_fit_are_refused() -> None:
    images = np.zeros((2, 3, 8, 8), np.uint8)
    with pytest.raises(ValueError, match="2 images with 1 predictions"):
        predictions_picture(images, None, [0], [0.5, 0.5], ["a"], title="")
    with pytest.raises(ValueError, match=r"expected uint8 N,C,H,W"):
        predictions_picture(images.astype(np.float32), None, [0, 0], [0.5, 0.5], ["a"], title="")
