"""A model as bytes, so that every worker has it without a shared disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from convmix.artifacts.artifact import Artifact, load_artifact

_MODEL_DIRECTORY = ("config.json", "convmix.json", "model.safetensors")  # what answers depend on
_FOR_PEOPLE = frozenset((".csv", ".png", ".html", ".md", ".py"))  # beside an exported model


@dataclass(frozen=True)
class PackedModel:
    """The files of a model directory that answers depend on."""

    files: tuple[tuple[str, bytes], ...]  # path below the directory, contents
    main: str  # what to load, below the directory

    @property
    def digest(self) -> str:
        """Of all of it: another one where an answer may be another."""
        total = hashlib.sha256(self.main.encode())
        for name, content in self.files:
            total.update(f"\0{name}\0{len(content)}\0".encode() + content)
        return total.hexdigest()

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(len(content) for _, content in self.files)

    def unpack(self, folder: Path) -> Artifact:
        """Written below `folder` and loaded from there."""
        for name, content in self.files:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return load_artifact(folder / self.main)


def pack(artifact: Artifact, path: str | Path) -> PackedModel:
    """What `artifact` was loaded from: `path` is a model directory, an exported model, or the main file in it."""
    place = Path(path)
    folder, main = (place, ".") if place.is_dir() else (place.parent, place.name)
    if artifact.engine is None:
        files = [folder / name for name in _MODEL_DIRECTORY]
    else:
        files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix.lower() not in _FOR_PEOPLE]
    return PackedModel(tuple((file.relative_to(folder).as_posix(), file.read_bytes()) for file in files), main)
