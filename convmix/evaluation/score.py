"""How good a run is on images that it was not trained on: scores with intervals, where it fails, how sure it may be.

run + data -> Selection -> Answers -> metrics, slices, calibration, comparison, robustness -> Evaluation -> JSON, CSV, page
"""

import re
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.artifacts.provenance import SPLITS
from convmix.artifacts.renumbering import Renumbered, columns
from convmix.atomic import write_csv, write_json
from convmix.data.preprocessing import Preprocess
from convmix.errors import ConfigError, DataError
from convmix.evaluation.appearance import Brightness, original_sizes
from convmix.evaluation.attributes import Attributes, read_attributes
from convmix.evaluation.baseline import compare, prepare_rival
from convmix.evaluation.classification_page import write_page
from convmix.evaluation.classification_result import Certainty, Evaluation, ScoredImages
from convmix.evaluation.dense import evaluate_dense
from convmix.evaluation.dense_result import DenseEvaluation
from convmix.evaluation.intervals import with_intervals
from convmix.evaluation.model_outputs import Answerer, Answers, check_means
from convmix.evaluation.robustness import passes, under_damage
from convmix.evaluation.selection import Selection, select
from convmix.evaluation.slices import Grouping, by_appearance
from convmix.evaluation.slices import slices as sliced
from convmix.inference.batches import Outputs
from convmix.inference.engine_choice import check_exported
from convmix.metrics.calibration import Calibration, expected_calibration_error, reliability
from convmix.metrics.classification import wilson_interval
from convmix.metrics.resampling import Sampled
from convmix.tasks import create_task, task_class

_COLUMNS = ("name", "truth", "prediction", "probability", "truth_probability", "loss", "width", "height", "brightness")


def evaluate(
    run: str | Path | Artifact,
    data: str | Path | None = None,
    *,
    split: str = "test",
    against: str | Path | Artifact | None = None,
    slices: str | Path | None = None,
    robustness: bool = False,
    output: str | Path | None = None,
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    optimize: str = "auto",
    workers: int | None = None,
    console: Console | None = None,
) -> Evaluation | DenseEvaluation:
    """Score a run on labelled images and write the scores, the single answers and a page to look at.

    run: a model directory, or one already loaded.
    data: a data set in any form that training reads; None: the one the run was trained on, in the splits it recorded. Labels are
    matched by name; the data may have fewer classes than the run. Data without splits is scored whole.
    split: train, val or test.
    against: another run, scored on the same images: says whether the difference between the two is real.
    slices: a CSV file about the images, to see the score by its columns: table.csv, or table.csv:COLUMN[,COLUMN]. The score by size,
    aspect and brightness, and a classifier's by class, needs no file. The score is the task's own: accuracy, mean AP, AP, mean IoU.
    robustness: also score the same images blurred, noisy, compressed, darker or brighter, and turned, each at three strengths. Where
    answers are places in the image it is not turned.
    output: the JSON file (None: evaluation-NAME.json in the model directory); a CSV with every image, an HTML page and its pictures
    are written beside it.
    batch_size: images that are computed at once.
    device: cpu, cuda or mps; None: what this machine is best at.
    precision: auto (what this machine is best at), fp32, bf16, fp16 or int8.
    optimize: auto, always or never run the model in the fastest engine that `convmix.optimize` finds; auto: where that ends sooner.
    workers: processes that decode (None: by the number of cores).
    console: where it is said how the data was read (None: nowhere).

    An image that the run was trained on, or chosen by, is left out and counted, recognised by its bytes. Raises DataError for data
    that cannot be read, has a class that the run does not know, or has nothing left to score; RunError for an incomplete run.
    """
    if output is not None and Path(output).suffix.lower() != ".json":
        raise ConfigError(f"output: {output} must end in .json")
    means = check_means(batch_size=batch_size, device=device, precision=precision, optimize=optimize, workers=workers)
    artifact = run if isinstance(run, Artifact) else load_artifact(run)
    check_exported(artifact, precision=precision, optimize=optimize)
    if not task_class(artifact.task).single_label:
        place = partial(_output_path, output, artifact)
        return evaluate_dense(
            artifact, data, split=split, against=against, slices=slices, robustness=robustness, output=place, means=means, console=console
        )
    selection = select(artifact, data, split=split, console=console)
    column_of = columns(selection.examples.classes, artifact.labels, selection.data, used=selection.examples.labels.tolist())
    attributes = read_attributes(str(slices), selection.examples.names) if slices is not None else Attributes({}, ())
    rival = prepare_rival(against, artifact, selection, split=split) if against is not None else None

    answerer = Answerer(artifact, len(selection.examples) * (1 + robustness * passes(artifact.preprocess, places=False)), means)
    brightness = Brightness(artifact.preprocess)
    outputs = answerer(selection.examples, artifact.preprocess, brightness.watch)
    bad = tuple((selection.examples.name(i), reason) for i, reason in outputs.bad)
    if not len(outputs.values):
        raise DataError(f"{selection.data}: none of its {len(bad)} images can be read; the first: {bad[0][1]}")
    answers = _answers(artifact, outputs, column_of)
    sizes = original_sizes(selection.examples, answers.indices, artifact.preprocess)
    metrics = create_task(artifact.task, artifact.labels).metrics(outputs.values, torch.from_numpy(answers.truth))
    groupings = [
        Grouping("class", artifact.labels, answers.truth),
        *by_appearance(sizes, brightness.values),
        *attributes.groupings(answers.indices),
    ]
    notes = [*selection.notes, *attributes.notes, *([answerer.ready.note] if answerer.ready.note else [])]

    def scored(some: Outputs) -> Sampled:
        return answerer.task.sampled(some.values, some.targets)

    result = Evaluation(
        run=str(artifact.path),
        data=selection.data,
        split=selection.split,
        metrics=with_intervals(metrics, answers.truth, answers.predicted, answers.loss),
        left_out=selection.left_out,
        bad=bad,
        notes=tuple(notes),
        output=_output_path(output, artifact, selection),
        images=_images(selection, answers, sizes, brightness.values),
        slices=sliced(groupings, lambda at: Sampled.share(answers.correct[at]), overall=float(answers.correct.mean())),
        certainty=_certainty(artifact, answers),
        against=compare(rival, selection, answers, means) if rival else None,
        robustness=under_damage(answerer, Renumbered(selection.examples, column_of), scored) if robustness else (),
    )
    _write(result, answers, selection, artifact.preprocess)
    return result


