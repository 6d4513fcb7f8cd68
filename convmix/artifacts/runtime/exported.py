"""A folder that `convmix export` made, or the model file in it, opened.

read_exported(path) -> Exported(folder, description, network, preprocess, batch_size)
"""

from dataclasses import dataclass
from pathlib import Path

from convmix.artifacts.runtime.description import FILE, ExportDescription
from convmix.artifacts.runtime.digests import check_digests
from convmix.artifacts.runtime.network import ExportedNetwork
from convmix.artifacts.runtime.pixels import Pixels, WholePixels
from convmix.artifacts.runtime.sessions import PACKAGE, SUFFIXES, inside, open_session
from convmix.data.preprocessing import Preprocess
from convmix.documents import read_file
from convmix.errors import RunError


@dataclass(frozen=True)
class Exported:
    """An exported model, ready to run."""

    folder: Path
    description: ExportDescription
    network: ExportedNetwork
    preprocess: Preprocess  # what the pipeline does in front of it
    batch_size: int | None  # that the pipeline may give it; None: any, 1: whole images, each of its own size


def is_exported(path: Path) -> bool:
    """Whether the path is such a folder, or a model file."""
    return (path / FILE).is_file() or (path.is_file() and path.suffix in SUFFIXES)


def read_exported(path: Path) -> Exported:
    """Open it; RunError for what is missing, changed or of another version, UnavailableError where its engine is not installed."""
    description, file = read_description(path)
    network = ExportedNetwork(description, open_session(file, description))
    preprocess = {"none": description.preprocess, "normalise": Pixels.of(description.preprocess)}.get(
        description.bake, WholePixels.of(description.preprocess)
    )
    return Exported(file.parent, description, network.eval(), preprocess, 1 if description.bake == "resize" else None)


def read_description(path: Path) -> tuple[ExportDescription, Path]:
    """What the model says of itself, and the file to open: where both are there, model.json must be what is inside the model."""
    folder = path if path.is_dir() else path.parent
    beside = folder / FILE
    described = ExportDescription.from_json(read_file(beside), where=str(beside)) if beside.is_file() else None
    file = folder / described.file if path.is_dir() and described else path
    if not file.is_file():
        raise RunError(f"{folder} has no {file.name}, which its {FILE} names; export the model again")
    check_digests(folder, file)
    if file.name == PACKAGE:  # compiled code, which holds no description
        if described is None:
            raise RunError(f"{file} needs the {FILE} that `convmix export` wrote beside it")
        return described, file
    text = inside(file)
    if text is None:
        raise RunError(f"{file} holds no description of convmix; expected a model that `convmix export` wrote")
    held = ExportDescription.from_json(text, where=f"the description in {file}")
    if described is not None and described != held:
        raise RunError(f"{beside} is not what {file.name} says of itself; one of the two was changed, export the model again")
    return held, file
