"""The verbs as Python functions, with the arguments of the command line.

run = convmix.train("photos/", model="convmlp_s", epochs=30)
run.model.predict(["new/cat.jpg"])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from torch import Tensor, nn

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.config import override
from convmix.data.facts import DataFacts
from convmix.errors import ConfigError
from convmix.evaluation import Evaluation
from convmix.evaluation import evaluate as evaluate_run
from convmix.evaluation.dense_result import DenseEvaluation
from convmix.hardware import fast_bf16
from convmix.inference.engine_choice import BATCH, optimize_run
from convmix.inference.prediction import Prediction
from convmix.inference.prediction import predict as predict_files
from convmix.inference.prediction_files import DetectionFile
from convmix.recipes import recipe as named_recipe
from convmix.speed.select import BUDGET_S, Optimized, Precision
from convmix.speed.select import optimize as optimize_model
from convmix.speed.store import device_of
from convmix.system.surroundings import show_every_letter
from convmix.tasks.base import Task
from convmix.training.session import train_session

if TYPE_CHECKING:
    from convmix.explanation.explanation_result import Explanation
    from convmix.exporting.export import Export


class Model:
    """A trained model from its directory, with the verbs that use it."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.artifact.labels

    def predict(
        self,
        files: str | Path | Sequence[str | Path],
        *,
        top: int = 1,
        threshold: float | None = None,
        batch_size: int = 32,
        nearest: int = 0,
    ) -> list[Prediction] | list[DetectionFile]:
        """Labels with probabilities for files, folders or globs; see `convmix.predict`."""
        some = [files] if isinstance(files, (str, Path)) else files
        return predict_files(self.artifact, [str(f) for f in some], top=top, threshold=threshold, batch_size=batch_size, nearest=nearest)

    def evaluate(self, data: str | Path | None = None, *, split: str = "test") -> Evaluation | DenseEvaluation:
        """Scores on the run's own split, or on other labelled data; see `convmix.evaluate`."""
        return evaluate_run(self.artifact, data, split=split)

    def explain(self, files: str | Path | Sequence[str | Path] = (), *, classes: Sequence[str] = ()) -> "Explanation":
        """Where the model finds its evidence in images, and what it is made of; see `convmix.explain`."""
        from convmix.explanation.explain import explain

        some = [files] if isinstance(files, (str, Path)) else files
        return explain(self.artifact, some, classes=classes)

    def export(self, format: str, *, precision: str = "fp32", bake: str = "resize", output: str | Path | None = None) -> "Export":
        """The model for onnx, openvino or torch, verified before it is written; see `convmix.export`."""
        from convmix.exporting.export import export

        return export(self.artifact.path, format, precision=precision, bake=bake, output=output)


@dataclass(frozen=True)
class TrainedRun:
    """A finished training."""

    path: Path  # the model directory
    metrics: dict[str, Any]  # "val" and "test" -> scores
    stopped: str  # "epochs", "budget", "early stopping", or "head" where the classifier alone was fitted
    keeps: str  # "best" by validation score, or "last": whose epoch's weights
    task: Task  # with the labels

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
    autoresume: bool = False,
    device: str | None = None,
    quiet: bool = False,
    **settings: object,
) -> TrainedRun:
    """Train a model on `data` and write its directory.

    data: a folder with a folder per class, a CSV or parquet file, WebDataset shards (also behind a URL), a Hub or torchvision
        name, or "digits".
    recipe: one of `convmix recipes`; None is "default".
    out: the model directory to make; None is runs/NAME after the data set.
    device: cpu, cuda or mps; the accelerator where there is one. quiet: print nothing but errors.
    resume: continue the training in `out`, or in `data` where that is a model directory; more epochs=... extend it.
    autoresume: resume where `out` holds a training, else begin one.
    settings: any field of `convmix.config.Run` by its name, such as model="convmlp_s", epochs=30, lr=1e-3, budget="10m".
    Raises a ConvmixError for every mistake, naming the value and the nearest valid one.
    """
    override(named_recipe(recipe or "default", DataFacts(1, 1, 224, 224, 3)), settings)
    place = Path(out) if out is not None else None
    show_every_letter()
    console = Console(quiet=quiet)
    result = train_session(
        str(data), recipe=recipe, overrides=settings, out=place, resume=resume, autoresume=autoresume, console=console, device=device
    )
    return TrainedRun(result.path, result.metrics, result.stopped, result.keeps, result.task)


def optimize(
    model_or_run: nn.Module | str | Path | Artifact | Model | TrainedRun,
    *,
    sizes: tuple[int, int, int] | int = BATCH,
    precision: str = "auto",
    images: Tensor | None = None,
    budget_s: float = BUDGET_S,
    again: bool = False,
) -> Optimized:
    """The fastest way to run a model on this machine, found by trying every engine that is installed; kept for the next time.

    model_or_run: a run (its directory, or loaded), whose validation images the engines are checked on; or any module, checked on `images`.
    sizes: images per batch, with the height and width (batch, height, width) for a module; a run's images have the run's own.
    precision: exact (float32), bf16 or int8: what may be computed in; auto: bf16 where this machine has it, else exact.
    images: n,C,H,W, normalised; for a module alone. None: noise.
    budget_s: no further engine is begun after this time.
    again: measure also where a choice is kept.

    The result is called with float32 images n,C,H,W of any n and returns what the network does, in float32: logits, or of a detector a
    dictionary for each image; its `.report` says what was measured. Raises a
    ConvmixError for arguments that do not fit.
    """
    if isinstance(model_or_run, nn.Module):
        if isinstance(sizes, int):
            raise ConfigError(f"sizes: {sizes} is a batch alone; for a module give (images per batch, height, width)")
        if precision == "auto":
            precision = "bf16" if fast_bf16(device_of(model_or_run)) else "exact"
        return optimize_model(
            model_or_run, sizes=sizes, precision=cast(Precision, precision), images=images, budget_s=budget_s, again=again
        )
    if isinstance(model_or_run, (TrainedRun, str, Path)):
        artifact = load_artifact(model_or_run.path if isinstance(model_or_run, TrainedRun) else model_or_run)
    else:
        artifact = model_or_run.artifact if isinstance(model_or_run, Model) else model_or_run
    if images is not None:
        raise ConfigError("images: a run is checked on its own validation images; leave images out, or give its model instead of the run")
    if not isinstance(sizes, int) and tuple(sizes[1:]) != artifact.preprocess.size:
        raise ConfigError(f"sizes: {sizes}, but the run's images are {artifact.preprocess.size}; give the images per batch alone")
    batch_size = sizes if isinstance(sizes, int) else sizes[0]
    return optimize_run(artifact, batch_size=batch_size, precision=precision, budget_s=budget_s, again=again)
