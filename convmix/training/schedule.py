"""How far a training is, and the learning rate there: pure functions of the step.

    step -> StepPlan.progress -> 0..1 -> learning_rate

A wall-clock budget only changes the plan: when a new measurement moves the last step, progress goes on from where it stands,
so the learning rate never jumps.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from convmix.config import Schedule


@dataclass(frozen=True)
class StepPlan:
    """How many optimiser steps a training has."""

    steps_per_epoch: int
    total_steps: int
    anchor_step: int = 0  # where the last re-planning happened
    anchor_progress: float = 0.0

    def progress(self, step: int) -> float:
        """Share of the training done before `step`, 0..1."""
        left = self.total_steps - self.anchor_step
        if left <= 0 or step >= self.total_steps:
            return 1.0
        return self.anchor_progress + (1 - self.anchor_progress) * (step - self.anchor_step) / left

    def ending_at(self, total_steps: int, *, now: int) -> "StepPlan":
        """The same training with another last step, continuous in progress at step `now`."""
        return replace(self, total_steps=max(total_steps, now), anchor_step=now, anchor_progress=self.progress(now))

    @property
    def epochs(self) -> int:
        """Epochs begun by the last step."""
        return math.ceil(self.total_steps / self.steps_per_epoch)


def full_plan(schedule: Schedule, steps_per_epoch: int) -> StepPlan:
    """The plan without a budget."""
    return StepPlan(steps_per_epoch, steps_per_epoch * total_epochs(schedule))


def total_epochs(schedule: Schedule) -> int:
    """Epochs of the schedule, the cool-down of a cosine included."""
    return schedule.epochs + (schedule.cooldown_epochs if schedule.schedule == "cosine" else 0)


def learning_rate(schedule: Schedule, peak: float, plan: StepPlan, step: int) -> float:
    """Learning rate of optimiser step `step` (0 is the first).

    triangular: interp(t, [0, 0.4 E, 0.8 E, E], [0, peak, peak/20, 0]), the authors' ConvMixer schedule.
    linear: from a tenth of the peak up to it in the first fifth, then down to zero, as in short trainings since arXiv 2404.00498.
    poly: peak * (share of the steps left) ** power, mmsegmentation's. The others begin with a linear warm-up from `warmup_lr`.
    """
    total = total_epochs(schedule)
    t = plan.progress(step) * total  # in epochs of the schedule as written, whatever the budget made of it
    if schedule.schedule == "triangular":
        t = plan.progress(step + 1) * total  # as in the authors' loop, which counts the step it is about to take
        return float(np.interp(t, [0, 0.4 * total, 0.8 * total, total], [0, peak, peak / 20, 0]))
    if schedule.schedule == "linear":
        return float(np.interp(plan.progress(step), [0, 0.2, 1], [0.1 * peak, peak, 0]))
    if t < schedule.warmup_epochs:
        return schedule.warmup_lr + (peak - schedule.warmup_lr) * t / schedule.warmup_epochs
    if schedule.schedule == "cosine":
        share = min(1.0, t / schedule.epochs)
        return schedule.min_lr + (peak - schedule.min_lr) * 0.5 * (1 + math.cos(math.pi * share))
    if schedule.schedule == "poly":
        return peak * (1 - plan.progress(step)) ** schedule.power
    if schedule.schedule == "step" and schedule.milestones:
        return peak * schedule.step_gamma ** sum(t >= epoch for epoch in schedule.milestones)
    if schedule.schedule == "step":
        return peak * schedule.step_gamma ** (step // schedule.step_size)
    return peak
