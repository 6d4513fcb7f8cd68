"""What every route takes and gives, for each kind of model."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from convmix.artifacts.artifact import save_artifact, save_calibration
from convmix.config import Dense
from convmix.data.preprocessing import Preprocess
from convmix.explanation.methods import NAMES
from convmix.inference.prediction import predict
from convmix.metrics.calibration import Calibration
from convmix.serving.schema import ErrorAnswer, ExplainAnswer, ModelAnswer, PredictAnswer
from convmix.tasks import create_task
from tests.dense_scenes import CLASSES, scene
from tests.serving.inside import inside
from tests.serving.live import Live
from tests.serving.pictures import encoded, picture
from tests.tiny_run import make_run


def test_answers_are_those_of_predict(server: Live, run: Path, tmp_path: Path) -> None:
    images = [picture(i, size=(10 + i, 20)) for i in range(4)]
    for i, data in enumerate(images):
        (tmp_path / f"{i}.png").write_bytes(data)
    middle = float(np.median([row.to_dict()["probability"] for row in predict(run, [str(tmp_path)])]))
    expected = [row.to_dict() for row in predict(run, [str(tmp_path)], top=3, threshold=middle)]
    assert {row["sure"] for row in expected} == {True, False}
    for reply in (server.predict(*images, top=3, threshold=middle), server.predict_json(*images, top=3, threshold=middle)):
        assert reply.status == 200
        assert PredictAnswer.model_validate_json(reply.body).model.task == "classify"
        rows = reply.json["predictions"]
        assert [(row["width"], row["height"]) for row in rows] == [(20, 10 + i) for i in range(4)]
        for row, wanted in zip(rows, expected, strict=True):
            assert (row["label"], row["sure"]) == (wanted["label"], wanted["sure"])
            assert row["probability"] == pytest.approx(wanted["probability"], abs=1e-5)
            for mine, theirs in zip(row["alternatives"], wanted["alternatives"], strict=True):
                assert mine["label"] == theirs["label"] and mine["probability"] == pytest.approx(theirs["probability"], abs=1e-5)


def test_names_come_back(server: Live) -> None:
    data = base64.b64encode(picture(0)).decode()
    reply = server.post_json("/v1/predict", {"images": [{"data": data, "name": "Katze \u732b.png"}, {"data": data}]})
    assert [row["name"] for row in reply.json["predictions"]] == ["Katze \u732b.png", "image 2"]


def test_calibration_and_threshold_are_honoured(tmp_path: Path) -> None:
    path = make_run(tmp_path / "calibrated").path
    save_calibration(path, calibration := Calibration(3.0, 0.7, "val", 50, 0.2, 0.1, 0.9, 0.8))
    images = [picture(i) for i in range(3)]
    for i, data in enumerate(images):
        (tmp_path / f"{i}.png").write_bytes(data)
    expected = [row.to_dict() for row in predict(path, [str(tmp_path / f"{i}.png") for i in range(3)])]
    with inside(path) as server:
        rows = server.predict(*images).json["predictions"]
        facts = server.get("/v1/model").json
    assert [row["sure"] for row in rows] == [row["sure"] for row in expected]
    assert [row["probability"] for row in rows] == pytest.approx([row["probability"] for row in expected], abs=1e-5)
    assert facts["threshold"] == calibration.threshold and facts["calibration"]["temperature"] == calibration.temperature


def test_the_model_is_described_without_paths(server: Live, run: Path) -> None:
    reply = server.get("/v1/model")
    facts = ModelAnswer.model_validate_json(reply.body)
    assert (facts.name, facts.task, facts.labels) == ("tiny", "classify", ["ant", "bee", "cat"])
    assert facts.input.model_dump() == {"height": 8, "width": 8, "channels": 3}
    assert facts.metrics["test"]["accuracy_interval"] == [0.4902, 0.9433]
    assert facts.limits.images == 4 and facts.limits.pixels == 50_000
    assert str(run.parent) not in reply.body.decode()


@pytest.mark.slow
def test_explanations_show_the_label_that_is_asked_for(server: Live) -> None:
    data = picture(5)
    reply = server.form("/v1/explain", "image", (data,), {"label": "bee", "method": "saliency"})
    assert reply.status == 200
    answer = ExplainAnswer.model_validate_json(reply.body)
    assert (answer.label, answer.method) == ("bee", "saliency")
    shown = PIL.Image.open(io.BytesIO(base64.b64decode(answer.overlay)))
    assert shown.size == (8, 8)
    best = server.post_json("/v1/explain", {"image": {"data": base64.b64encode(data).decode()}}).json
    row = server.predict(data).json["predictions"][0]
    assert (best["label"], best["method"]) == (row["label"], "gradcam")
    assert best["overlay"] != reply.json["overlay"]


@pytest.mark.parametrize(("path", "kind"), [("/health", "application/json"), ("/ready", "application/json"), ("/metrics", "text/plain")])
def test_state_is_told(server: Live, path: str, kind: str) -> None:
    reply = server.get(path)
    assert reply.status == 200 and reply.headers["content-type"].startswith(kind)


def test_metrics_count_what_happened(server: Live) -> None:
    names = ("convmix_request_seconds_count", "convmix_batch_images_sum", "convmix_errors_total")
    before = [server.metric(name) for name in names]
    server.predict(picture(0), picture(1))
    server.predict(b"no image")
    requests, images, errors = (server.metric(name) - old for name, old in zip(names, before, strict=True))
    assert (images, errors) == (3, 1)  # the third image was found to be none by the worker
    assert requests == 2 + len(names)  # and those of this test that had been answered when it was read


def test_every_answer_forbids_what_the_page_does_not_need(server: Live) -> None:
    for path in ("/health", "/v1/model", "/nowhere"):
        headers = server.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "http:" not in headers["content-security-policy"] and "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_the_document_names_every_route_and_every_error(server: Live) -> None:
    document = server.get("/openapi.json").json
    assert set(document["paths"]) == {"/v1/predict", "/v1/explain", "/v1/model", "/health", "/ready", "/metrics", "/openapi.json", "/"}
    form = document["components"]["schemas"]["ExplainRequest"]["properties"]["method"]
    (posted,) = [
        c["schema"]["properties"]["method"]
        for kind, c in document["paths"]["/v1/explain"]["post"]["requestBody"]["content"].items()
        if "form-data" in kind
    ]
    assert form["enum"] == posted["enum"] == list(NAMES)
    predict_route = document["paths"]["/v1/predict"]["post"]
    assert set(predict_route["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert {"400", "408", "413", "415", "422", "429", "503", "504"} <= set(predict_route["responses"])
    assert document["components"]["schemas"]["PredictRequest"]["properties"]["images"]["maxItems"] == 4
    assert ErrorAnswer.__name__ in document["components"]["schemas"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detect", "instances", "segment"])
def test_dense_answers_are_those_of_predict(task: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = create_task(task, CLASSES)
    model = made.build("convmixer_8_1_k3_p4", in_chans=3, dense=Dense(pyramid_channels=16)).eval()
    prepare = Preprocess(size=(64, 64), fit="letterbox", interpolation="bilinear", crop_pct=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    info = {"run": {"dense": {"pyramid_channels": 16}}}
    save_artifact(tmp_path / "run", model=model, task=made, preprocess=prepare, info=info)
    data = encoded(PIL.Image.fromarray(scene(3)[0][:48]))  # wider than high
    (tmp_path / "a.png").write_bytes(data)
    [expected] = predict(tmp_path / "run", [str(tmp_path / "a.png")], threshold=0.0)
    with inside(tmp_path / "run") as server:
        reply = server.predict(data, threshold=0.0)
        explained = server.form("/v1/explain", "image", (data,), {})
    assert reply.status == 200, reply.body
    PredictAnswer.model_validate_json(reply.body)
    [row] = reply.json["predictions"]
    wanted = json.loads(json.dumps(replace(expected, name="0.png").to_dict()))  # type: ignore[type-var]
    assert (row["width"], row["height"]) == (64, 48)
    for name in wanted:
        if name != "certainty":
            assert row[name] == wanted[name], name
    if "map" in row:
        drawn = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(row["map"]))))
        assert np.array_equal(drawn, expected.result.classes.numpy())  # type: ignore[union-attr]
    assert explained.status == 200 and explained.json["label"] in CLASSES
