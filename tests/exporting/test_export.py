"""An exported model is the same model, with everything inside; what is not the same is not written."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting_runs import CALIBRATION, COMPILED, run_with_data
from PIL import Image

import convmix
from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.artifacts.runtime.exported import read_description, read_exported
from convmix.artifacts.runtime.sessions import PACKAGE
from convmix.errors import ConfigError, DataError, RunError
from convmix.evaluation.classification_result import Evaluation
from convmix.exporting import export as module
from convmix.exporting import torch_program
from convmix.exporting.export import export
from convmix.exporting.timing import race
from convmix.exporting.verification import VerificationError
from convmix.inference.prediction import Prediction, predict
from convmix.inference.predictor import Predictor
from convmix.speed import backends
from tests.blank_pictures import pictures, save_blank
from tests.made_once import MadeOnce

Exports = Callable[..., Path]


def files_of(run: Artifact) -> list[str]:
    return sorted(str(file) for file in Path(run.info["data"]["spec"], "val").rglob("*.png"))


def assert_same(found: list[Prediction], expected: list[Prediction], tolerance: float) -> None:
    assert [p.label for p in found] == [p.label for p in expected]
    assert [p.probability for p in found] == pytest.approx([p.probability for p in expected], abs=tolerance)


@pytest.fixture(scope="module")
def expected(run: Artifact) -> list[Prediction]:
    """The run's own answers."""
    return predict(run, files_of(run), precision="fp32", optimize="never")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "bake", "size"),
    [
        ("onnx", "none", "auto"),
        ("onnx", "normalise", "fixed"),
        ("openvino", "resize", "auto"),
        ("openvino", "normalise", "dynamic"),
        ("torch", "none", "fixed"),
        ("torch", "resize", "auto"),
        ("torch", "normalise", "dynamic"),
    ],
)
def test_every_format_answers_as_the_run(
    format: str, bake: str, size: str, run: Artifact, exported: Exports, expected: list[Prediction]
) -> None:
    path = exported(format, bake=bake, size=size)
    opened, (description, _) = load_artifact(path), read_description(path)
    assert (opened.engine, opened.task, opened.labels, opened.calibration) == (format, "classify", run.labels, run.calibration)
    assert description.dynamic == (("batch",) if size == "fixed" else ("batch", "height", "width"))
    assert description.verification is not None
    sizes = {(check["size"], check["batch"]) for check in description.verification["checks"]}
    assert len({batch for _, batch in sizes}) == 2
    assert len({size for size, _ in sizes}) == (1 if size == "fixed" else 3 if bake == "resize" else 2)
    found = predict(opened, files_of(run))
    assert_same(found, expected, 0.02 if bake == "resize" else 1e-5)
    assert {p.sure for p in found} == {True, False}
    assert [p.sure for p in found] == [p.probability >= CALIBRATION.threshold for p in found]


@pytest.mark.slow
def test_a_graph_that_resizes_takes_batches_of_any_one_size(onnx: Path, run: Artifact) -> None:
    exported = read_exported(onnx)
    images = np.stack([np.asarray(Image.open(file).convert("RGB").resize((41, 30))) for file in files_of(run)[:5]])
    outputs = exported.network._session(images)
    with torch.inference_mode():
        expected = run.model(torch.stack([run.preprocess(Image.fromarray(image)) for image in images]))
    np.testing.assert_allclose(outputs["logits"], expected, atol=0.05)
    np.testing.assert_allclose(outputs["probabilities"], (expected / CALIBRATION.temperature).softmax(1), atol=0.01)
    one = exported.network._session(images[3:4])
    np.testing.assert_allclose(one["logits"], outputs["logits"][3:4], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "precision", "bake"),
    [
        ("onnx", "int8", "resize"),
        ("openvino", "int8", "resize"),
        ("openvino", "bf16", "resize"),
        ("openvino", "fp16", "resize"),
        ("onnx", "fp16", "resize"),
        ("torch", "bf16", "none"),
        ("torch", "fp16", "resize"),
    ],
)
def test_lower_precisions_answer_alike(
    format: str, precision: str, bake: str, run: Artifact, exported: Exports, expected: list[Prediction]
) -> None:
    path = exported(format, precision, bake)
    found = predict(path, files_of(run))
    assert np.mean([f.label == e.label for f, e in zip(found, expected, strict=True)]) > 0.85
    assert max(abs(f.probability - e.probability) for f, e in zip(found, expected, strict=True) if f.label == e.label) > 1e-5
    with pytest.raises(ConfigError, match=f"was exported in {precision}; leave precision out"):
        predict(path, files_of(run)[:1], precision="fp32")


