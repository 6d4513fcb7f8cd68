"""What a run's model sees in images, and what it is made of itself, as a page, pictures and numbers.

files -> Preprocess of the run -> maps per class and method -> scores beside random ones -> page; the model's own anatomy with it
Everything is done with a copy of the model, so the run's own is left as it was found.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.atomic import write_json
from convmix.data.decode import BadImage
from convmix.errors import ConfigError, DataError, RunError, did_you_mean
from convmix.explanation.activations import activation_statistics
from convmix.explanation.attribution import check_methods
from convmix.explanation.attribution_maps import STAGES
from convmix.explanation.explanation_page import write_page
from convmix.explanation.explanation_result import Anatomy, Explanation
from convmix.explanation.hooked_copy import seeded
from convmix.explanation.methods import NAMES
from convmix.explanation.receptive_field import receptive_fields
from convmix.explanation.stages import ModelStage, spread, stage_maps
from convmix.explanation.subject import explain_image, judge, prepare
from convmix.explanation.weights import depthwise_layers, first_filters
from convmix.inference.batches import resolve
from convmix.inference.file_names import find_files
from convmix.inference.task_judge import validation_images

ANATOMY_IMAGES = 8  # that receptive fields and activations are measured on, at most


@dataclass(frozen=True)
class _Read:
    """What became of the files."""

    names: tuple[str, ...]
    images: Tensor  # N,C,H,W, in the order of `names`
    bad: tuple[tuple[str, str], ...]  # (name, reason)
    left_out: int


def explain(
    run: str | Path | Artifact,
    files: Sequence[str | Path] = (),
    *,
    classes: Sequence[str] = (),
    methods: Sequence[str] = NAMES,
    output: str | Path | None = None,
    limit: int = 16,
    device: str | None = None,
    recursive: bool = True,
) -> Explanation:
    """Show where in images a model finds its evidence, how far that can be trusted, and what the model is made of.

    run: a model directory, or one already loaded.
    files: files, folders, quoted patterns; '-' reads names from standard input. None: the model itself is explained.
    classes: classes to explain beside the predicted one.
    methods: any of them; all where none is named.
    output: the folder for explanation-NAME.html, .json and the pictures (None: the model directory).
    limit: images to explain at most, evenly over the files.
    device: cpu, cuda or mps; None: what this machine is best at.
    recursive: whether folders inside a folder count.

    A file that cannot be read is reported. The run's own model is not touched: training mode, hooks, gradients and random state stay.
    Raises ConfigError for a class or method that does not exist and where captum is not installed, DataError where no file can be read,
    RunError for a directory that holds no model.
    """
    if limit < 1:
        raise ConfigError(f"limit: {limit} is too small, expected at least 1")
    folder = Path(output) if output is not None else None
    if folder is not None and folder.is_file():
        raise ConfigError(f"output: {output} is a file, expected a folder")
    where, _ = resolve(device, "fp32")
    given = [files] if isinstance(files, (str, Path)) else list(files)
    wanted = check_methods(methods) if given else ()
    artifact = run if isinstance(run, Artifact) else load_artifact(run)
    if artifact.engine:
        raise ConfigError(f"{artifact.path} is an exported model, which has no gradients; explain the run that it came from")
    asked = _known(classes, artifact.labels)
    read = _read(artifact, given, limit=limit, recursive=recursive)
    notes = [f"{read.left_out} more files are not explained; limit is {limit}"] if read.left_out else []

    images = read.images.to(where)
    subject = prepare(artifact, images, where)
    if "gradcam" in wanted and subject.layer is None:
        wanted = tuple(m for m in wanted if m != "gradcam")
        notes.append("Grad-CAM is left out: no layer of this model holds a map over the image")
    elif "gradcam" in wanted and subject.layer is not None:
        h, w = subject.layer.grid
        notes.append(f"Grad-CAM is read from {subject.layer.name}, a map of {h} x {w}")
    with _progress("explaining", len(images) + 3) as advance:
        explained = []
        for name, image in zip(read.names, images, strict=True):
            explained.append(explain_image(subject, name, image, methods=wanted, classes=asked))
            advance()
        verdicts = judge(subject, images, explained, methods=wanted) if explained else ()
        advance()
        anatomy = _anatomy(artifact, subject.model, images, advance)
        stages = [_features(subject.model, image) for image in images]
    result = Explanation(
        run=str(artifact.path),
        methods=verdicts,
        images=tuple(explained),
        anatomy=anatomy,
        layer=subject.layer.name if subject.layer and "gradcam" in wanted else None,
        left_out=read.left_out,
        bad=read.bad,
        notes=tuple(notes),
        page=(folder or artifact.path) / f"explanation-{_name(given)}.html",
    )
    write_json(result.page.with_suffix(".json"), result.to_dict())
    write_page(result, subject.model, stages)
    return result


def _known(classes: Sequence[str], labels: tuple[str, ...]) -> tuple[str, ...]:
    asked = tuple(dict.fromkeys([classes] if isinstance(classes, str) else classes))
    for name in asked:
        if name not in labels:
            known = ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
            raise ConfigError(f"classes: the run does not know {name}{did_you_mean(name, labels)} (it knows {known})")
    return asked


def _read(artifact: Artifact, files: Sequence[str | Path], *, limit: int, recursive: bool) -> _Read:
    """At most `limit` of the files, evenly over all of them."""
    found = find_files(files, recursive=recursive) if files else []
    chosen = [found[i * len(found) // limit] for i in range(limit)] if len(found) > limit else found
    names, images, bad = [], [], []
    for name in chosen:
        try:
            images.append(artifact.preprocess.load(name))
            names.append(name)
        except BadImage as error:
            bad.append((name, error.reason))
    if files and not images:
        raise DataError(f"none of {len(bad)} files can be read; the first: {bad[0][0]}: {bad[0][1]}")
    stacked = torch.stack(images) if images else torch.empty(0, *artifact.preprocess.shape)
    return _Read(tuple(names), stacked, tuple(bad), len(found) - len(chosen))


def _anatomy(artifact: Artifact, model: nn.Module, images: Tensor, advance: Callable[[], None]) -> Anatomy:
    """What the model is made of, two steps of work."""
    watched, words = _watched(artifact, images)
    fields = receptive_fields(model, watched)
    advance()
    activations = activation_statistics(model, watched)
    advance()
    first = first_filters(model)
    return Anatomy(first[0] if first else None, tuple(depthwise_layers(model)), tuple(fields), tuple(activations), words)


def _watched(artifact: Artifact, images: Tensor) -> tuple[Tensor, str]:
    """Images to measure the model on: the given ones, else the run's validation images, else noise; and what they are, in words."""
    if len(images):
        some = images[:ANATOMY_IMAGES]
        words = "the image" if len(images) == 1 else f"the {len(some)} images" if len(some) == len(images) else f"{len(some)} of the images"
        return some, words
    try:
        some, _ = validation_images(artifact, at_most=ANATOMY_IMAGES)
        return some.to(images.device), f"{len(some)} validation images of the run"
    except (DataError, RunError):
        with seeded(images.device):
            noise = torch.randn(ANATOMY_IMAGES, *artifact.preprocess.shape)
        return noise.to(images.device), "noise, for the run's own images are not at hand"


def _features(model: nn.Module, image: Tensor) -> list[ModelStage]:
    """The stages that are drawn, for one image C,H,W."""
    with torch.no_grad():
        return [ModelStage(s.name, s.stride, s.maps.float().cpu()) for s in spread(stage_maps(model, image[None]), STAGES)]


def _name(files: Sequence[str | Path]) -> str:
    """What the files are called together: the first one's name."""
    if not files:
        return "model"
    path = Path(files[0])
    return re.sub(r"[^\w.-]+", "_", path.stem if path.suffix else path.name).strip("._-") or "images"


@contextmanager
def _progress(words: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error where that is a terminal; what it gives moves it on by one."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        line = progress.add_task(words, total=total)
        yield lambda: progress.advance(line)
