"""The server says how like the training images an image is, and names the nearest; of models that do not know theirs nothing changes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from convmix.inference.prediction import predict
from convmix.serving.schema import MOST_NEAREST, ModelAnswer, PredictAnswer
from tests.made_once import MadeOnce
from tests.serving.inside import inside
from tests.serving.live import Client
from tests.serving.pictures import picture
from tests.tiny_run import make_run
from tests.trained_runs import probe


@pytest.fixture(scope="module")
def knowing(made_once: MadeOnce, photos: Path) -> Iterator[Client]:
    with inside(probe(made_once, photos)) as client:
        yield client


def test_a_row_is_that_of_predict(knowing: Client, made_once: MadeOnce, photos: Path) -> None:
    file = photos / "class_1" / "004.png"
    [wanted] = [row.to_dict() for row in predict(probe(made_once, photos), [file], nearest=2)]
    for reply in (knowing.predict(file.read_bytes(), nearest=2), knowing.predict_json(file.read_bytes(), nearest=2)):
        assert reply.status == 200, reply.body
        PredictAnswer.model_validate_json(reply.body)
        [row] = reply.json["predictions"]
        assert row["unlike"] is False
        assert row["distance"] == pytest.approx(wanted["distance"], abs=1e-3)
        assert [(n["name"], n["label"]) for n in row["nearest"]] == [(n["name"], n["label"]) for n in wanted["nearest"]]
    assert "nearest" not in knowing.predict(file.read_bytes()).json["predictions"][0]  # who does not ask is told no names


def test_noise_is_unlike(knowing: Client) -> None:
    [row] = knowing.predict(picture(0)).json["predictions"]
    assert row["unlike"] is True


def test_the_model_says_that_it_knows_them(knowing: Client) -> None:
    said = ModelAnswer.model_validate_json(knowing.get("/v1/model").body).training_images
    assert said is not None
    assert said.named and said.count > 10 and 0 < said.threshold < 2


def test_more_names_than_are_given_are_refused(knowing: Client) -> None:
    reply = knowing.predict(picture(0), nearest=MOST_NEAREST + 1)
    assert (reply.status, reply.code) == (400, "invalid_field")


def test_without_them_rows_are_as_they_were(tmp_path: Path) -> None:
    with inside(make_run(tmp_path / "run").path) as client:
        [row] = client.predict(picture(0), nearest=3).json["predictions"]
        assert client.get("/v1/model").json["training_images"] is None
    assert set(row) == {"name", "label", "probability", "sure", "alternatives", "error", "width", "height"}
