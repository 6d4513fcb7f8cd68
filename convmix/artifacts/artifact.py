"""The model directory: weights, labels, preprocessing, metrics and provenance, as safetensors and JSON only.

    model.safetensors  weights, nothing that can execute
    config.json        timm's and the Hub's: architecture, its arguments, input size, mean, std, label names
    convmix.json       task, labels, geometry, calibration, metrics with intervals, the recipe as resolved, data fingerprint, versions
    splits.csv, bad_images.csv, curves.csv, curves.png, README.md, state/

Every file is written beside its place and then moved there, so a killed process leaves the last good one.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from convmix.artifacts.runtime.exported import is_exported, read_exported
from convmix.atomic import write_json, write_tensors
from convmix.config import Dense
from convmix.data.preprocessing import Preprocess
from convmix.errors import ConfigError, RunError, first_line
from convmix.metrics.calibration import Calibration
from convmix.tasks import create_task
from convmix.tasks.base import Task

FORMAT = 1


@dataclass
class Artifact:
    """A loaded model directory."""

    path: Path
    model: nn.Module  # in eval mode, on the CPU
    task: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    info: dict[str, Any]  # convmix.json
    calibration: Calibration | None = None  # None: probabilities are the softmax of the outputs, and every answer is sure
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
        "model_args": model_args,
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


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Replace the calibration in convmix.json and leave the rest of the directory as it is."""
    write_json(path / "convmix.json", {**_read_json(path, "convmix.json"), "calibration": calibration.to_dict()})


def load_artifact(path: str | Path) -> Artifact:
    """Read a model directory, or an exported model: its folder, or the file in it. RunError names what is missing or does not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if is_exported(path):
        return _load_exported(path)
    if not path.is_dir():
        raise RunError(f"{path} is no model directory: there is no such folder; `convmix train` makes one")
    info, network = _read_json(path, "convmix.json"), _read_json(path, "config.json")
    if info.get("format") != FORMAT:
        raise RunError(f"{path / 'convmix.json'}: format {info.get('format')}, this version of convmix reads {FORMAT}")
    try:
        task, labels, preprocess = info["task"], tuple(info["labels"]), Preprocess.from_dict(info["preprocess"])
    except KeyError as error:
        raise RunError(f"{path / 'convmix.json'} has no {error.args[0]}; expected what `convmix train` wrote") from None
    except (ConfigError, TypeError) as error:
        raise RunError(f"{path / 'convmix.json'} does not describe a model: {error}") from None
    try:
        calibration = Calibration.from_dict(info["calibration"]) if "calibration" in info else None
    except RunError as error:
        raise RunError(f"{path / 'convmix.json'}: {error}") from None
    try:
        architecture, model_args = network["architecture"], network["model_args"]
    except KeyError as error:
        raise RunError(f"{path / 'config.json'} has no {error.args[0]}; expected what `convmix train` wrote") from None
    try:
        dense = Dense(**(info.get("run") or {}).get("dense", {}))
    except TypeError as error:
        raise RunError(f"{path / 'convmix.json'}: run.dense does not describe heads: {error}") from None
    own = {k: v for k, v in model_args.items() if k not in ("num_classes", "in_chans")}
    model = create_task(task, labels).build(architecture, in_chans=preprocess.in_chans, dense=dense, model_args=own)
    weights = path / "model.safetensors"
    try:
        model.load_state_dict(load_file(weights))
    except FileNotFoundError:
        raise RunError(f"{path} has no model.safetensors; the training stopped before its first save, run it again") from None
    except (SafetensorError, RuntimeError, OSError) as error:
        raise RunError(f"{weights} cannot be read: {first_line(error)}") from None
    return Artifact(path, model.eval(), task, labels, preprocess, info, calibration)


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
        value = json.loads((path / name).read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path} is no model directory: it has no {name}; expected a folder that `convmix train` made") from None
    except ValueError as error:
        raise RunError(f"{path / name} is no valid JSON: {error}") from None
    except OSError as error:
        raise RunError(f"{path / name} cannot be read: {error.strerror}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path / name} does not describe a model: it holds a {type(value).__name__}, expected an object")
    return value
