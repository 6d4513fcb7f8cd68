"""Images one by one, in batches and through the loaders have the same answers."""

from pathlib import Path

import pytest
import torch

from convmix.artifacts.artifact import Artifact
from convmix.data.decode import BadImage
from convmix.data.loaders import Batch, eval_batches
from convmix.data.targets import PerImage
from convmix.inference.file_names import Files
from convmix.inference.predictor import Predictor
from convmix.results import Classes
from tests.tiny_run import make_run, write_image


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    return [str(write_image(tmp_path / f"{i}.png", i, size=(12 + i, 20 - i))) for i in range(5)]


def probabilities(predictor: Predictor, names: list[str], *, at_once: int) -> torch.Tensor:
    rows = []
    for i in range(0, len(names), at_once):
        for answer in predictor.answers([predictor.prepare(Path(name).read_bytes()) for name in names[i : i + at_once]]):
            assert isinstance(answer.result, Classes)
            rows.append(answer.result.probabilities)
    return torch.cat(rows)


def test_bytes_and_files_in_any_batch_have_the_same_answers(artifact: Artifact, names: list[str]) -> None:
    predictor = Predictor(artifact, images=5, batch_size=4, precision="fp32", optimize="never")
    whole = probabilities(predictor, names, at_once=5)
    assert torch.allclose(probabilities(predictor, names, at_once=1), whole, atol=1e-6)
    assert whole.unique(dim=0).shape[0] == 5, "the images must differ for this test to say anything"

    [first, second] = eval_batches(Files(tuple(names)), predictor.loads, batch_size=4, workers=0)
    read = {**predictor.answer_batch(first), **predictor.answer_batch(second)}
    assert torch.allclose(torch.cat([read[i].result.probabilities for i in range(5)]), whole, atol=1e-6)  # type: ignore[union-attr]


def test_what_cannot_be_read_or_is_not_finite_has_a_reason(artifact: Artifact, names: list[str]) -> None:
    predictor = Predictor(artifact, images=1, batch_size=4, precision="fp32", optimize="never")
    with pytest.raises(BadImage):
        predictor.prepare(b"no image")
    images = torch.zeros(2, *predictor.loads.shape)
    images[1] = torch.nan
    answers = predictor.answer_batch(Batch(images, PerImage((None, None)), torch.tensor([3, 7]), ((5, "broken"),)))
    assert sorted(answers) == [3, 5, 7]
    assert answers[3].error is None and answers[5].error == "broken" and "not finite" in str(answers[7].error)
    assert answers[5].result is answers[7].result is None


def test_the_threshold_travels_with_the_answer(artifact: Artifact, names: list[str]) -> None:
    predictor = Predictor(artifact, images=1, batch_size=4, precision="fp32", optimize="never")
    [answer] = predictor.answers([predictor.prepare(names[0])], threshold=1.0)
    assert isinstance(answer.result, Classes) and answer.result.threshold == 1.0 and not answer.result.sure.any()
