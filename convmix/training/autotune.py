"""The measured choice for training: layout, number type and torch.compile, by a few steps on copies of the model.

    default -> the other layout, fp32 beside bf16 -> the best of them compiled -> the fastest, and what was measured

A trial takes time from the run that it is for, so a short run makes none. Nothing of the run changes by it: neither weights nor BatchNorm
statistics nor random numbers. What is chosen is part of the job: a resumed training computes as it began.
"""

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from convmix.config import Run
from convmix.data.targets import Targets
from convmix.hardware import autocast, resolve_precision
from convmix.tasks.base import Task

Layout = Literal["nchw", "nhwc"]

SHARE = 0.02  # of the training's time that the steps of a trial may take
TRIAL_STEPS = 40  # what they take, counted in steps of the default; some candidates are ten times slower
COMPILED_FROM_S = 2400.0  # compiling takes about a minute on two cores, in the trial and again in the run: 5 % of this
SLOWER = 1.5  # times the leader: no longer worth measuring
ROUNDS = 3  # of all that are left
TIE = 0.03  # how much faster something must be to be taken instead of something simpler,
TIE_FP32 = 0.05  # or fp32 instead of bf16


@dataclass(frozen=True)
class Tuned:
    """How a training computes."""

    layout: Layout
    precision: str  # fp32, bf16 or fp16
    compile: bool = False

    def __str__(self) -> str:
        return ", ".join(self._words()[: 3 if self.compile else 2])

    def beside(self, other: "Tuned") -> str:
        """What is different from `other`, in words."""
        return " ".join(mine for mine, theirs in zip(self._words(), other._words(), strict=True) if mine != theirs)

    def _words(self) -> tuple[str, str, str]:
        layout = "channels_last" if self.layout == "nhwc" else "nchw"
        return self.precision, layout, "compiled" if self.compile else "not compiled"


@dataclass(frozen=True)
class TuningTrial:
    """One candidate, and what became of it."""

    tuned: Tuned
    step_ms: float | None  # forward, loss and backward of one batch, the median; None where it failed
    rejected: str | None = None  # why it is not what was chosen

    def __str__(self) -> str:
        return f"failed ({self.rejected})" if self.step_ms is None else f"{self.step_ms:.{0 if self.step_ms >= 10 else 1}f} ms"


@dataclass(frozen=True)
class Tuning:
    """What was chosen, and by which measurements."""

    tuned: Tuned
    trials: tuple[TuningTrial, ...] = ()  # the default first; empty where nothing was tried

    def __str__(self) -> str:
        """'bf16, channels_last: 640 ms a step; nchw 1100 ms, fp32 1500 ms'."""
        own = next((f": {t} a step" for t in self.trials if t.tuned == self.tuned), "")
        others = ", ".join(f"{t.tuned.beside(self.tuned)} {t}" for t in self.trials if t.tuned != self.tuned)
        return f"{self.tuned}{own}" + (f"; {others}" if others else "")


def default(precision: str, device: torch.device) -> Tuned:
    """What is taken unmeasured. Channels last is the layout of our kernels for the CPU, and of oneDNN's fastest."""
    return Tuned("nhwc" if device.type == "cpu" else "nchw", resolve_precision(precision, device))


