"""What lies far from every training image is unlike them, and the nearest of them are the nearest."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from convmix.errors import RunError
from convmix.models.neighbours import FALSE_ALARMS, FILE, K, Neighbours, digest_of_weights, make_neighbours, read_neighbours


def directions(n: int, *, towards: int, d: int = 64, seed: int = 0) -> torch.Tensor:
    """n points around three of the axes from `towards` on, at any distance from the origin."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.eye(d)[towards : towards + 3][torch.arange(n) % 3]
    return (centres + 0.1 * torch.randn(n, d, generator=g)) * (1 + 9 * torch.rand(n, 1, generator=g))


@pytest.fixture
def known() -> Neighbours:
    names = [f"{i}.png" for i in range(90)]
    return make_neighbours(directions(90, towards=0), torch.arange(90) % 3, names, directions(300, towards=0, seed=1), weights="w")


def test_other_directions_are_told_from_those_of_the_training_images(known: Neighbours) -> None:
    like, unlike = known.distances(directions(200, towards=0, seed=2)), known.distances(directions(200, towards=9, seed=3))
    truth = [0] * 200 + [1] * 200
    assert roc_auc_score(truth, torch.cat([like, unlike]).numpy()) > 0.99
    assert (unlike > known.threshold).float().mean() > 0.99
    assert known.threshold_from == "validation"
    assert (like > known.threshold).float().mean() == pytest.approx(FALSE_ALARMS, abs=0.03)


def test_the_score_is_the_distance_of_the_kth_nearest(known: Neighbours) -> None:
    some = directions(7, towards=0, seed=4)
    cosines = torch.nn.functional.cosine_similarity(some[:, None], known.features[None], dim=2).sort(1, descending=True).values
    torch.testing.assert_close(known.distances(some), 1 - cosines[:, K - 1], rtol=0, atol=1e-3)  # kept in half precision


def test_the_nearest_are_named_the_nearest_first(known: Neighbours) -> None:
    [[first, second]] = known.nearest(known.features[[17]] * 3, 2)
    assert first[0] == 17
    assert first[1] == pytest.approx(1.0, abs=1e-3)
    assert second[1] < first[1]
    assert second[0] % 3 == 17 % 3
    assert len(known.nearest(known.features[:2], 1000)[0]) == 90


def test_few_validation_images_leave_the_threshold_to_the_training_images() -> None:
    train = directions(200, towards=0)
    found = make_neighbours(train, torch.zeros(200, dtype=torch.int64), ["x"] * 200, directions(5, towards=0, seed=1), weights="w")
    assert found.threshold_from == "training"
    assert (found.distances(train, but_itself=True) > found.threshold).float().mean() == pytest.approx(FALSE_ALARMS, abs=0.01)
    fresh = directions(500, towards=0, seed=8)
    assert (found.distances(fresh) > found.threshold).float().mean() < 0.1  # each image does not count as its own neighbour


def test_they_are_read_as_written_and_belong_to_their_weights(tmp_path: Path, known: Neighbours) -> None:
    assert read_neighbours(tmp_path) is None
    save_file({"w": torch.zeros(3)}, tmp_path / "model.safetensors")
    mine = Neighbours(known.features, known.labels, known.names, 0.25, "validation", digest_of_weights(tmp_path))
    tensors, header = mine.tensors()
    save_file(tensors, tmp_path / FILE, header)
    again = read_neighbours(tmp_path)
    assert again is not None
    assert torch.equal(again.features, known.features)
    assert (again.names, again.threshold) == (known.names, 0.25)
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    assert read_neighbours(tmp_path) is None
    (tmp_path / FILE).write_bytes(b"broken")
    with pytest.raises(RunError, match=r"neighbours\.safetensors cannot be read"):
        read_neighbours(tmp_path)
