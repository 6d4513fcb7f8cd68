"""The model under examination, and what it is asked: the maps of an image, and whether a method's maps are worth anything."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from convmix.artifacts.artifact import Artifact
from convmix.errors import RunError
from convmix.explanation import trust
from convmix.explanation.attribution import attribute
from convmix.explanation.explanation_result import ExplainedImage, Map, MethodVerdict
from convmix.explanation.hooked_copy import randomised, specimen
from convmix.explanation.stages import Layer, map_layer
from convmix.tasks import create_task
from convmix.tasks.base import Task

SHUFFLED_IMAGES = 4  # whose maps are compared with those of the model with shuffled weights, at most


@dataclass(frozen=True)
class Subject:
    """A copy of a run's model with what the maps need to know of the run."""

    artifact: Artifact
    model: nn.Module  # a specimen
    task: Task
    layer: Layer | None  # where class activation maps are read; None: nowhere in this model, or nothing was asked

    def probabilities(self, images: Tensor) -> Tensor:
        """Images N,C,H,W -> N,k on the CPU; of a classifier as `predict` gives them."""
        with torch.no_grad():
            return self.task.evidence_shares(self.model(images).cpu())


def prepare(artifact: Artifact, images: Tensor, device: torch.device) -> Subject:
    """The run's model, copied to `device`; `images` N,C,H,W, which may be none, show which layer holds maps."""
    task = create_task(artifact.task, artifact.labels, artifact.calibration)
    model = specimen(task.explained(artifact.model), device)
    return Subject(artifact, model, task, map_layer(model, images[:1].to(device)) if len(images) else None)


def explain_image(subject: Subject, name: str, image: Tensor, *, methods: Sequence[str], classes: Sequence[str]) -> ExplainedImage:
    """The maps of one image C,H,W for what is said of it and for `classes`, all of a class beside the same random orders.

    Raises RunError where the model answers with numbers that are not finite.
    """
    labels = subject.artifact.labels
    with torch.no_grad():
        if not subject.model(image[None]).isfinite().all():
            raise RunError(f"{subject.artifact.path}: the model's output is not finite; its weights are of no use")
    shares = subject.probabilities(image[None])[0]  # k
    said = [labels[column] for column in subject.task.shown(shares)]
    predicted = said[0]
    shown = {label: labels.index(label) for label in (*said, *classes)}
    maps = []
    for label, column in shown.items() if methods else ():

        def probability(x: Tensor, column: int = column) -> Tensor:
            return subject.probabilities(x)[:, column]

        random = trust.score_random(probability, image, seed=column)
        for method in methods:
            heat = attribute(subject.model, image[None], [column], method=method, layer=subject.layer)[0]
            maps.append(Map(method, label, heat.numpy(), trust.score(probability, image, heat, random)))
    pixels = subject.artifact.preprocess.denormalise(image).cpu().numpy()
    return ExplainedImage(name, pixels, predicted, {label: float(shares[column]) for label, column in shown.items()}, tuple(maps))


def judge(subject: Subject, images: Tensor, explained: Sequence[ExplainedImage], *, methods: Sequence[str]) -> tuple[MethodVerdict, ...]:
    """The verdict on every method: from the predicted classes' maps of `explained`, and beside a model with shuffled weights.

    images: N,C,H,W, those of `explained`, in their order.
    """
    compared = images[:SHUFFLED_IMAGES]
    targets = [subject.artifact.labels.index(image.predicted) for image in explained[:SHUFFLED_IMAGES]]
    shuffled = randomised(subject.model, compared, seed=0)
    verdicts = []
    for method in methods:
        own = [next(m for m in image.maps if m.method == method and m.label == image.predicted) for image in explained]
        others = attribute(shuffled, compared, targets, method=method, layer=subject.layer)
        pairs = [(torch.from_numpy(mine.heat), other) for mine, other in zip(own[: len(others)], others, strict=True)]
        correlations = [c for mine, other in pairs if (c := trust.rank_correlation(mine, other)) is not None]
        verdicts.append(_verdict(method, [m.score for m in own], correlations))
    return tuple(verdicts)


def _verdict(method: str, scores: Sequence[trust.FaithfulnessScore], correlations: Sequence[float]) -> MethodVerdict:
    """The scores of several images taken together, by the criterion of a single one: `SPREADS` of what chance would give on average."""
    judged = [s for s in scores if s.moved >= trust.LEAST_MOVE]
    gap = random_gap = needed = None
    if judged:
        random_gap = float(np.mean([s.random.gaps.mean() for s in judged]))
        gap = float(np.mean([s.random.gaps.mean() if s.is_constant else s.gap for s in judged]))  # a map that orders nothing is chance
        spread = float(np.sqrt(np.sum([s.random.gaps.var(ddof=1) for s in judged]))) / len(judged)
        needed = random_gap + trust.SPREADS * spread
    return MethodVerdict(
        method,
        better=sum(s.passes is True for s in judged),
        judged=len(judged),
        gap=gap,
        random_gap=random_gap,
        needed=needed,
        correlation=float(np.mean(correlations)) if correlations else None,
    )
