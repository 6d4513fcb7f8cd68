"""`predict` and `evaluate` say the same in a faster engine, and look for one only where it pays."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import LABELS, make_run, write_folder
from torch import nn

import convmix
from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.artifacts.provenance import recorded_rows
from convmix.cli import main
from convmix.errors import ConfigError, DataError
from convmix.evaluation import evaluate
from convmix.inference import engine_choice
from convmix.inference.engine_choice import accelerate, optimize_run
from convmix.inference.prediction import predict
from convmix.inference.task_judge import TaskJudge, validation_images
from convmix.speed import select
from convmix.speed.backends import EnginePlan
from convmix.speed.check import Original
from convmix.tasks import task_class
from convmix.tasks.agreement import agreement, together
from tests.made_once import MadeOnce
from tests.trained_runs import DENSE_TASKS, demo, dense_run, labelled, multilabel, scenes

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("unpainted")
QUICK = [EnginePlan(), EnginePlan(layout="nhwc"), EnginePlan(folded=True)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONVMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(select, "candidates", lambda *_, **__: QUICK)
    monkeypatch.setattr(select, "TURN_S", 0.0)  # none of these tests asks who is faster
    return tmp_path / "cache"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """photos/{train,val,test}/{ant,bee,cat}: 4, 5 and 3 images a class."""
    for i, (split, n) in enumerate({"train": 4, "val": 5, "test": 3}.items()):
        write_folder(tmp_path / "photos" / split, dict.fromkeys(LABELS, n), seed=100 * i)
    return tmp_path / "photos"


@pytest.fixture
def run(tmp_path: Path, photos: Path) -> Artifact:
    artifact = make_run(tmp_path / "run", splits={split: photos / split for split in ("train", "val", "test")}, spec=str(photos))
    rows = [f"{r['split']},{r['split']}/{r['name']},{r['digest']},{r['label']}" for r in recorded_rows(artifact)]
    (artifact.path / "splits.csv").write_text("\n".join(["split,name,digest,label", *rows]) + "\n")
    return artifact


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The budgets of the trials that are begun, in seconds."""
    begun: list[float] = []
    original = select._Race.run

    def counted(self: select._Race, plans: list[EnginePlan], budget_s: float) -> None:
        begun.append(budget_s)
        original(self, plans, budget_s)

    monkeypatch.setattr(select._Race, "run", counted)
    return begun


def test_a_run_is_checked_on_its_own_validation_images(run: Artifact, trials: list[float]) -> None:
    faster = optimize_run(run, precision="exact")
    assert faster.report.checked == 15
    assert faster.report.sizes == (32, 8, 8)
    assert faster.report.original.score is not None
    assert convmix.optimize(run.path, precision="exact").plan == faster.plan
    assert len(trials) == 1


def test_int8_is_checked_on_other_images_than_it_is_calibrated_on(run: Artifact) -> None:
    to_check, classes, to_calibrate = engine_choice._validation_images(run, "int8", engine_choice._Part.of(run))
    assert to_check is not None and classes is not None and to_calibrate is not None
    assert (len(to_check), classes.tolist(), len(to_calibrate)) == (6, [0, 0, 1, 1, 2, 2], 9)
    assert len(torch.cat([to_check, to_calibrate]).unique(dim=0)) == 15  # every validation image once
    everything, _, none = engine_choice._validation_images(run, "exact", engine_choice._Part.of(run))
    assert everything is not None and len(everything) == 15 and none is None


@pytest.mark.slow
def test_predict_and_evaluate_say_the_same_with_and_without(run: Artifact, photos: Path, trials: list[float]) -> None:
    for precision in ("fp32", "auto"):
        plain = predict(run, [photos], precision="fp32", optimize="never", workers=0)
        fast = predict(run, [photos], precision=precision, optimize="always", workers=0)
        assert [row.label for row in fast] == [row.label for row in plain]
        tolerance = 1e-5 if precision == "fp32" else 0.02
        assert [row.probability or 0 for row in fast] == pytest.approx([row.probability or 0 for row in plain], abs=tolerance)
    assert len(trials) == len({"exact", "bf16" if engine_choice.resolve_precision("auto", CPU) == "bf16" else "exact"})
    slow, quick = (evaluate(run, precision="fp32", optimize=how, workers=0) for how in ("never", "always"))
    assert slow.metrics["confusion"] == quick.metrics["confusion"]
    assert slow.notes == ()
    assert [note.startswith("computed by eager fp32") for note in quick.notes] == [True]


