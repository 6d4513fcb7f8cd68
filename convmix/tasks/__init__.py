"""The tasks, by the name that a model directory stores."""

from convmix.calibration import Calibration
from convmix.errors import RunError, did_you_mean
from convmix.tasks.base import Task
from convmix.tasks.classify import Classify
from convmix.tasks.detect import Detect, Instances
from convmix.tasks.segment import Segment

TASKS: dict[str, type[Task]] = {task.name: task for task in (Classify, Detect, Instances, Segment)}


def task_class(name: str) -> type[Task]:
    """The task of this name; RunError where this version of convmix does not know it."""
    if name not in TASKS:
        raise RunError(f"unknown task {name}{did_you_mean(name, TASKS)} (tasks: {', '.join(TASKS)})")
    return TASKS[name]


def create_task(name: str, labels: tuple[str, ...], calibration: Calibration | None = None) -> Task:
    """The task that a model directory names, with its calibration; RunError where this version of convmix does not know it."""
    return task_class(name)(labels, calibration)
