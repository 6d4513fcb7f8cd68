"""One training of one contender with one seed, as its model directory tells it: not begun, begun, done or failed.

trials/resnet18-0/record.json    done, written last by the training
trials/resnet18-0/failed.json    why there will be none
trials/resnet18-0/state/         begun, to be resumed
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmix.atomic import write_json
from convmix.comparison.candidates import Candidate
from convmix.documents import read_object
from convmix.errors import RunError

_STATE = Path("state") / "last.safetensors"


@dataclass(frozen=True)
class TrainingRun:
    """What is to be trained, and where."""

    contender: Candidate
    seed: int
    path: Path  # the model directory


@dataclass(frozen=True)
class RunOutcome:
    """How a trial ended: with a record, or with the reason why there is none."""

    record: Mapping[str, Any] | None = None  # record.json of the training
    failed: str = ""


def outcome(trial: TrainingRun) -> RunOutcome | None:
    """How the trial ended, None where it has not; RunError for a file that cannot be read."""
    try:
        if (trial.path / "record.json").exists():
            return RunOutcome(record=read_object(trial.path / "record.json"))
        if (trial.path / "failed.json").exists():
            return RunOutcome(failed=str(read_object(trial.path / "failed.json")["reason"]))
    except (OSError, KeyError, RunError) as error:
        raise RunError(f"{trial.path}: its record cannot be read ({error}); remove this folder to train it again") from None
    return None


def can_resume(trial: TrainingRun) -> bool:
    """Whether the training left a state to go on from."""
    return (trial.path / _STATE).exists() and (trial.path / "state" / "job.json").exists()


def clear(trial: TrainingRun) -> None:
    """Remove what a training left that ended before its first state."""
    shutil.rmtree(trial.path, ignore_errors=True)


def settle(trial: TrainingRun) -> None:
    """Remove the state of a training that is done: three times the model's size that nobody will resume."""
    (trial.path / _STATE).unlink(missing_ok=True)


def give_up(trial: TrainingRun, reason: str) -> None:
    """Keep the reason instead of a record."""
    write_json(trial.path / "failed.json", {"reason": reason})
    settle(trial)


def splits_digest(trial: TrainingRun) -> str:
    """16 hex digits over which image went to which split: equal for all trials of an experiment."""
    return hashlib.blake2b((trial.path / "splits.csv").read_bytes(), digest_size=8).hexdigest()
