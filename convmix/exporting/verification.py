"""Whether the exported model is the same model: its answers, through the whole pipeline, beside the original's.

run, exported + specimens -> a Check per batch size and image size -> Verification -> into the description, or VerificationError
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from convmix.artifacts.artifact import Artifact
from convmix.config import Size
from convmix.data.loaders import eval_batches
from convmix.errors import ConvmixError
from convmix.exporting.probe_images import ProbeImages
from convmix.inference.batches import Outputs, run_model
from convmix.results import Classes
from convmix.tasks import create_task
from convmix.tasks.agreement import Agreement, agreement, together

BATCH = 8  # the N of "batch 1 and N"
FEW = 8  # images where more would say nothing new


class VerificationError(ConvmixError):
    """An exported model that does not answer as the run does; it was not written."""


@dataclass(frozen=True)
class AgreementLimits:
    """What an exported model may differ by; several times what a right one shows, far below what a wrong one does."""

    difference: float  # of a probability, a score or a certainty, 0..1
    changed: float  # share of the images, objects or pixels that are answered otherwise
    lost: float  # of the main score, 0..1


LIMITS = {
    "fp32": AgreementLimits(0.001, 0.005, 0.002),
    "fp16": AgreementLimits(0.03, 0.02, 0.005),
    "bf16": AgreementLimits(0.15, 0.05, 0.01),
    "int8": AgreementLimits(0.5, 0.10, 0.02),
}
RESIZED = AgreementLimits(0.03, 0.02, 0.005)  # on top, where the graph resizes: a pixel may come out one level higher or lower


@dataclass(frozen=True)
class Check:
    """One comparison."""

    size: str  # of the images, or of the input where that may change
    batch: int
    images: int
    difference: float
    agreed: float  # share, 0..1
    compared: int  # images, objects or pixels
    logits: float | None = None  # largest difference of an output, where outputs are logits
    score: float | None = None  # the task's main score of the exported model on these images, where they are annotated
    score_before: float | None = None  # and of the original


@dataclass(frozen=True)
class Verification:
    """All comparisons, and what they were made on."""

    checks: tuple[Check, ...]
    limits: AgreementLimits
    score: str  # the name of the main score
    images: str  # "validation" or "generated"
    note: str | None = None  # why not validation

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        values["checks"] = list(values["checks"])
        return values

    @property
    def objection(self) -> str | None:
        """What breaks the limits, and how far; None where nothing does."""
        for check in self.checks:
            where = f"at {check.size}, batches of {check.batch}"
            if not check.difference <= self.limits.difference:  # also for NaN
                return f"{where}: an answer differs by {check.difference:.2g}, {self.limits.difference:g} is allowed"
            wrong = round((1 - check.agreed) * check.compared)
            if wrong > max(self.limits.changed * check.compared, 1 if self.limits.changed > LIMITS["fp32"].changed else 0):
                return f"{where}: {wrong} of {check.compared} answers are others, {100 * self.limits.changed:g} % are allowed"
            if check.score is not None and check.score_before is not None:
                lost = check.score_before - check.score
                if lost > max(self.limits.lost, 1.5 / check.images):  # a single image is no evidence
                    return f"{where}: {self.score} {check.score:.4f}, the original's is {check.score_before:.4f}"
        return None


def limits_of(precision: str, *, resized: bool) -> AgreementLimits:
    base, more = LIMITS[precision], RESIZED
    return AgreementLimits(base.difference + more.difference, base.changed + more.changed, base.lost + more.lost) if resized else base


def verify(
    run: Artifact, exported: Artifact, some: ProbeImages, *, precision: str, bake: str, dynamic: tuple[str, ...], note: str | None
) -> Verification:
    """Raises VerificationError where the exported model is too far from the run's."""
    checks = tuple(_checks(run, exported, some, bake=bake, dynamic=dynamic))
    task = create_task(run.task, run.labels)
    found = Verification(
        checks, limits_of(precision, resized=bake == "resize"), task.score_name, "generated" if some.are_generated else "validation", note
    )
    if found.objection:
        raise VerificationError(f"nothing is written, the {exported.engine} model in {precision} is not the same model: {found.objection}")
    return found


def _checks(run: Artifact, exported: Artifact, some: ProbeImages, *, bake: str, dynamic: tuple[str, ...]) -> Iterator[Check]:
    n = min(BATCH, len(some))
    if bake == "resize":
        height, width = some.typical_size
        other = max(round(height * 0.7), 2), max(round(width * 1.4), 2)
        yield _check(run, exported, some, "their own sizes", batch=1)
        for size in ((height, width), other):
            alike = some.few(FEW).resized(size)
            for batch in (1, n):
                yield _check(run, exported, alike, _text(size), batch=batch)
        return
    own = run.preprocess.size
    sizes = [own] + ([_another(own)] if "height" in dynamic else [])
    for size in sizes:
        pair = [replace(one, preprocess=replace(one.preprocess, size=size)) for one in (run, exported)]
        known = some if size == own else some.unknown()
        for batch, part in ((1, known.few(FEW)), (n, known)):
            yield _check(pair[0], pair[1], part, _text(size), batch=batch)


def _check(run: Artifact, exported: Artifact, some: ProbeImages, size: str, *, batch: int) -> Check:
    before, after = (_outputs(one, some, batch) for one in (run, exported))
    task = create_task(run.task, run.labels, run.calibration)
    pairs = zip(_answers(task, before), _answers(task, after), strict=True)
    found: Agreement = together([agreement(one, other) for one, other in pairs])
    scores: list[float | None] = [None, None]
    if all(annotation is not None for annotation in some.annotations):
        scores = [task.metrics(o.values, o.targets, intervals=False)[task.score_name] for o in (before, after)]
    logits = None
    if isinstance(before.values, Tensor):
        logits = float((before.values - after.values).abs().max())
    share = found.agreed / found.compared if found.compared else 1.0
    return Check(size, batch, len(some), found.difference, share, found.compared, logits, scores[1], scores[0])


def _outputs(artifact: Artifact, some: ProbeImages, batch: int) -> Outputs:
    task = create_task(artifact.task, artifact.labels)
    batches = eval_batches(some, task.preprocessing(artifact.preprocess), batch_size=batch, workers=0)
    return run_model(artifact.model, batches, device=torch.device("cpu"), observe=task.observe)


def _answers(task: Any, outputs: Outputs) -> list[Any]:
    """However unsure: what one of the two leaves out must not look like a difference."""
    decoded = task.everything(outputs.values)
    return [decoded] if isinstance(decoded, Classes) else list(decoded)


def _another(size: Size) -> Size:
    """An input size that the network was not traced with, of other proportions."""
    return size[0] + 32, size[1] + 64


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
