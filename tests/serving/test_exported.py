"""Exported models behind the server: the run's answers, the engine named, explanations refused, in batches as the model takes them."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from convmix.artifacts.artifact import load_artifact, save_artifact
from convmix.config import Dense
from convmix.data.preprocessing import Preprocess
from convmix.exporting.export import export
from convmix.inference.prediction import predict
from convmix.inference.predictor import Predictor
from convmix.serving.limits import RequestLimits
from convmix.serving.schema import ModelAnswer, PredictAnswer
from convmix.tasks import create_task
from tests.dense_scenes import CLASSES
from tests.patience import PATIENCE_S
from tests.serving.inside import inside
from tests.serving.live import Client, live
from tests.serving.pictures import picture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),  # the exporters' own
]
TOLERANCE = {"resize": 0.04, "normalise": 1e-3}  # of a probability: what the export itself may differ by


@pytest.fixture(scope="module", params=["resize", "normalise"])
def exported(request: pytest.FixtureRequest, run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """How much is baked in, and the folder: one image at a time of any size, and any number of the model's own size."""
    bake = str(request.param)
    size = "auto" if bake == "resize" else "fixed"
    return bake, export(run, "onnx", bake=bake, size=size, output=tmp_path_factory.mktemp("exported") / "onnx").path


@pytest.fixture(scope="module")
def exported_server(exported: tuple[str, Path]) -> Iterator[Client]:
    """The folder as users serve it, in processes, for one of the two."""
    if exported[0] == "resize":
        with live(exported[1], "--batch-size", "4", "--batch-wait-ms", "50") as started:
            yield started
    else:
        with inside(exported[1], RequestLimits(batch_size=4, batch_wait_ms=50, time_s=PATIENCE_S)) as here:
            yield here


def test_answers_are_those_of_the_run(exported: tuple[str, Path], exported_server: Client, run: Path, tmp_path: Path) -> None:
    """More images than a batch has, and of several sizes."""
    images = [picture(i, size=(10 + 3 * i, 24)) for i in range(6)]
    files = [tmp_path / f"{i}.png" for i in range(6)]
    for file, data in zip(files, images, strict=True):
        file.write_bytes(data)
    wanted = [row.to_dict() for row in predict(run, [str(file) for file in files], top=3, precision="fp32", optimize="never")]
    assert np.ptp([row["probability"] for row in wanted]) > 2 * TOLERANCE[exported[0]]  # else all answers would do
    reply = exported_server.predict(*images, top=3)
    assert reply.status == 200, reply.body
    assert PredictAnswer.model_validate_json(reply.body).model.task == "classify"
    for row, other in zip(reply.json["predictions"], wanted, strict=True):
        shares, others = ({one["label"]: one["probability"] for one in (r, *r["alternatives"])} for r in (row, other))
        assert len(shares) == 3 and shares == pytest.approx(others, abs=TOLERANCE[exported[0]])
    again = exported_server.predict_json(images[3]).json["predictions"][0]
    assert again["probability"] == pytest.approx(reply.json["predictions"][3]["probability"], abs=1e-5)  # whatever stands beside it


def test_batches_are_of_what_the_model_takes(exported: tuple[str, Path], exported_server: Client) -> None:
    names = ("convmix_batch_images_sum", "convmix_batch_images_count")
    before = [exported_server.metric(name) for name in names]
    assert exported_server.predict(*(picture(i) for i in range(8))).status == 200
    images, batches = (exported_server.metric(name) - old for name, old in zip(names, before, strict=True))
    assert images == 8
    assert batches == 8 if exported[0] == "resize" else batches < 8


def test_the_model_is_described_with_its_engine(exported: tuple[str, Path], exported_server: Client, run: Path) -> None:
    answer = exported_server.get("/v1/model")
    assert answer.status == 200
    said = ModelAnswer.model_validate_json(answer.body)
    assert (said.engine, said.name, said.task) == ("onnx", exported[1].name, "classify")
    assert said.labels == list(load_artifact(run).labels) and said.explanations == []
    assert exported_server.get("/ready").status == 200 and exported_server.get("/health").status == 200


def test_explanations_and_broken_images_are_refused(exported_server: Client) -> None:
    for reply in (
        exported_server.form("/v1/explain", "image", (picture(0),), {}),
        exported_server.form("/v1/explain", "image", (b"no",), {}),
    ):
        assert (reply.status, reply.code) == (422, "cannot_explain"), reply.body
        assert "exported" in reply.json["error"]["message"]
    assert (exported_server.predict(b"no image").status, exported_server.predict(b"no image").code) == (422, "unreadable_image")
    assert exported_server.predict(picture(0)).status == 200
    assert exported_server.metric("convmix_worker_deaths_total") == 0


def test_an_exported_detector_is_served(tmp_path: Path) -> None:
    """With random weights that find objects in noise; normalised inside, so that its pixels are those of the run."""
    torch.manual_seed(0)
    task = create_task("detect", CLASSES)
    model = task.build("convmixer_8_1_k3_p4", in_chans=3, dense=Dense(pyramid_channels=16)).eval()
    torch.nn.init.normal_(model.head.classification_head.cls_logits.weight, std=4.0)
    prepare = Preprocess(size=(64, 64), fit="letterbox", interpolation="bilinear", crop_pct=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    save_artifact(tmp_path / "run", model=model, task=task, preprocess=prepare, info={"run": {"dense": {"pyramid_channels": 16}}})
    folder = export(tmp_path / "run", "onnx", bake="normalise", size="fixed").path
    images = [picture(i, size=size) for i, size in enumerate([(64, 64), (48, 80), (100, 30)])]
    predictor = Predictor(load_artifact(tmp_path / "run"), images=0, batch_size=3, device="cpu", precision="fp32", optimize="never")
    wanted = [answer.result for answer in predictor.answers([predictor.prepare(data) for data in images], threshold=0.1)]
    with inside(folder) as server:
        reply = server.predict(*images, threshold=0.1)
        facts = server.get("/v1/model").json
        explained = server.form("/v1/explain", "image", (images[0],), {})
    assert reply.status == 200, reply.body
    assert (facts["engine"], facts["task"]) == ("onnx", "detect")
    assert (explained.status, explained.code) == (422, "cannot_explain")
    for row, found in zip(reply.json["predictions"], wanted, strict=True):
        assert [one["label"] for one in row["objects"]] == [found.labels[c] for c in found.columns]  # type: ignore[union-attr]
        assert len(row["objects"]) > 3
        np.testing.assert_allclose([one["score"] for one in row["objects"]], found.scores, atol=1e-3)  # type: ignore[union-attr]
        np.testing.assert_allclose([one["box"] for one in row["objects"]], found.boxes, atol=0.05)  # type: ignore[union-attr]
    assert json.loads((folder / "model.json").read_text())["bake"] == "normalise"
