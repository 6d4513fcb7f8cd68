"""How sure a run may be: its temperature fitted anew, and a threshold for "not sure" by the accuracy or coverage that a user needs.

run + data -> Selection -> outputs -> Calibration -> convmix.json, the model card, calibration.json and a page
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.artifacts.provenance import recorded_digests
from convmix.artifacts.renumbering import columns
from convmix.atomic import write_json
from convmix.errors import ConfigError, DataError, RunError
from convmix.evaluation.calibration_page import Calibrated, build_page
from convmix.evaluation.group_sections import percent
from convmix.evaluation.kept_calibration import FOREIGN_CARD, card_is_ours, keep
from convmix.evaluation.label_thresholds import LabelsCalibrated, calibrate_run
from convmix.evaluation.model_outputs import Answerer, check_means
from convmix.evaluation.object_scores import ScoresCalibrated, calibrate_objects
from convmix.evaluation.selection import Selection, select
from convmix.metrics.calibration import FEWEST, Calibration, Choice, check_target, choose_threshold, coverage_curve, reliability
from convmix.tasks import create_task

SHOWN_ACCURACIES = (0.8, 0.9, 0.95, 0.98, 0.99)  # what a user may ask for; their thresholds stand on the page


def calibrate(
    run: str | Path | Artifact,
    data: str | Path | None = None,
    *,
    accuracy: float | None = None,
    coverage: float | None = None,
    split: str = "val",
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    optimize: str = "never",
    workers: int | None = None,
) -> Calibrated | LabelsCalibrated | ScoresCalibrated:
    """Fit a run's temperature, choose below which probability an answer is "not sure", and write both into the model directory.

    run: a model directory, or one already loaded, which is brought up to date too.
    data: labelled images in any form that training reads; None: the data the run was trained on, in the splits it recorded.
    accuracy: answer as many images as possible, so that this share of the answers is right (0..1).
    coverage: answer this share of the images, the surest ones (0..1). With neither, every answer is sure. Where images may have several
    labels, accuracy is the precision of each label, and without it the thresholds are those of the best F1. Of runs that find objects the
    scores are calibrated; neither has a meaning there.
    split: which images: val, or the split of other data. test is possible, but the run's scores on it are no longer blind then.
    batch_size: images that are computed at once.
    device: cpu, cuda or mps; None: what this machine is best at.
    precision: auto (what this machine is best at), fp32, bf16, fp16 or int8.
    optimize: auto, always or never run the model in the fastest engine that `convmix.optimize` finds.
    workers: processes that decode (None: by the number of cores).

    The probabilities of every answer change a little, the answers never. Of other data, images that the run was trained on, chosen by or
    is tested on are left out. Also written: calibration.json, calibration.html with its pictures, and the model card.
    Raises ConfigError for settings that do not exist and an accuracy that no threshold reaches, DataError for too few images; nothing is
    written then.
    """
    if accuracy is not None or coverage is not None:
        check_target(accuracy=accuracy, coverage=coverage)
    means = check_means(batch_size=batch_size, device=device, precision=precision, optimize=optimize, workers=workers)
    artifact = run if isinstance(run, Artifact) else load_artifact(run)
    if artifact.engine:
        raise ConfigError(f"{artifact.path} is an exported model; calibrate the run that it came from, and export it again")
    task = create_task(artifact.task, artifact.labels)
    if not task.calibratable:
        raise RunError(f"{artifact.path}: a run of the task {artifact.task} has no probabilities to calibrate")
    selection = _selection(artifact, data, split)
    if task.places:
        if accuracy is not None or coverage is not None:
            raise ConfigError("accuracy and coverage are of images with one answer; of objects `predict` takes a threshold of their scores")
        return calibrate_objects(artifact, selection, means, notes=tuple(_notes(artifact, None, selection)))
    if task.thresholds_by_label() is not None:
        notes = tuple(_notes(artifact, None, selection))
        return calibrate_run(artifact, selection, means, accuracy=accuracy, coverage=coverage, notes=notes)
    column_of = columns(selection.examples.classes, artifact.labels, selection.data, used=selection.examples.labels.tolist())
    answerer = Answerer(artifact, len(selection.examples), means)
    outputs = answerer(selection.examples, artifact.preprocess)
    if (n := len(outputs.values)) < FEWEST:
        raise DataError(f"{selection.data}: {n} images that can be read are too few to calibrate on, expected at least {FEWEST}")
    targets = torch.from_numpy(column_of)[outputs.targets]  # n, columns of the run's labels

    name = selection.split if selection.own else f"{selection.data} ({selection.split})"
    calibration = task.calibrate(outputs.values, targets, split=name)
    if not isinstance(calibration, Calibration):
        raise RunError(f"{artifact.path}: a run of the task {artifact.task} has no probabilities to calibrate")
    before = task.certainty(outputs.values, targets)
    task.calibration = calibration
    after = task.certainty(outputs.values, targets)
    if accuracy is not None or coverage is not None:
        choice = choose_threshold(*after, accuracy=accuracy, coverage=coverage)
        calibration = dataclasses.replace(calibration, threshold=choice.threshold, choice=choice)

    result = Calibrated(
        run=str(artifact.path),
        data=selection.data,
        split=selection.split,
        calibration=calibration,
        previous=artifact.calibration if isinstance(artifact.calibration, Calibration) else None,
        bins_before=tuple(reliability(*before)),
        bins_after=tuple(reliability(*after)),
        curve=coverage_curve(*after),
        choices=tuple(_reached(*after)),
        left_out=selection.left_out,
        bad=tuple((selection.examples.name(i), reason) for i, reason in outputs.bad),
        notes=(*selection.notes, *_notes(artifact, calibration, selection), *([answerer.ready.note] if answerer.ready.note else [])),
        output=artifact.path / "calibration.json",
    )
    _write(result, artifact)
    return result


def _selection(artifact: Artifact, data: str | Path | None, split: str) -> Selection:
    """The images to calibrate on: none that the run was trained on, and its test images only by their name."""
    selection = select(artifact, data, split=split)
    if selection.own:
        if split == "train":
            raise ConfigError("split: train is what the run learned from, so it is too sure of it; give val, or other labelled data")
        return selection
    tested = recorded_digests(artifact)["test"]
    keep = np.flatnonzero([digest not in tested for digest in selection.digests])
    if not len(keep):
        raise DataError(
            f"{selection.data}: all its images are in the run's test split; to use that on purpose, give split=test and no data"
        )
    if (found := len(selection.digests) - len(keep)) == 0:
        return selection
    note = f"{found} images of this data are in the run's test split: left out, so that its scores stay blind"
    return dataclasses.replace(
        selection,
        examples=selection.examples.select(keep),
        digests=tuple(selection.digests[i] for i in keep),
        left_out=selection.left_out + found,
        notes=(*selection.notes, note),
    )


def _notes(artifact: Artifact, calibration: Calibration | None, selection: Selection) -> list[str]:
    notes = []
    if selection.own and selection.split == "test":
        notes.append("the run's test split was used to fit this, so its scores there are no longer blind")
    old = artifact.calibration
    if calibration is not None and calibration.threshold is None and old is not None and old.threshold is not None:
        notes.append(f"the threshold {old.threshold:.4f} is gone, no accuracy or coverage being asked for: every answer is sure")
    choice = calibration.choice if calibration is not None else None
    if choice is not None and choice.target == "accuracy" and choice.accuracy_interval[0] < choice.wanted:
        low, high = choice.accuracy_interval
        notes.append(
            f"{choice.n} sure images tell the accuracy to within {percent(low)} to {percent(high)}: on other images it may be below "
            f"{percent(choice.wanted)}; ask for more, or bring more images, to be on the safe side"
        )
    if not card_is_ours(artifact):
        notes.append(FOREIGN_CARD)
    return notes


def _reached(confidence: np.ndarray, correct: np.ndarray) -> list[Choice]:
    """Thresholds for the accuracies that users ask for, as far as they are reached."""
    found = []
    for accuracy in SHOWN_ACCURACIES:
        try:
            found.append(choose_threshold(confidence, correct, accuracy=accuracy))
        except ConfigError:
            break  # a higher one is not reached either
    return found


def _write(result: Calibrated, artifact: Artifact) -> None:
    """The page and the JSON file, then the model directory's own files, which make it valid; a loaded run learns of it too."""
    build_page(result).write(result.page)
    write_json(result.output, result.to_dict())
    keep(artifact, result.calibration)
