"""A run leaves as a model file of another engine: traced, written, verified against the run, and only then put into its place.

run -> Graph -> trace -> draft -> a folder nobody sees -> read back -> verify -> description -> the folder in its place
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.export import ExportedProgram

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.artifacts.runtime.description import BAKES, ENGINES, FILE, PRECISIONS, ExportDescription
from convmix.artifacts.runtime.digests import SUMS, write_digests
from convmix.artifacts.runtime.network import ExportedNetwork
from convmix.artifacts.runtime.pixels import Pixels, WholePixels
from convmix.artifacts.runtime.sessions import PACKAGE
from convmix.atomic import write_bytes, write_tensors
from convmix.data.decode import MODES
from convmix.data.loaders import eval_batches
from convmix.errors import ConfigError, DataError, did_you_mean
from convmix.exporting import torch_program
from convmix.exporting.graph import Graph, trace
from convmix.exporting.onnx_file import OnnxDraft
from convmix.exporting.openvino_file import OpenvinoDraft
from convmix.exporting.probe_images import ProbeImages, specimens
from convmix.exporting.script import FILE as SCRIPT
from convmix.exporting.script import script
from convmix.exporting.torch_program import ProgramDraft
from convmix.exporting.verification import Verification, verify
from convmix.models.features import classifier_layers
from convmix.models.neighbours import FACT, Neighbours, read_neighbours
from convmix.models.neighbours import FILE as NEIGHBOURS
from convmix.tasks import create_task

SIZES = ("auto", "fixed", "dynamic")
FEWEST = 10  # validation images for int8
_CAN = {"onnx": ("fp32", "fp16", "int8"), "openvino": ("fp32", "bf16", "fp16", "int8"), "torch": ("fp32", "bf16", "fp16")}
_CANNOT = {
    ("onnx", "bf16"): "onnxruntime has no bf16 convolutions on a CPU; take fp16, or openvino in bf16",
    ("torch", "int8"): "torch.export programs are not quantised here; take bf16, or onnx or openvino in int8",
}
_PACKAGES = ("convmix", "torch", "onnx", "onnxruntime", "openvino", "nncf", "pillow")
_FACTS = ("finished", "model", "run", "data", "metrics", "training", "machine", "versions")


_OURS = ("model.onnx", "model.xml", "model.bin", "model.pt2", PACKAGE, FILE, SCRIPT, NEIGHBOURS, SUMS, "__pycache__", "evaluation-*")


class Draft(Protocol):
    """A model of one format in memory."""

    @property
    def file(self) -> str: ...

    def write(self, folder: Path, description: ExportDescription) -> None: ...


_DRAFTS: dict[str, Callable[..., Draft]] = {"onnx": OnnxDraft, "openvino": OpenvinoDraft, "torch": ProgramDraft}


@dataclass(frozen=True)
class Export:
    """What was written."""

    path: Path  # the folder; `load_artifact` takes it
    description: ExportDescription
    verification: Verification
    notes: tuple[str, ...]  # what the user should know


def export(
    run: str | Path | Artifact,
    format: str,
    *,
    precision: str = "fp32",
    bake: str = "resize",
    size: str = "auto",
    output: str | Path | None = None,
) -> Export:
    """Write a trained model for another engine, verified against the run first.

    format: onnx, openvino or torch.
    precision: fp32, bf16, fp16 or int8, as far as the engine has it; int8 takes its value ranges from the run's validation images.
    bake: how much of the preprocessing goes into the graph: none (normalised N,C,h,w in), normalise (pixels N,h,w,C in) or resize (whole
    images N,H,W,C of any size in).
    size: fixed (the run's own), dynamic, or auto: dynamic where the network can be; of the input without resizing, which takes any size.
    output: the folder (None: export/FORMAT-PRECISION in the run).

    The number of images is free. Raises ConfigError for what an engine cannot do and for an output that is no export,
    VerificationError where the answers are not the run's: nothing is written then.
    """
    check(format, precision=precision, bake=bake, size=size)
    artifact = run if isinstance(run, Artifact) else load_artifact(run)
    if artifact.engine:
        raise ConfigError(f"{artifact.path} is exported already, for {artifact.engine}; name the model directory that it came from")
    place = Path(output) if output is not None else artifact.path / "export" / f"{format}-{precision}"
    check_place(place)
    some, note = specimens(artifact)
    if precision == "int8" and (some.are_generated or len(some) < FEWEST):
        raise DataError(f"int8 takes its value ranges from at least {FEWEST} validation images: {note or f'there are {len(some)}'}")
    known = _known_images(artifact, precision)
    program, dynamic, outputs = _traced(artifact, format, precision=precision, bake=bake, size=size, features=known is not None)
    described = ExportDescription(
        engine=format, file="", task=artifact.task, labels=artifact.labels, preprocess=artifact.preprocess, bake=bake,
        is_8bit=artifact.preprocess.in_chans in MODES, dynamic=dynamic, outputs=outputs, precision=precision,
        calibration=artifact.calibration, facts=_facts(artifact, known),
        source=_way(place, artifact.path), versions=_versions(),
    )  # fmt: skip
    calibration = _calibration(described, some) if precision == "int8" else []
    draft = _DRAFTS[format](program, outputs=outputs, precision=precision, calibration=calibration)
    described = replace(described, file=draft.file)
    with _taking_the_place_of(place) as folder:
        found, notes = _verified(draft, program, described, folder, artifact, some, note)
        described = replace(described, verification=found.to_dict())
        _write(draft, folder, described)
        if known is not None:
            write_tensors(folder / NEIGHBOURS, *known.nameless().tensors())
        write_bytes(folder / SUMS, write_digests(folder))
    return Export(place, described, found, tuple(notes))


def check(format: str, *, precision: str, bake: str, size: str) -> None:
    """ConfigError for what does not exist or what the engine cannot do, before anything is computed."""
    for name, value, choices in (
        ("format", format, ENGINES), ("precision", precision, PRECISIONS), ("bake", bake, BAKES), ("size", size, SIZES),
    ):  # fmt: skip
        if value not in choices:
            raise ConfigError(f"{name}: {value} is not one of {', '.join(choices)}{did_you_mean(value, choices)}")
    if precision not in _CAN[format]:
        raise ConfigError(f"precision: {_CANNOT[format, precision]}")
    if bake == "resize" and size == "fixed":
        raise ConfigError("size: a graph that resizes takes images of any size; leave size out, or bake none or normalise")


def check_place(place: Path) -> None:
    """ConfigError for a path that holds something else than an export."""
    foreign = [file.name for file in place.iterdir() if not is_ours(file.name)] if place.is_dir() else []
    if foreign:
        raise ConfigError(f"output: {place} holds {foreign[0]}, which is not part of an export, and would be replaced; name another folder")
    if place.exists() and not place.is_dir():
        raise ConfigError(f"output: {place} is a file; name a folder")


def is_ours(name: str) -> bool:
    """Whether a file of this name is what `export`, or `evaluate` of an export, writes."""
    return any(fnmatch(name, pattern) for pattern in _OURS)


def _known_images(artifact: Artifact, precision: str) -> Neighbours | None:
    """The training images that the run knows, where the export can say how like them an image is: int8's features are too coarse."""
    return read_neighbours(artifact.path) if precision != "int8" and classifier_layers(artifact.model) else None


def _facts(artifact: Artifact, known: Neighbours | None) -> dict[str, Any]:
    facts = {key: artifact.info[key] for key in _FACTS if key in artifact.info}
    return facts if known is None else {**facts, FACT: known.weights}


def _traced(
    artifact: Artifact, format: str, *, precision: str, bake: str, size: str, features: bool
) -> tuple[ExportedProgram, tuple[str, ...], tuple[str, ...]]:
    """The trace, what may change from call to call, and the names of the outputs."""
    weights = precision if format == "torch" or (format, precision) == ("onnx", "fp16") else "fp32"
    task = create_task(artifact.task, artifact.labels, artifact.calibration)
    graph = Graph(task, artifact.model.cpu(), artifact.preprocess, bake=bake, weights=weights, features=features).eval()
    everything, batch = ("batch", "height", "width"), ("batch",)
    dynamic = batch if size == "fixed" else everything
    try:
        program = trace(graph, artifact.preprocess, bake=bake, dynamic=dynamic)
    except ConfigError:
        if size != "auto":
            raise
        dynamic = batch
        program = trace(graph, artifact.preprocess, bake=bake, dynamic=dynamic)
    with torch.no_grad():
        found = program.module()(*program.example_inputs[0])
    return program, dynamic, tuple(found)


def _verified(
    draft: Draft,
    program: ExportedProgram,
    described: ExportDescription,
    folder: Path,
    artifact: Artifact,
    some: ProbeImages,
    note: str | None,
) -> tuple[Verification, list[str]]:
    """What was found of the model as it is read back from the folder, and of the compiled package where there is one."""
    notes = [] if note is None else [f"compared on generated images, for {note}"]
    _write(draft, folder, described)
    means: dict[str, Any] = {"precision": described.precision, "bake": described.bake, "dynamic": described.dynamic, "note": note}
    found = verify(artifact, load_artifact(folder), some, **means)
    if described.engine == "torch":
        if torch_program.has_compiler():
            torch_program.write_package(folder, program)
            verify(artifact, load_artifact(folder / PACKAGE), some, **means)
        else:
            notes.append(f"there is no C++ compiler here, so {PACKAGE} is not made; the program model.pt2 needs none")
    return found, notes


def _write(draft: Draft, folder: Path, described: ExportDescription) -> None:
    draft.write(folder, described)
    write_bytes(folder / FILE, described.to_json().encode())
    write_bytes(folder / SCRIPT, script(described).encode())


@contextmanager
def _taking_the_place_of(place: Path) -> Iterator[Path]:
    """A folder to write into, that takes the place of an older export at the end; after an error everything is as before."""
    place.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
    try:
        yield folder
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)  # mkdtemp's 0700 would hide it from colleagues
        if place.exists():
            old = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
            place.replace(old)
            folder.replace(place)
            shutil.rmtree(old)
        else:
            folder.replace(place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _calibration(described: ExportDescription, some: ProbeImages) -> list[np.ndarray]:
    """The validation images as the graph takes them, one by one."""
    network = ExportedNetwork(described, lambda images: {})
    preprocess = {"none": described.preprocess, "normalise": Pixels.of(described.preprocess)}.get(
        described.bake, WholePixels.of(described.preprocess)
    )
    loads = create_task(described.task, described.labels).preprocessing(preprocess)
    return [network.as_taken(batch.images) for batch in eval_batches(some, loads, batch_size=1, workers=0) if len(batch)]


def _way(place: Path, run: Path) -> str | None:
    """From the export to the run, where the one lies in the other: such a path survives a move of both."""
    inside = place.resolve().is_relative_to(run.resolve())
    return os.path.relpath(run.resolve(), place.resolve()) if inside else None


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
