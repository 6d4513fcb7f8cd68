"""A wall-clock budget: how many steps still fit, from the time that steps and validations have taken."""

import time
from dataclasses import dataclass, field

from convmix.training.schedule import StepPlan

FINISH_S = 4.0  # writing the model directory, its pictures and its card
SKIPPED_STEPS = 2  # the first steps pay for allocation and compilation


@dataclass
class Budget:
    """Measures and re-plans; `seconds` counts from `started`, a time.monotonic() that includes earlier sittings."""

    seconds: float
    started: float
    num_val: int
    num_test: int
    batch_size: int
    steps: int = field(default=0, init=False)  # in this sitting
    measured_from: float = field(default=0.0, init=False)
    evaluations_s: float = field(default=0.0, init=False)  # since then
    eval_image_s: float | None = field(default=None, init=False)
    next_plan: int = field(default=8, init=False)

    def step_done(self) -> None:
        """Called after every step."""
        self.steps += 1
        if self.steps == SKIPPED_STEPS:
            self.measured_from, self.evaluations_s = time.monotonic(), 0.0

    def evaluation_took(self, seconds: float, images: int) -> None:
        """Called after every validation."""
        self.evaluations_s += seconds
        self.eval_image_s = seconds / max(1, images)

    @property
    def due(self) -> bool:
        """Whether enough was measured for a new plan."""
        return self.steps >= self.next_plan

    def replan(self, plan: StepPlan, step: int, longest: int) -> StepPlan:
        """The plan whose last step, validation, calibration and test end within the budget, and not after step `longest`."""
        now = time.monotonic()
        # all the time that was not validation counts as the steps': data, saves and pictures come along with them
        step_s = (now - self.measured_from - self.evaluations_s) / (self.steps - SKIPPED_STEPS)
        eval_s = self.eval_image_s or 0.35 * step_s / self.batch_size  # a forward pass is about a third of a step
        left = self.seconds - (now - self.started) - FINISH_S - eval_s * (self.num_val + self.num_test)  # calibration and test
        per_epoch = plan.steps_per_epoch * step_s + eval_s * self.num_val
        epochs, rest = divmod(max(0.0, left - eval_s * self.num_val), per_epoch)
        # every whole epoch pays its own validation; the one after the last step is taken off above
        steps = int(epochs * plan.steps_per_epoch + min(rest / step_s, plan.steps_per_epoch))
        self.next_plan = self.steps + max(8, min(plan.steps_per_epoch, steps // 10))
        return plan.ending_at(min(step + steps, longest), now=step)
