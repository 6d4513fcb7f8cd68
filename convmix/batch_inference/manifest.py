"""What a job is, written down before it begins, so that a later process goes on with the same one or says what has changed.

_manifest.json   model, settings, digest of the division
_blocks.jsonl    the division of the input, a line per block
part-00000.parquet ...
_summary.json    when all is done
"""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from convmix.batch_inference.blocks import Block, difference, from_line, to_line
from convmix.batch_inference.storage import Folder
from convmix.errors import ConfigError

FORMAT = 1
MANIFEST, BLOCKS, SUMMARY = "_manifest.json", "_blocks.jsonl", "_summary.json"


@dataclass(frozen=True)
class Settings:
    """What a row depends on beside the image and the model, and what its partition depends on."""

    top: int
    threshold: float | None
    precision: str
    part_size: int
    image_column: str | None
    name_column: str | None


@dataclass(frozen=True)
class Manifest:
    data: str  # as the user named it
    model: str  # digest
    settings: Settings
    blocks: str  # digest of _blocks.jsonl

    @property
    def key(self) -> str:
        """Of the job: every partition carries it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


class Division:
    """Where each block's line stands in _blocks.jsonl; the lines stay on disk."""

    def __init__(self) -> None:
        self.offsets = array("Q", [0])
        self._total = hashlib.sha256()

    def add(self, line: bytes) -> None:
        self._total.update(line)
        self.offsets.append(self.offsets[-1] + len(line))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def digest(self) -> str:
        return self._total.hexdigest()

    def span(self, block: int) -> tuple[int, int]:
        return self.offsets[block], self.offsets[block + 1]


def open_job(folder: Folder, blocks: Iterable[Block], *, data: str, model: str, settings: Settings) -> tuple[Manifest, Division]:
    """The job that `folder` holds, or a new one in an empty folder.

    Raises ConfigError where the folder holds anything else, or a job with another model, other settings or another input.
    """
    names = {name for name in folder.names() if not name.startswith(".")}
    if MANIFEST in names:
        return _resumed(folder, blocks, data=data, model=model, settings=settings)
    if others := sorted(names - {BLOCKS}):  # a job that was stopped while it listed its input left that at most
        raise ConfigError(f"output: {folder} holds other things ({others[0]}); name an empty folder, or one that does not exist")
    division = Division()
    with folder.replacing(BLOCKS) as file:
        for line in map(to_line, blocks):
            file.write(line)
            division.add(line)
    manifest = Manifest(data, model, settings, division.digest)
    with folder.replacing(MANIFEST) as file:
        file.write((json.dumps({"format": FORMAT, **asdict(manifest)}, indent=2) + "\n").encode())
    return manifest, division


def _resumed(folder: Folder, blocks: Iterable[Block], *, data: str, model: str, settings: Settings) -> tuple[Manifest, Division]:
    manifest = read_manifest(folder)
    remedy = "give what it was begun with, or name another output"
    changed = [
        f"{name} was {_said(before)} and is {_said(now)}"
        for (name, before), now in zip(asdict(manifest.settings).items(), asdict(settings).values(), strict=True)
        if before != now
    ]
    if manifest.data != data:
        changed.insert(0, f"the input was {manifest.data} and is {data}")
    if changed:
        raise ConfigError(f"output: {folder} holds a job with other settings: {'; '.join(changed)}; {remedy}")
    if manifest.model != model:
        raise ConfigError(f"output: {folder} holds a job with another model, or the model was trained or calibrated since; {remedy}")
    division = Division()
    with folder.open(BLOCKS) as file:
        for line, block in zip_longest(file, blocks):
            if block is None or line is None or line != to_line(block):
                what = difference(from_line(line) if line else None, block)
                raise ConfigError(f"output: {folder} holds a job whose input has changed: {what}; {remedy}")
            division.add(line)
    return manifest, division


def read_manifest(folder: Folder) -> Manifest:
    """ConfigError where it cannot be read."""
    try:
        value: dict[str, Any] = json.loads(folder.read(MANIFEST))
        if value.pop("format") != FORMAT:
            raise ValueError("of another version of convmix")
        return Manifest(**{**value, "settings": Settings(**value["settings"])})
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"output: {folder}/{MANIFEST} does not describe a job ({error}); name another output") from None


def read_block(folder: Folder, span: tuple[int, int]) -> Block:
    return from_line(folder.read(BLOCKS, *span))


def numbers_of_parts(names: Iterable[str]) -> Iterator[int]:
    """part-00012.parquet -> 12, of every partition among `names`."""
    for name in names:
        stem, _, suffix = name.partition(".")
        if stem.startswith("part-") and suffix == "parquet" and stem[5:].isdigit():
            yield int(stem[5:])


def _said(value: object) -> str:
    return "left out" if value is None else str(value)
