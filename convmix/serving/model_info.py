"""What GET /v1/model says of the model that is served."""

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from convmix.artifacts.artifact import Artifact
from convmix.explanation.methods import NAMES
from convmix.models.neighbours import Neighbours
from convmix.plots.overlay import palette
from convmix.serving.limits import RequestLimits
from convmix.tasks import create_task

_PROGRAMS = ("convmix", "torch", "onnxruntime", "openvino")


@dataclass(frozen=True)
class ModelFacts:
    """A model without its network: the front process answers for it and computes nothing."""

    name: str
    task: str
    labels: tuple[str, ...]
    methods: tuple[str, ...]  # of explanation; none where an exported model runs
    answer: dict[str, Any]  # the body of GET /v1/model


def model_facts(artifact: Artifact, limits: RequestLimits, *, known: Neighbours | None = None) -> ModelFacts:
    """Read once, when the server starts. known: the training images that answers are compared with."""
    info, place = artifact.info, artifact.path.resolve()
    name = (place if place.is_dir() else place.parent).name  # a name and no path
    channels, height, width = artifact.preprocess.shape
    methods = NAMES if artifact.engine is None else ()
    threshold = artifact.calibration.threshold if artifact.calibration else None
    thresholds = create_task(artifact.task, artifact.labels, artifact.calibration).thresholds_by_label()
    answer = {
        "name": name,
        "task": artifact.task,
        "architecture": info.get("model"),
        "labels": list(artifact.labels),
        "palette": [list(colour) for colour in palette(len(artifact.labels))],
        "input": {"height": height, "width": width, "channels": channels},
        "metrics": info.get("metrics") or {},
        "calibration": artifact.calibration.to_dict() if artifact.calibration else None,
        "threshold": threshold,
        "thresholds": thresholds,
        "training_images": None
        if known is None
        else {"count": len(known.labels), "threshold": known.threshold, "named": bool(known.names)},
        "explanations": list(methods),
        "limits": asdict(limits),
        "versions": {"python": platform.python_version()} | {name: said for name in _PROGRAMS if (said := _version(name))},
        "engine": artifact.engine or "pytorch",
        "card": _card(place),
    }
    return ModelFacts(name, artifact.task, artifact.labels, methods, answer)


def _card(place: Path) -> str:
    file = (place if place.is_dir() else place.parent) / "README.md"
    return file.read_text("utf-8", "replace") if file.is_file() else ""


def _version(program: str) -> str | None:
    try:
        return version(program)
    except PackageNotFoundError:
        return None
