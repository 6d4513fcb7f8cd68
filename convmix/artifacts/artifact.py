"""The model directory: weights, labels, preprocessing, metrics and provenance, as safetensors and JSON only.

    model.safetensors  weights, nothing that can execute
    config.json        timm's and the Hub's: architecture, its arguments, input size, mean, std, label names
    convmix.json       task, labels, geometry, calibration, metrics with intervals, the recipe as resolved, data fingerprint, versions
    splits.csv, bad_images.csv, curves.csv, curves.png, README.md, state/

Every file is written beside its place and then moved there, so a killed process leaves the last good one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from convmix.artifacts.runtime.exported import is_exported, read_exported
from convmix.atomic import write_json, write_tensors
from convmix.config import Dense, from_dict
from convmix.data.preprocessing import Preprocess
from convmix.documents import checked, read_object
from convmix.errors import ConfigError, ConvmixError, RunError, first_line
from convmix.models.stored import Network, described_network, header_of, refuse_other_weights
from convmix.tasks import create_task, task_class
from convmix.tasks.base import Task
from convmix.tasks.label_calibration import AnyCalibration

FORMAT = 1
LARGEST_SIDE = 2**14  # pixels of a model's input
_KINDS: dict[str, Any] = {  # of what convmix.json may hold beside the network: read by evaluation, the card and the server
    "finished": bool, "model": str, "run": dict[str, Any], "data": dict[str, Any], "metrics": dict[str, dict[str, Any]],
    "training": dict[str, Any], "machine": dict[str, Any], "versions": dict[str, str],
}  # fmt: skip
_KINDS_OF_DATA: dict[str, Any] = {
    "spec": str, "fingerprint": str, "origin": dict[str, str], "counts": dict[str, int], "bad": int, "notes": list[str],
}  # fmt: skip


@dataclass
class Artifact:
    """A loaded model directory."""

    path: Path
    model: nn.Module  # in eval mode, on the CPU
    task: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    info: dict[str, Any]  # convmix.json
    calibration: AnyCalibration | None = None  # None: probabilities are the softmax of the outputs, and every answer is sure
    engine: str | None = None  # what runs an exported model: onnx, openvino or torch; None: PyTorch, from a model directory
    batch_size: int | None = None  # images that `model` takes at once; None: any number, 1: whole images, each of its own size

    def batch(self, wanted: int) -> int:
        """How many images to give it at once, where so many are wanted."""
        return wanted if self.batch_size is None else min(wanted, self.batch_size)


def save_artifact(path: Path, *, model: nn.Module, task: Task, preprocess: Preprocess, info: dict[str, Any]) -> None:
    """Write the weights and both descriptions; `info` is what convmix.json holds beside task, labels and preprocessing."""
    save_weights(path, model)
    save_description(path, model=model, task=task, preprocess=preprocess, info=info)


def save_weights(path: Path, model: nn.Module) -> None:
    """Replace model.safetensors."""
    write_tensors(path / "model.safetensors", {name: t.contiguous() for name, t in model.state_dict().items()}, {"format": "pt"})


def save_description(path: Path, *, model: nn.Module, task: Task, preprocess: Preprocess, info: dict[str, Any]) -> None:
    """Replace config.json and convmix.json."""
    architecture, model_args = task.architecture(model)
    labels = task.labels
    h, w = preprocess.size
    published: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    for_timm: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": len(labels),
        "num_features": model.num_features,
        "model_args": {k: v for k, v in model_args.items() if k != "num_classes"},  # said above; transformers takes it once
        "label_names": list(labels),
        "pretrained_cfg": {
            "input_size": [preprocess.in_chans, h, w],
            "fixed_input_size": False,
            "interpolation": preprocess.interpolation,
            "crop_pct": preprocess.crop_pct if preprocess.fit == "crop" else 1.0,  # timm would enlarge and cut off the border
            "crop_mode": {"crop": "center", "letterbox": "border", "stretch": "squash"}[preprocess.fit],
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "num_classes": len(labels),
            **{k: published[k] for k in ("first_conv", "classifier") if k in published},
        },
    }
    write_json(path / "config.json", for_timm)
    described = {"format": FORMAT, "task": task.name, "labels": list(labels), "preprocess": preprocess.to_dict(), **info}
    write_json(path / "convmix.json", described)


def save_calibration(path: Path, calibration: AnyCalibration) -> None:
    """Replace the calibration in convmix.json and leave the rest of the directory as it is."""
    write_json(path / "convmix.json", {**_read_json(path, "convmix.json"), "calibration": calibration.to_dict()})


def load_artifact(path: str | Path) -> Artifact:
    """Read a model directory, or an exported model: its folder, or the file in it. RunError names what is missing or does not fit."""
    path = Path(path)
    if is_exported(path):
        return _load_exported(path)
    if not path.is_dir():
        raise RunError(f"{path} is not a model directory: there is no such folder; `convmix train` makes one")
    info, config = _read_json(path, "convmix.json"), _read_json(path, "config.json")
    where = path / "convmix.json"
    if info.get("format") != FORMAT:
        raise RunError(f"{where}: format {str(info.get('format'))[:60]}, this version of convmix reads {FORMAT}")
    described = _described(info, where=str(where))
    network = described_network(config, where=str(path / "config.json"))
    own = {k: v for k, v in network.model_args.items() if k not in ("num_classes", "in_chans")}
    task = create_task(described.task, described.labels)

    def build() -> nn.Module:
        return task.build(network.architecture, in_chans=described.preprocess.in_chans, dense=described.dense, model_args=own)

    model = _filled(path, network, build)
    return Artifact(path, model.eval(), described.task, described.labels, described.preprocess, info, described.calibration)


@dataclass(frozen=True)
class _Described:
    """What convmix.json says of a model, each value of its type."""

    task: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    dense: Dense
    calibration: AnyCalibration | None


def _described(info: dict[str, Any], *, where: str) -> _Described:
    for key in ("task", "labels", "preprocess"):
        if key not in info:
            raise RunError(f"{where} has no {key}; expected what `convmix train` wrote")
    for key, kind in _KINDS.items():
        if info.get(key) is not None:
            checked(info[key], kind, where=f"{where}: {key}")
    for key, kind in _KINDS_OF_DATA.items():
        if key in (info.get("data") or {}):
            checked(info["data"][key], kind, where=f"{where}: data.{key}")
    labels = checked(info["labels"], tuple[str, ...], where=f"{where}: labels")
    if not labels or len(set(labels)) < len(labels):
        raise RunError(f"{where}: labels: {'none' if not labels else 'one is there twice'}, expected the names of the classes")
    try:
        preprocess = Preprocess.from_dict(checked(info["preprocess"], dict[str, Any], where="preprocess"))
        dense = from_dict({"dense": checked((info.get("run") or {}).get("dense", {}), dict[str, Any], where="run.dense")}).dense
    except (ConfigError, RunError, TypeError) as error:
        raise RunError(f"{where} does not describe a model: {str(error)[:300]}") from None
    task = checked(info["task"], str, where=f"{where}: task")
    try:
        calibration = task_class(task).read_calibration(info["calibration"]) if "calibration" in info else None
    except RunError as error:
        raise RunError(f"{where}: {str(error)[:300]}") from None
    if max(preprocess.size) > LARGEST_SIDE:
        raise RunError(f"{where}: preprocess.size: {preprocess.size} is too large, expected at most {LARGEST_SIDE} pixels")
    return _Described(task, labels, preprocess, dense, calibration)


def _filled(path: Path, network: Network, build: Callable[[], nn.Module]) -> nn.Module:
    """The network with its weights, whose shapes are looked at first: what a description asks for may be larger than the memory."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights = path / "model.safetensors"
    try:
        refuse_other_weights(network, build, header_of(weights), weights=weights, config=path / "config.json")
        model = _built(build, path / "config.json")
        model.load_state_dict(load_file(weights))
    except FileNotFoundError:
        raise RunError(f"{path} has no model.safetensors; the training stopped before its first save, run it again") from None
    except (SafetensorError, RuntimeError, OSError) as error:
        raise RunError(f"{weights} cannot be read: {first_line(error)}") from None
    return model


def _built(build: Callable[[], nn.Module], config: Path) -> nn.Module:
    try:
        return build()
    except ConvmixError as error:
        raise RunError(f"{config}: {error}") from None
    except Exception as error:  # arguments of the wrong kind: a constructor may raise anything
        raise RunError(f"{config} does not describe a network: {first_line(error, 200)}") from None


def _load_exported(path: Path) -> Artifact:
    """An exported model, which runs in the engine that it was made for."""
    found = read_exported(path)
    d = found.description
    return Artifact(
        found.folder,
        found.network,
        d.task,
        d.labels,
        found.preprocess,
        d.facts,
        d.calibration,
        engine=d.engine,
        batch_size=found.batch_size,
    )


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        return read_object(path / name)
    except FileNotFoundError:
        raise RunError(f"{path} is not a model directory: it has no {name}; expected a folder that `convmix train` made") from None