def _answers(artifact: Artifact, outputs: Outputs, column_of: np.ndarray) -> Answers:
    return Answers(
        logits=outputs.values,
        classes=create_task(artifact.task, artifact.labels, artifact.calibration).decode(outputs.values),
        truth=column_of[outputs.targets.numpy()],
        predicted=outputs.values.argmax(1).numpy(),
        indices=outputs.indices.numpy(),
    )


def _images(selection: Selection, answers: Answers, sizes: np.ndarray, brightness: np.ndarray) -> tuple[ScoredImages, ...]:
    labels, names = answers.classes.labels, selection.examples.names
    rows = zip(
        answers.indices.tolist(), answers.truth.tolist(), answers.predicted.tolist(), answers.probability.tolist(),
        answers.truth_probability.tolist(), answers.loss.tolist(), sizes.tolist(), brightness.tolist(), strict=True,
    )  # fmt: skip
    return tuple(
        ScoredImages(names[i], labels[true], labels[said], probability, of_truth, loss, width, height, bright)
        for i, true, said, probability, of_truth, loss, (height, width), bright in rows
    )


def _certainty(artifact: Artifact, answers: Answers) -> Certainty:
    """Raw and calibrated confidences against what is right, and the sure answers alone."""
    raw = answers.logits.double().softmax(1).amax(1).numpy()
    fitted = artifact.calibration if isinstance(artifact.calibration, Calibration) else None
    correct = answers.correct
    sure = answers.classes.sure.numpy()
    hits = int(correct[sure].sum())
    return Certainty(
        fitted=fitted,
        ece_before=expected_calibration_error(raw, correct),
        ece_after=expected_calibration_error(answers.probability, correct) if fitted else None,
        bins_before=tuple(reliability(raw, correct)),
        bins_after=tuple(reliability(answers.probability, correct)) if fitted else None,
        sure=int(sure.sum()),
        sure_accuracy=hits / int(sure.sum()) if sure.any() else None,
        sure_interval=wilson_interval(hits, int(sure.sum())) if sure.any() else None,
    )


def _output_path(output: str | Path | None, artifact: Artifact, selection: Selection) -> Path:
    if output is not None:
        return Path(output)
    name, data, split = selection.split, selection.data, selection.split
    if not selection.own:
        parts = Path(data).resolve().parts if Path(data).exists() else (data,)
        is_split_folder = parts[-1].lower() in (*SPLITS, "valid", "validation")
        name = re.sub(r"[^\w.-]+", "_", "-".join([*(parts[-2:] if is_split_folder else parts[-1:]), *([split] if split != "all" else [])]))
    return artifact.path / f"evaluation-{name}.json"


def _write(result: Evaluation, answers: Answers, selection: Selection, preprocess: Preprocess) -> None:
    write_json(result.output, result.to_dict())
    rows = [tuple(getattr(image, name) for name in _COLUMNS) for image in result.images]
    write_csv(result.output.with_suffix(".csv"), _COLUMNS, rows)
    write_page(result, answers, selection, preprocess)
