"""What was chosen before, on disk: a folder per model, sizes, precision, machine and versions.

    choices/KEY/choice.json   the report, as JSON
    choices/KEY/...           the chosen engine's own files, so that the next start need not compile

A folder is complete or not there, and one that cannot be read counts as not there. Nothing is pickled, but an engine's files hold code: the
cache is as private as the programs that use it.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convmix.cache import cache_dir
from convmix.errors import ConvmixError
from convmix.hardware import describe_machine
from convmix.speed.report import Report, Sizes

FORMAT = 3  # 1: chosen from fewer candidates; 2: of classifiers alone
MAX_CHOICES = 50  # the ones longest unused go first
_CHOICE = "choice.json"
_ENGINES = ("convmix", "torch", "openvino", "nncf", "onnxruntime")


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, threads and versions: where any of them changes, a choice is made anew."""
    return describe_machine(device) | {"versions": {name: _version(name) for name in _ENGINES}}


def key(model: nn.Module, *, sizes: Sizes, precision: str) -> str:
    """The name of the folder for this model, on the device it is on, on this machine."""
    where = machine(device_of(model))
    facts = {"format": FORMAT, "model": fingerprint(model), "sizes": sizes, "precision": precision, "machine": where}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def device_of(model: nn.Module) -> torch.device:
    return next(iter(model.state_dict().values()), torch.empty(0)).device


def fingerprint(model: nn.Module) -> str:
    """Digest of the architecture, as torch prints it, and of every weight and buffer."""
    digest = hashlib.blake2b(f"{type(model).__module__}.{type(model).__qualname__}\n{model!r}\n".encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load(name: str) -> Report | None:
    """The report in the folder `name`; None where there is none, or none that can be read."""
    try:
        path = files(name) / _CHOICE
        report = Report.from_dict(json.loads(path.read_bytes()))
        os.utime(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ConvmixError):
        return None
    return report


def files(name: str) -> Path:
    """The folder of that name; OSError where there cannot be one."""
    return cache_dir("choices") / name


@contextmanager
def workshop() -> Iterator[Path]:
    """A folder for the files of a trial, on the cache's disk where that can be written; gone afterwards."""
    try:
        made = tempfile.mkdtemp(prefix=".trial-", dir=cache_dir("choices"))
    except OSError:  # no home, read-only: the trial is still worth its while
        made = tempfile.mkdtemp(prefix="convmix-trial-")
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def save(name: str, report: Report, made: Path) -> None:
    """Keep `report` and the files in the folder `made`, which is moved; a cache that cannot be written is left alone."""
    try:
        place = files(name)
        (made / _CHOICE).write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
        old = made.with_name(f"{made.name}.old")
        if place.exists():
            place.replace(old)  # a folder cannot be replaced by another
        made.replace(place)
        shutil.rmtree(old, ignore_errors=True)
        _forget_the_oldest()
    except OSError:
        return


def _forget_the_oldest() -> None:
    used = sorted(cache_dir("choices").glob(f"*/{_CHOICE}"), key=lambda path: path.stat().st_mtime)
    for path in used[:-MAX_CHOICES]:
        shutil.rmtree(path.parent, ignore_errors=True)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
