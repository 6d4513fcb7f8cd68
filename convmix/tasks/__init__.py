"""What differs between classification, detection and segmentation: head, loss, decoding, metric."""

from importlib import import_module

from convmix.errors import RunError, did_you_mean
from convmix.tasks.base import Task
from convmix.tasks.label_calibration import AnyCalibration

_HOME = {  # imported when somebody has the task: detectors bring torchvision and timm, which take seconds
    "classify": ("convmix.tasks.classify", "Classify"),
    "multilabel": ("convmix.tasks.multilabel", "Multilabel"),
    "detect": ("convmix.tasks.detect", "Detect"),
    "instances": ("convmix.tasks.detect", "Instances"),
    "segment": ("convmix.tasks.segment", "Segment"),
}
TASKS = tuple(_HOME)


def task_class(name: str) -> type[Task]:
    """The task of this name; RunError where this version of convmix does not know it."""
    if name not in _HOME:
        raise RunError(f"unknown task {name[:60]}{did_you_mean(name, TASKS)} (tasks: {', '.join(TASKS)})")
    file, task = _HOME[name]
    found: type[Task] = getattr(import_module(file), task)
    return found


def create_task(name: str, labels: tuple[str, ...], calibration: AnyCalibration | None = None) -> Task:
    """The task that a model directory names, with its calibration; RunError where this version of convmix does not know it."""
    return task_class(name)(labels, calibration)
