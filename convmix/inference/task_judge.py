"""Whether a faster engine still answers as the network does, as the run's task understands answers; and the images to ask on.

the run's validation images -> outputs -> the task's answers -> how many are others, and the task's own score
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from convmix.artifacts.artifact import Artifact
from convmix.artifacts.provenance import validation_examples
from convmix.artifacts.renumbering import Renumbered, columns
from convmix.config import Size
from convmix.data.loaders import eval_batches
from convmix.inference.batches import joined
from convmix.metrics.resampling import Score
from convmix.speed.backends import Finish, Outputs, as_tuple
from convmix.tasks import create_task
from convmix.tasks.agreement import agreement, together
from convmix.tasks.base import Task

AT_ONCE = 16  # images whose outputs become answers at a time: a detector's regions take much memory


class TaskJudge:
    """`speed.check.Judge` of a task, for n images of one size with their targets."""

    def __init__(self, task: Task, targets: Any, size: Size, finish: Finish | None) -> None:
        self.task, self.targets, self.size, self.finish = task, targets, size, finish

    @property
    def title(self) -> str:
        return self.task.score_title

    def answers(self, outputs: Outputs) -> Any:
        """As `Task.observe` keeps them."""
        several = as_tuple(outputs)
        kept = []
        with torch.inference_mode():
            for at in range(0, len(several[0]), AT_ONCE):
                parts = tuple(output[at : at + AT_ONCE] for output in several)
                some: Any = parts[0] if isinstance(outputs, Tensor) else parts
                finished = some if self.finish is None else self.finish(some, self.size)
                kept.append(self.task.observe(finished, self.targets[at : at + AT_ONCE]))
        return joined(kept)

    def changed(self, before: Any, after: Any) -> tuple[int, int]:
        pairs = zip(self._each(before), self._each(after), strict=True)
        found = together([agreement(one, other) for one, other in pairs])
        return round(found.compared - found.agreed), found.compared

    def score(self, answers: Any) -> Score | None:
        metrics = self.task.metrics(answers, self.targets, intervals=False)
        value, ends = metrics[self.task.score_name], metrics.get(f"{self.task.score_name}_interval")
        return None if value is None else Score(float(value), None if ends is None else (float(ends[0]), float(ends[1])))

    def _each(self, answers: Any) -> Sequence[Any]:
        decoded = self.task.everything(answers)  # however unsure: what one of the two leaves out must not look like a difference
        return decoded if isinstance(decoded, list) else [decoded]


def validation_images(artifact: Artifact, *, at_most: int) -> tuple[Tensor, Any]:
    """Images of the run's validation split, evenly over it, as the model gets them: n,C,H,W; and what the task scores them against.

    Errors as of `provenance.validation_examples`, and DataError for classes that the run does not know.
    """
    images, targets = [], []
    loads = create_task(artifact.task, artifact.labels).preprocessing(artifact.preprocess)
    for part in validation_examples(artifact, at_most=at_most):
        column_of = columns(part.classes, artifact.labels, "the validation images", used=part.labels.tolist())
        for batch in eval_batches(Renumbered(part, column_of, len(artifact.labels)), loads, batch_size=64):
            if len(batch.images):
                images.append(batch.images)
                targets.append(batch.targets)
    return torch.cat(images), joined(targets)