def tune(
    model: nn.Module,
    run: Run,
    *,
    task: Task,
    images: tuple[int, int, int],
    targets: Callable[[], Targets],
    device: torch.device,
    steps: int,
    left_s: float = float("inf"),
    processes: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> Tuning:
    """The fastest way to take the training steps of `run` on `device`; the default where trying costs more than `SHARE` of the training.

    model: as it was built, frozen where it is to be. task: prepared for the training.
    images: channels, height and width of the model's input. targets: gives those of one batch of this process, asked only for a trial.
    steps, left_s: how long the training is at most, in optimiser steps and in seconds.
    processes: of the whole training; one of several times its own part of a batch, and does not compile, which DistributedDataParallel
    would split.
    say: told once, where a trial is made.
    """
    usual = default(run.precision, device)
    others = _others(usual, run.precision)
    endless = run.tune == "always"
    if run.tune == "never" or not (endless or SHARE * steps >= TRIAL_STEPS):
        return Tuning(usual)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        race = _Race(model, run, task, images, targets(), device)
        race.enter(usual)
        if usual not in race.running:  # the run itself will say why in its own words
            return Tuning(usual, race.trials(usual))

        def training_s(how: Tuned) -> float:
            return float("inf") if endless else min(steps * race.ms(how) / 1000, left_s)

        if TRIAL_STEPS * race.ms(usual) / 1000 > SHARE * training_s(usual):
            return Tuning(usual)
        say("timing training steps in other layouts and number types, and compiled where that may pay")
        for other in others:
            race.enter(other)
        race.go_round([usual, *others])
        best = race.best([usual, *others])
        if best in race.running and processes == 1 and task.compiles and training_s(best) >= COMPILED_FROM_S:
            best = _or_compiled(best, race, training_s(best))
        return Tuning(best, race.trials(best))


def _or_compiled(best: Tuned, race: "_Race", training_s: float) -> Tuned:
    """`best`, or the same compiled where that saves more of `training_s` than the run will pay for compiling again."""
    compiled = replace(best, compile=True)
    race.enter(compiled)
    race.go_round([best, compiled])
    if best not in race.running or race.best([best, compiled]) == best:
        return race.best([best, compiled])
    saved_s = training_s * (1 - race.ms(compiled) / race.ms(best))
    if saved_s >= race.start_s[compiled]:
        return compiled
    race.leave(compiled, f"compiling takes {race.start_s[compiled]:.0f} s and saves {saved_s:.0f} s")
    return best


def lay_out(model: nn.Module, layout: Layout) -> nn.Module:
    """`model` with its weights in this layout, which a convolution passes on to all that follows it. Models are built as nchw."""
    return model.to(memory_format=torch.channels_last) if layout == "nhwc" else model


def learning(model: nn.Module, freeze: str) -> nn.Module:
    """`model` in training mode; batch norms that are frozen, or in a frozen backbone, keep their statistics."""
    model.train()
    if freeze in ("statistics", "backbone"):
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    return model


class Compiled:
    """The forward pass of `model`, compiled for batches of `size` images.

    The plain one takes batches that broken images made smaller, which are not worth compiling for, and all where the compiler fails:
    a training may be resumed on a machine that has none.
    """

    def __init__(self, model: nn.Module, size: int, *, say: Callable[[str], None]) -> None:
        self.model, self.size, self.say = model, size, say
        self.fast: Callable[[Tensor], Tensor] | None = _compile(model)

    def __call__(self, images: Tensor) -> Tensor:
        if self.fast is None or len(images) != self.size:
            return self.model(images)
        try:
            return self.fast(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            self.fast = None
            self.say(f"note: continuing without torch.compile, which fails here: {first_line(error)}")
            return self.model(images)


class _Trainee:
    """A copy of the model that takes training steps, on noise, which nobody keeps."""

    def __init__(self, tuned: Tuned, model: nn.Module, run: Run, task: Task, batch: tuple[Tensor, Targets]) -> None:
        images, targets = batch
        self.tuned, self.task = tuned, task
        self.parts: list[tuple[Tensor, Any]] = list(
            zip(images.chunk(run.optim.accumulate), targets.chunk(run.optim.accumulate), strict=True)
        )
        self.model = learning(lay_out(copy.deepcopy(model).to(images.device), tuned.layout), run.net.freeze)
        self.forward = _compile(self.model) if tuned.compile else self.model

    def step(self) -> None:
        """Forward, loss and backward of one batch. What the optimiser does is the same for all candidates."""
        for x, y in self.parts:
            with autocast(self.tuned.precision, x.device):
                outputs = self.task.forward(self.forward, x, y)
            self.task.loss(outputs, y).backward()
        self.model.zero_grad()


class _Race:
    """Candidates that take their steps in turn, so that a slow moment of the machine hits all alike."""

    def __init__(
        self, model: nn.Module, run: Run, task: Task, images: tuple[int, int, int], targets: Targets, device: torch.device
    ) -> None:
        noise = torch.randn(len(targets), *images, generator=torch.Generator().manual_seed(0)).to(device)  # n,C,H,W
        self.batch = task.augment_batch(noise, targets.to(device), seed=0)
        self.model, self.run, self.task = model, run, task
        self.running: dict[Tuned, _Trainee] = {}
        self.start_s: dict[Tuned, float] = {}  # the first step, compiling included
        self.steps_ms: dict[Tuned, list[float]] = {}
        self.rejected: dict[Tuned, str] = {}

    def enter(self, tuned: Tuned) -> None:
        """One step to warm up and one that counts; those far behind the leader leave."""
        self.steps_ms[tuned] = []
        try:
            self.running[tuned] = trainee = _Trainee(tuned, self.model, self.run, self.task, self.batch)
            self.start_s[tuned] = step_seconds(trainee)
        except Exception as error:  # whatever a compiler, a driver or a lack of memory may raise
            self.leave(tuned, first_line(error))
            return
        self._step(tuned)
        for slow in [t for t in self.running if self.ms(t) > SLOWER * min(map(self.ms, self.running))]:
            self.leave(slow, "slower")

    def go_round(self, some: list[Tuned]) -> None:
        """Time those that still run anew, in turn."""
        for t in set(some) & self.running.keys():
            self.steps_ms[t] = []
        for _ in range(ROUNDS):
            for t in some:
                if t in self.running:
                    self._step(t)

    def leave(self, tuned: Tuned, reason: str) -> None:
        self.running.pop(tuned, None)
        self.rejected[tuned] = reason

    def ms(self, tuned: Tuned) -> float:
        return statistics.median(self.steps_ms[tuned])

    def best(self, candidates: list[Tuned]) -> Tuned:
        """The fastest of those still running. Candidates stand from simple to special, and of equals the first is taken."""
        some = [t for t in candidates if t in self.running]
        best = (some or candidates)[0]
        for other in some[1:]:
            margin = TIE if other.precision == best.precision else TIE_FP32
            if self.ms(best) > self.ms(other) * (1 + margin):
                best = other
        return best

    def trials(self, chosen: Tuned) -> tuple[TuningTrial, ...]:
        return tuple(
            TuningTrial(t, self.ms(t) if ms else None, None if t == chosen else self.rejected.get(t, "not faster"))
            for t, ms in self.steps_ms.items()
        )

    def _step(self, tuned: Tuned) -> None:
        try:
            self.steps_ms[tuned].append(1000 * step_seconds(self.running[tuned]))
        except Exception as error:
            self.steps_ms[tuned] = []
            self.leave(tuned, first_line(error))


def step_seconds(trainee: _Trainee) -> float:
    """How long one step takes, on the device too."""
    started = time.perf_counter()
    trainee.step()
    if trainee.parts[0][0].device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - started


def _others(usual: Tuned, asked: str) -> list[Tuned]:
    """What is tried beside the default: the other layout, and fp32 where bf16 is our choice and not the user's."""
    others = [replace(usual, layout="nchw" if usual.layout == "nhwc" else "nhwc")]
    if asked == "auto" and usual.precision == "bf16":
        others.append(replace(usual, precision="fp32"))
    return others


def _compile(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return torch.compile(model, dynamic=False)


def first_line(error: Exception) -> str:
    """What people need of an error; compilers begin with 'backend=... raised:'."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])