@pytest.mark.slow
def test_short_jobs_run_as_they_are(run: Artifact, photos: Path, trials: list[float]) -> None:
    assert accelerate(run, 10_000, batch_size=32, device=CPU, precision="fp32", optimize="auto").model is run.model
    predict(run, [photos], workers=0)
    assert evaluate(run, workers=0).notes == ()
    assert not trials


def test_long_jobs_spend_a_share_of_their_time_on_a_trial(run: Artifact, trials: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    images_per_s = 100
    monkeypatch.setattr(engine_choice, "_plain_s", lambda artifact, num_images, batch_size, precision: num_images / images_per_s)
    for seconds, expected in ((599, []), (1200, [120.0])):
        accelerate(run, seconds * images_per_s, batch_size=32, device=CPU, precision="fp32", optimize="auto")
        assert trials == expected


def test_the_time_of_the_plain_model_is_measured(run: Artifact) -> None:
    calls: list[int] = []
    run.model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    one, many = (engine_choice._plain_s(run, n, 32, "fp32") for n in (10, 10**9))
    assert calls == [1, 1, 32]  # a batch only where one image is no answer
    assert one < 60 < many


def test_a_kept_choice_is_used_where_it_starts_soon_enough(run: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    faster = optimize_run(run, precision="exact")
    arguments = {"batch_size": 64, "device": CPU, "precision": "fp32", "optimize": "auto"}
    monkeypatch.setattr(type(faster.report), "saved_s", lambda report, n: report.restart_s + n - 100)
    assert accelerate(run, 101, **arguments).model is not run.model  # type: ignore[arg-type]
    assert accelerate(run, 99, **arguments).model is run.model  # type: ignore[arg-type]


def test_validation_images_that_are_gone_leave_noise_but_not_int8(run: Artifact, photos: Path) -> None:
    photos.rename(photos.with_name("moved"))
    assert optimize_run(run, precision="exact").report.checked == 0
    with pytest.raises(DataError, match="int8 is calibrated on the run's validation images"):
        optimize_run(run, precision="int8")


@pytest.mark.slow
@pytest.mark.parametrize("task", [*DENSE_TASKS, "multilabel"])
def test_every_task_is_answered_the_same_by_the_engine_that_won(
    task: str, made_once: MadeOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_artifact(multilabel(made_once) if task == "multilabel" else dense_run(made_once, task))
    files = [(labelled(made_once) if task == "multilabel" else scenes(made_once, task) / "test")]
    fastest = EnginePlan(layout="nhwc")
    monkeypatch.setattr(select._Race, "_time", lambda _, runner: 1.0 if runner.plan == fastest else 2.0)  # whatever the machine says
    report = convmix.optimize(run, precision="exact").report
    assert report.plan == fastest, report.trials
    assert report.checked == len(validation_images(run, at_most=100)[0]) > 0
    assert report.score == task_class(task).score_title
    assert report.chosen.score == pytest.approx(report.original.score)
    assert report.chosen.changed is not None and report.chosen.changed[0] == 0
    plain, fast = (predict(run, files, precision="fp32", optimize=how, workers=0) for how in ("never", "always"))
    apart = together([agreement(one.result, other.result) for one, other in zip(plain, fast, strict=True)])  # type: ignore[union-attr]
    assert apart.difference < 1e-4
    assert apart.agreed == apart.compared
    before, after = (
        evaluate(run, precision="fp32", optimize=how, workers=0, output=tmp_path / f"{how}.json") for how in ("never", "always")
    )
    score = task_class(task).score_name
    assert after.metrics[score] == pytest.approx(before.metrics[score], abs=1e-4)
    assert [note.startswith(f"computed by {fastest}") for note in after.notes] == [True]


@pytest.mark.slow
@pytest.mark.parametrize("task", DENSE_TASKS)
def test_an_engine_that_finds_other_things_is_rejected(task: str, made_once: MadeOnce) -> None:
    """Within the limits of every output, but with another answer to the images: what the task alone can say."""
    run = load_artifact(dense_run(made_once, task))
    talk: dict[str, Callable[[Any], Any]] = {  # after one epoch they find nothing
        "detect": lambda model: [
            nn.init.normal_(model.head.classification_head.cls_logits.weight, std=50.0),
            nn.init.constant_(model.head.classification_head.cls_logits.bias, -1.0),
        ],
        "instances": lambda model: nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=2.0),
        "segment": lambda model: None,
    }
    torch.manual_seed(0)
    talk[task](run.model)
    part = engine_choice._Part.of(run)
    images, targets, _ = engine_choice._validation_images(run, "exact", part)
    assert images is not None
    with torch.inference_mode():
        outputs = part.model(images)
    judge = TaskJudge(part.task, targets, run.preprocess.size, part.finish)
    original = Original(images, outputs, judge)
    mirrored = outputs.flip(1) if isinstance(outputs, torch.Tensor) else tuple(output.flip(-1) for output in outputs)
    loose = replace(part.task.engine_limits["int8"], difference=10.0)
    assert original.compare(outputs, loose).objection is None
    assert "another answer for" in str(original.compare(mirrored, loose).objection)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimize": "alwas"}, "optimize: alwas is not one of auto, always, never, did you mean always"),
        ({"optimize": "never", "precision": "int8"}, "precision: int8 exists on the CPU alone, through optimize auto or always"),
        ({"optimize": "always", "precision": "fp16"}, "optimize: always needs the device cpu and a precision of fp32, bf16, int8"),
        ({"precision": "int4"}, "precision: int4 is not one of auto, fp32, bf16, fp16, int8"),
    ],
)
def test_flags_that_do_not_exist_are_named(run: Artifact, photos: Path, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        predict(run, [photos], **arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        evaluate(run, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "bf61"}, "precision: bf61 is not one of auto, exact, bf16, int8, did you mean bf16"),
        ({"sizes": (4, 9, 9)}, r"sizes: \(4, 9, 9\), but the run's images are \(8, 8\)"),
        ({"sizes": 0}, "whole numbers of at least 1"),
        ({"images": torch.zeros(1, 3, 8, 8)}, "a run is checked on its own validation images"),
    ],
)
def test_optimize_refuses_what_a_run_does_not_take(run: Artifact, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convmix.optimize(run, **arguments)  # type: ignore[arg-type]


def test_optimize_takes_a_module(run: Artifact) -> None:
    images = torch.randn(5, 3, 8, 8)
    faster = convmix.optimize(run.model, sizes=(4, 8, 8), images=images, precision="exact")
    with torch.no_grad():
        assert torch.allclose(faster(images), run.model(images), atol=1e-5)
    with pytest.raises(ConfigError, match=r"give \(images per batch, height, width\)"):
        convmix.optimize(nn.Flatten(), sizes=4)


def test_the_command_prints_the_trial(run: Artifact, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    main(["optimize", str(run.path), "--precision", "exact"])
    printed = capsys.readouterr().out
    assert all(str(plan) in printed for plan in QUICK)
    assert "times the original, for batches of 32 at 8x8" in printed
    with pytest.raises(SystemExit) as end:
        main(["optimize", str(run.path), "--budget", "soon"])
    assert end.value.code == 2
    assert "is not a duration" in capsys.readouterr().err


@pytest.mark.slow
def test_int8_of_a_trained_model_is_right_nearly_as_often(made_once: MadeOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("openvino", "nncf"):
        pytest.importorskip(package)
    monkeypatch.setattr(select, "candidates", lambda *_, **__: [EnginePlan(), EnginePlan("openvino", "int8")])
    monkeypatch.setattr(select._Race, "_time", lambda _, runner: 1.0 if runner.plan.dtype == "int8" else 2.0)  # whatever the machine says
    trained = shutil.copytree(demo(made_once) / "runs" / "digits", tmp_path / "run")
    plain = evaluate(trained, precision="fp32", optimize="never", workers=0)
    quick = evaluate(trained, precision="int8", workers=0)
    assert plain.metrics["accuracy"] > 0.9
    assert abs(quick.metrics["accuracy"] - plain.metrics["accuracy"]) <= 0.005 + 1 / plain.metrics["n"]
    report = convmix.optimize(trained, precision="int8").report
    assert report.plan == EnginePlan("openvino", "int8"), report.trials
    assert report.checked >= 60
    assert quick.notes[-1].startswith("computed by openvino int8")
    assert quick.metrics["loss"] != plain.metrics["loss"]
    assert "openvino" in sys.modules