@pytest.mark.slow
def test_the_compiled_package_answers_as_the_run(run: Artifact, exported: Exports, expected: list[Prediction]) -> None:
    if not torch_program.has_compiler():
        pytest.skip("there is no C++ compiler")
    assert_same(predict(exported(*COMPILED) / PACKAGE, files_of(run)), expected, 1e-5)


@pytest.mark.slow
def test_int8_is_in_the_file(exported: Exports) -> None:
    import onnx

    quantised = onnx.load(exported("onnx", "int8") / "model.onnx")
    kinds = [node.op_type for node in quantised.graph.node]
    assert kinds.count("QuantizeLinear") > 3
    scopes = [node for node in quantised.graph.node if node.op_type == "MatMul" and any("Quantize" in name for name in node.input)]
    assert not scopes  # the two products that resize stay as they are
    assert "QuantizeLinear" not in [node.op_type for node in onnx.load(exported("onnx") / "model.onnx").graph.node]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("onx",), "format: onx is not one of onnx, openvino, torch, did you mean onnx"),
        (("onnx", "bf16"), "take fp16, or openvino in bf16"),
        (("torch", "int8"), "take bf16, or onnx or openvino in int8"),
        (("onnx", "fp32", "resise"), "bake: resise is not one of none, normalise, resize, did you mean resize"),
        (("onnx", "fp32", "resize", "fixed"), "takes images of any size"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_the_nearest_choice(
    arguments: tuple[str, ...], said: str, run: Artifact, tmp_path: Path
) -> None:
    to, precision, bake, size = (*arguments, *("onnx", "fp32", "resize", "auto")[len(arguments) :])
    with pytest.raises(ConfigError, match=re.escape(said)):
        export(run, to, precision=precision, bake=bake, size=size, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_engine_is_named_with_what_brings_it(run: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(backends.UnavailableError, match=r"onnxscript is not installed; pip install 'convmix\[export\]'"):
        export(run, "onnx", output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_description_travels_inside_and_beside(onnx: Path, run: Artifact, tmp_path: Path) -> None:
    import onnxruntime

    beside = json.loads((onnx / "model.json").read_text())
    inside = onnxruntime.InferenceSession(onnx / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(inside["convmix"]) == beside
    assert inside["labels"].split("\n") == list(run.labels) == beside["labels"]
    assert beside["preprocess"] == run.preprocess.to_dict()
    assert beside["calibration"]["temperature"] == CALIBRATION.temperature
    assert beside["threshold"] == CALIBRATION.threshold
    assert beside["input"] == {"name": "images", "dtype": "uint8", "layout": "NHWC", "shape": ["batch", "height", "width", 3]}
    assert beside["outputs"] == ["logits", "probabilities"]
    assert beside["facts"]["data"]["fingerprint"] == run.info["data"]["fingerprint"]
    assert beside["verification"]["images"] == "validation"
    assert beside["verification"]["checks"][0]["images"] == 36
    alone = shutil.copy(onnx / "model.onnx", tmp_path)
    assert load_artifact(alone).labels == run.labels  # the model alone says everything


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["labels"].reverse(), "was changed"),
        (lambda d: d.update(threshold=0.1), "threshold cannot be right as written there"),
        (lambda d: d.update(engin="onnx"), "unknown key engin, did you mean engine"),
        (lambda d: d.pop("bake"), "has no bake"),
        (lambda d: d.update(format=99), "format 99, this version of convmix reads 1"),
        (lambda d: d.update(file="../model.onnx"), "not the name of a file in the same folder"),
        (lambda d: d["preprocess"].update(size=[3]), "size"),
    ],
)
def test_a_changed_description_is_refused(change: object, said: str, onnx: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "model.json"):
        (tmp_path / name).write_bytes((onnx / name).read_bytes())
    described = json.loads((tmp_path / "model.json").read_text())
    change(described)  # type: ignore[operator]
    (tmp_path / "model.json").write_text(json.dumps(described))
    with pytest.raises(RunError, match=said):
        load_artifact(tmp_path)


def test_what_is_no_model_is_refused(onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(RunError, match="cannot be read"):
        load_artifact(tmp_path / "model.onnx")
    (tmp_path / "model.json").write_bytes((onnx / "model.json").read_bytes())
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(RunError, match=r"has no model\.onnx, which its model\.json names"):
        load_artifact(tmp_path)


@pytest.mark.slow
def test_a_model_that_answers_otherwise_is_not_written(
    run: Artifact, exported: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = module.trace

    def corrupted(graph: torch.nn.Module, *args: object, **kwargs: object) -> object:
        with torch.no_grad():
            next(p for p in graph.parameters() if p.ndim == 4).mul_(1.05)
        return traced(graph, *args, **kwargs)  # type: ignore[arg-type]

    older = shutil.copytree(exported("onnx", bake="none"), tmp_path / "out")
    before = {file.name: file.read_bytes() for file in older.iterdir()}
    assert "model.onnx" in before
    monkeypatch.setattr(module, "trace", corrupted)
    with pytest.raises(VerificationError, match=r"nothing is written.*an answer differs by 0\.\d+, 0\.001 is allowed"):
        export(run, "onnx", bake="none", output=tmp_path / "out")
    assert {file.name: file.read_bytes() for file in older.iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_export_leaves_what_was_there(run: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_verified", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(run, "torch", bake="none", output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_only_an_export_is_replaced(run: Artifact, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds notes\.txt, which is not part of an export"):
        export(run, "onnx", output=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def inside(made_once: MadeOnce) -> Path:
    """The place within a run where its export goes by itself; the run's images are gone. Read only."""

    def make(root: Path) -> None:
        run = run_with_data(root, size=(16, 24))
        (root / "photos").rename(root / "moved")
        made = export(run, "onnx", bake="normalise", size="fixed")
        assert made.path == run.path / "export" / "onnx-fp32"
        assert made.verification.images == "generated"
        assert "compared on generated images" in made.notes[0]

    return made_once("exported_inside", make) / "run" / "export" / "onnx-fp32"


@pytest.mark.slow
def test_without_its_images_a_run_is_verified_on_generated_ones(inside: Path) -> None:
    assert json.loads((inside / "model.json").read_text())["verification"]["note"]
    run = load_artifact(inside.parents[1])
    with pytest.raises(DataError, match="int8 takes its value ranges from at least 10 validation images"):
        export(run, "openvino", precision="int8")
    assert load_artifact(inside).info["model"] == run.info["model"]


# One image on every way


HOOK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def evaluation(run: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """The run's."""
    with pictures(save_blank):
        return convmix.evaluate(run, split="val", output=tmp_path_factory.mktemp("evaluation") / "run.json", precision="fp32")


@pytest.mark.parametrize(
    ("format", "bake", "blocked"),
    [
        ("onnx", "resize", ("convmix", "torch", "PIL", "openvino")),
        ("openvino", "resize", ("convmix", "torch", "PIL", "onnxruntime")),
        pytest.param("torch", "resize", ("convmix", "PIL"), marks=pytest.mark.slow),
        ("onnx", "none", ("convmix", "torch", "PIL", "openvino")),
        ("onnx", "normalise", ("convmix", "torch", "PIL", "openvino")),
    ],
)
def test_the_script_answers_as_evaluate_and_predict(
    format: str, bake: str, blocked: tuple[str, ...], run: Artifact, exported: Exports, evaluation: Evaluation, tmp_path: Path
) -> None:
    path = exported(format, bake=bake, size="fixed" if bake == "normalise" else "auto")
    given = files_of(run)[::9]
    arrays = []
    for i, file in enumerate(given):
        image = Image.open(file).convert("RGB")
        pixels = np.asarray(image if bake == "resize" else run.preprocess.place(image))
        arrays.append(str(tmp_path / f"{i}.npy"))
        np.save(arrays[-1], pixels)
    said = subprocess.run(
        [sys.executable, "-c", HOOK.format(blocked=blocked), str(path / "predict.py"), *arrays],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split("\t") for line in said.stdout.splitlines()]
    predicted = predict(path, given)
    evaluated = {image.name: image for image in evaluation.images}  # type: ignore[union-attr]
    assert len(lines) == len(given) == 4
    for (_, label, probability), one, file in zip(lines, predicted, given, strict=True):
        assert label == (one.label if one.sure else f"not sure ({one.label})")
        assert float(probability) == pytest.approx(one.probability, abs=1e-5)
        name = str(Path(file).relative_to(run.info["data"]["spec"]))
        assert evaluated[name].prediction == one.label
        assert evaluated[name].probability == pytest.approx(one.probability, abs=0.02)


def test_the_script_takes_picture_files_where_pillow_is(onnx: Path, run: Artifact) -> None:
    given = files_of(run)[:3]
    said = subprocess.run([sys.executable, str(onnx / "predict.py"), *given], capture_output=True, text=True, check=True)
    expected = predict(onnx, given)
    assert [float(line.split("\t")[2]) for line in said.stdout.splitlines()] == pytest.approx([p.probability for p in expected], abs=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("unpainted")
def test_an_exported_model_is_evaluated(onnx: Path, run: Artifact, evaluation: Evaluation, tmp_path: Path) -> None:
    data = Path(run.info["data"]["spec"]) / "val"
    exported = convmix.evaluate(onnx, data, split="val", output=tmp_path / "exported.json")
    assert exported.metrics["n"] == evaluation.metrics["n"] == 36
    assert exported.metrics["correct"] == evaluation.metrics["correct"]
    assert any("does not know what it was trained on" in note for note in exported.notes)
    brightness = [[image.brightness for image in one.images] for one in (exported, evaluation)]  # type: ignore[union-attr]
    assert np.abs(np.mean(brightness[0]) - np.mean(brightness[1])) < 10  # of the whole images, and of what is cropped
    with pytest.raises(RunError, match="name the data"):
        convmix.evaluate(onnx, split="val", output=tmp_path / "e.json")


def test_predictor_takes_images_of_several_sizes_and_broken_ones(onnx: Path, run: Artifact) -> None:
    predictor = Predictor(load_artifact(onnx), images=3, batch_size=32)
    answers = predictor.answers([predictor.prepare(file) for file in files_of(run)[:3]])
    assert [a.result is not None for a in answers] == [True] * 3
    rows = predict(onnx, [files_of(run)[0], __file__])
    assert rows[0].error is None
    assert rows[1].error == "not an image of a known format"


def test_what_an_exported_model_cannot_be_asked_is_said(onnx: Path, run: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="explain the run that it came from"):
        convmix.explain(onnx, files_of(run)[:1])
    with pytest.raises(ConfigError, match="calibrate the run that it came from"):
        convmix.calibrate(onnx)
    with pytest.raises(ConfigError, match="optimize its run"):
        convmix.optimize(onnx)
    with pytest.raises(ConfigError, match="leave optimize out"):
        predict(onnx, files_of(run)[:1], optimize="always")
    with pytest.raises(ConfigError, match="is exported already"):
        export(onnx, "openvino", output=tmp_path / "out")


@pytest.mark.slow
def test_the_race_measures_the_exported_model_beside_its_run(inside: Path) -> None:
    lanes = race(inside, batch_size=2, rounds=3)
    assert [lane.name for lane in lanes] == ["model.onnx (onnx, fp32)", "the run (PyTorch, fp32)"]
    assert all(len(lane.ms) == 3 and min(lane.ms) > 0 for lane in lanes)
    with pytest.raises(ConfigError, match="leave size out"):
        race(inside, size=(99, 99))
