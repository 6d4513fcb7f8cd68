"""The verbs as Python functions, with the arguments of the command line; the roof over everything.

run = convmix.train("photos/", model="convmlp_s", epochs=30)
run.model.predict(["new/cat.jpg"])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from convmix.artifact import Artifact, load_artifact
from convmix.config import override
from convmix.data.facts import DataFacts
from convmix.evaluation import Evaluation
from convmix.evaluation import evaluate as evaluate_run
from convmix.prediction import Prediction
from convmix.prediction import predict as predict_files
from convmix.recipes import recipe as named_recipe
from convmix.training.session import train_session


class Model:
    """A trained model from its directory, with the verbs that use it."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.artifact.labels

    def predict(self, files: str | Path | Sequence[str | Path], *, top: int = 1, batch_size: int = 32) -> list[Prediction]:
        """Labels with probabilities for files, folders or globs; see `convmix.predict`."""
        some = [files] if isinstance(files, (str, Path)) else files
        return predict_files(self.artifact, [str(f) for f in some], top=top, batch_size=batch_size)

    def evaluate(self, data: str | Path | None = None, *, split: str = "test") -> Evaluation:
        """Scores on the run's own split, or on other labelled data; see `convmix.evaluate`."""
        return evaluate_run(self.artifact, data, split=split)


@dataclass(frozen=True)
class TrainedRun:
    """A finished training."""

    path: Path  # the model directory
    metrics: dict[str, Any]  # "val" and "test" -> scores
    stopped: str  # "epochs", "budget" or "early stopping"
    keeps: str  # "best" by validation score, or "last": whose epoch's weights

    @property
    def model(self) -> Model:
        """The kept weights, ready to use."""
        return load(self.path)


def load(path: str | Path) -> Model:
    """The model of a model directory; RunError where it is none."""
    return Model(load_artifact(path))


def train(
    data: str | Path,
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    quiet: bool = False,
    **settings: object,
) -> TrainedRun:
    """Train a model on `data` and write its directory.

    data: a folder with a folder per class, a CSV or parquet file, WebDataset shards, a Hub or torchvision name, or "digits".
    recipe: one of `convmix recipes`; None is "default".
    out: the model directory to make; None is runs/NAME after the data set.
    resume: go on with the training in `out`.
    settings: any field of `convmix.config.Run` by its name, such as model="convmlp_s", epochs=30, lr=1e-3, budget="10m".
    Raises a ConvmixError for every mistake, naming the value and the nearest valid one.
    """
    override(named_recipe(recipe or "default", DataFacts(1, 1, 224, 224, 3)), settings)
    place = Path(out) if out is not None else None
    console = Console(quiet=quiet)
    result = train_session(str(data), recipe=recipe, overrides=settings, out=place, resume=resume, console=console, device=device)
    return TrainedRun(result.path, result.metrics, result.stopped, result.keeps)
