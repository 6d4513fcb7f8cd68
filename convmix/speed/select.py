"""The measured choice: every engine that is installed, checked against the plain model, timed, and the fastest kept.

model -> candidate plans -> build, compare with the float32 original, time -> Optimized, with a report that says why

No engine is trusted: its output is compared with the original's before it may win. Machines are noisy: nothing leaves for one slow
measurement, plans that are near each other are timed in turn, and rounds are added until no other plan is likely to be more than `MARGIN`
faster than the choice. The choice depends on model, sizes, precision, machine and versions, and is kept for that combination.
"""

import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from convmix.errors import ConfigError, ModelError, did_you_mean
from convmix.hardware import fast_bf16
from convmix.speed import store
from convmix.speed.backends import Dtype, EnginePlan, Finish, Runner, build
from convmix.speed.check import LIMITS, FirstClass, Judge, Limits, Original
from convmix.speed.packages import UnavailableError
from convmix.speed.report import EngineTrial, Report, Sizes

Precision = Literal["exact", "bf16", "int8"]
PRECISIONS = ("exact", "bf16", "int8")
BUDGET_S = 300.0
SLOWER = 1.5  # times the best: no longer worth measuring
LOOKS = 2  # a plan leaves as slower only where each of so many measurements, beside the leader's, says so
HEATS = 3  # rounds of all that are left, after which the finalists are known
FINALISTS = 4  # at least, and whatever else came within
NEAR = 1.1  # times the best heat
ROUNDS = 9  # of the finalists,
MOST_ROUNDS = 45  # and up to here while the choice is not settled
ROUNDS_S = 60.0  # no round is begun after this time,
MIN_ROUNDS = 5  # except the first ones
MARGIN = 0.02  # what another plan may be faster than the choice
TURN_S = 0.05
ORIGINAL = EnginePlan()
SMALL_BATCH = 32  # up to here the time between launches may be the larger part, so a graph of them is tried first


class Optimized(nn.Module):
    """The fastest way found to run a model: float32 images n,C,H,W -> what the model gives, float32 on the CPU, for inference alone.

    `report` says what was measured. ModelError for another C, H or W than it was made for; n is free, multiples of the batch size waste
    nothing. `finish` makes the network's own outputs of what the engine computes, where that is a part of the network.
    """

    def __init__(self, runner: Runner, report: Report, finish: Finish | None = None) -> None:
        super().__init__()
        self.runner = runner
        self.report = report
        self.finish = finish

    @property
    def plan(self) -> EnginePlan:
        return self.report.plan

    def forward(self, images: Tensor) -> Any:
        outputs = self.runner(images)
        return outputs if self.finish is None else self.finish(outputs, (images.shape[2], images.shape[3]))


def optimize(
    model: nn.Module,
    *,
    sizes: Sizes,
    precision: Precision = "exact",
    images: Tensor | None = None,
    judge: Judge | None = None,
    calibration: Tensor | None = None,
    limits: Limits | None = None,
    budget_s: float = BUDGET_S,
    again: bool = False,
) -> Optimized:
    """The fastest way to run `model`, which stays as it is, on this machine; the choice of an earlier call is used again.

    sizes: images per batch, height, width.
    precision: what may be computed in: exact is float32 alone, bf16 allows bf16 too, int8 allows all three.
    images: n,C,H,W float32, normalised; what outputs are compared on. None: noise, on which no class can be right or wrong.
    judge: what outputs mean: which answers are others, and how good they are. None: the class with the largest output is the answer.
    calibration: n,C,H,W, what int8 takes its value ranges from (None: `images`). Without either, nothing is tried in int8.
    limits: what may differ, by what a candidate computes in; None is `LIMITS`.
    budget_s: no candidate is begun after this time, which begins when the model itself was timed; one that is being compiled then is not
    interrupted.
    again: measure also where a choice is kept.

    Raises ConfigError and ModelError for arguments that do not fit.
    """
    _check(sizes, precision, images, calibration)
    device = store.device_of(model)
    name = store.key(model, sizes=sizes, precision=precision)
    if not again and (kept := restore(model, name)):
        return kept
    noise = _noise(model, sizes)
    images = noise if (is_noise := images is None) else images
    outputs = build(ORIGINAL, model, noise.to(device))(images)
    if judge is None and not is_noise and isinstance(outputs, Tensor):
        judge = FirstClass()
    original = Original(images, outputs, None if is_noise else judge)
    if calibration is None and not is_noise:
        calibration = images
    with store.workshop() as folder:
        race = _Race(model, original, torch.cat([images, noise])[: sizes[0]].to(device), calibration, limits or LIMITS, folder)
        race.run(candidates(precision, batch_size=sizes[0], device=device), budget_s)
        runner = race.finish()
        trials, made = tuple(race.found.values()), race.files(runner.plan)
        restart_s = race.restart_s(runner.plan)
        checked, title = (0, "score") if original.judge is None else (len(images), original.judge.title)
        report = Report(sizes, precision, store.machine(device), checked, trials, runner.plan, restart_s, title)
        store.save(name, report, made)
    return Optimized(runner, report)


def restore(model: nn.Module, name: str, finish: Finish | None = None) -> Optimized | None:
    """The choice kept under `name` (`store.key`), ready to run; None where there is none, or where it does not start any more."""
    report = store.load(name)
    if report is None:
        return None
    try:
        example = _noise(model, report.sizes).to(store.device_of(model))
        return Optimized(build(report.plan, model, example, store=store.files(name)), report, finish)
    except UnavailableError:
        return None


def candidates(precision: Precision, *, batch_size: int, device: torch.device) -> list[EnginePlan]:
    """The plans to try: the original, then those that are the fastest somewhere, so that the budget does not end before them.

    Every way in which the peers of `convmix benchmark` run a model is among them, with streams and autocast (a test holds that).
    """
    dtypes: tuple[Dtype, ...] = ("fp32",) if precision == "exact" else ("bf16", "fp32") if fast_bf16(device) else ("fp32", "bf16")
    folds = (True, False)
    threads = torch.get_num_threads()
    streams = (1, threads) if threads > 1 and batch_size % threads == 0 else (1,)
    plans = [ORIGINAL]
    if precision == "int8" and device.type == "cpu":  # the only plans that compute in what was asked for
        plans += [EnginePlan("openvino", "int8", folded=fold, streams=s) for fold in (False, True) for s in reversed(streams)]
    plans += [EnginePlan("native", d) for d in dtypes] if device.type == "cpu" else []
    if device.type == "cuda":
        plans += [EnginePlan("triton", d, graph=graph) for d in dtypes for graph in (batch_size <= SMALL_BATCH, batch_size > SMALL_BATCH)]
    first, compiled_first = dtypes[0], [EnginePlan("compile", dtypes[0], "nhwc", fold) for fold in folds]
    if precision != "exact":
        compiled_first.append(EnginePlan("compile", "autocast", "nhwc"))
    if device.type == "cpu":
        plans += [EnginePlan("openvino", first, folded=fold, streams=s) for s in reversed(streams) for fold in folds]
    plans += [EnginePlan("eager", first, "nhwc", fold) for fold in folds]
    plans += compiled_first
    if device.type == "cpu":
        plans += [EnginePlan("onnxruntime", folded=fold) for fold in folds]
        plans += [EnginePlan("aoti", first, folded=fold) for fold in folds]
    plans += [EnginePlan("eager", d, layout, fold) for d in dtypes for layout in ("nhwc", "nchw") for fold in folds]
    if device.type == "cpu":
        plans += [EnginePlan("openvino", d, folded=fold, streams=s) for d in dtypes for s in reversed(streams) for fold in folds]
    plans += [EnginePlan("compile", d, layout, fold) for d in dtypes for layout in ("nhwc", "nchw") for fold in folds]
    return list(dict.fromkeys(plans))


class _Race:
    """Candidates of one model, tried one after the other on `batch` (B,C,H,W)."""

    def __init__(
        self, model: nn.Module, original: Original, batch: Tensor, calibration: Tensor | None, limits: Limits, folder: Path
    ) -> None:
        self.model, self.original, self.batch, self.calibration = model, original, batch, calibration
        self.limits, self.folder = limits, folder
        self.found: dict[EnginePlan, EngineTrial] = {}
        self.running: dict[EnginePlan, Runner] = {}  # those that may still win
        self.unfoldable: str | None = None  # the reason, once known

    def run(self, plans: list[EnginePlan], budget_s: float) -> None:
        """Try every plan; those far behind the leader leave, and free their memory. The original's own time is not the candidates'."""
        leader = ORIGINAL
        self.found[leader] = self._try(leader)
        started = time.monotonic()
        for plan in plans:
            if plan in self.found:
                continue
            if time.monotonic() - started > budget_s:
                self.found[plan] = EngineTrial(plan, f"not tried, {budget_s:.0f} s were over")
                continue
            self.found[plan] = self._try(plan)
            if plan not in self.running:
                continue
            now = self._time(self.running[leader])  # beside the new one: minutes ago the machine may have been another
            if self._is_behind(plan, leader, SLOWER, leader_ms=now):
                self._leave([plan])
            elif self._ms(plan) < now:
                leader = plan
            self._leave([p for p in self.running if p not in (leader, ORIGINAL) and self._is_behind(p, leader, SLOWER**2)])

    def finish(self) -> Runner:
        """The fastest that is right on all images. They are timed in turn, so that a slow minute of the machine hits all alike."""
        heats: dict[EnginePlan, list[float]] = {plan: [] for plan in self.running}
        for _ in range(HEATS):
            self._time_in_turn(heats)
        self._note(heats)
        ranked = sorted(self.running, key=self._ms)
        near = {plan for plan in ranked if min(heats[plan]) <= NEAR * min(heats[ranked[0]])}
        self._leave([plan for plan in ranked[FINALISTS:] if plan != ORIGINAL and plan not in near])
        self._run_final(with_original=ORIGINAL in near)
        winner = next(plan for plan in sorted(self.running, key=self._ms) if self._is_right(plan))
        self._is_right(ORIGINAL)  # for its row in the report
        return self.running[winner]

    def files(self, plan: EnginePlan) -> Path:
        """The folder for the engine's own files."""
        folder = self.folder / str(plan).replace(" ", "_")
        folder.mkdir(exist_ok=True)
        return folder

    def restart_s(self, plan: EnginePlan) -> float:
        """What the next start takes: from the engine's files, tried here; where it has none, as long as this time."""
        files = self.files(plan)
        if any(files.iterdir()):
            started = time.perf_counter()
            try:
                build(plan, self.model, self.batch, store=files)
                return time.perf_counter() - started
            except UnavailableError:  # not kept, then
                shutil.rmtree(files)
                files.mkdir()
        return self.found[plan].start_s or 0.0

    def _try(self, plan: EnginePlan) -> EngineTrial:
        """Built, compared on one batch, and timed twice."""
        if plan.folded and self.unfoldable:
            return EngineTrial(plan, self.unfoldable)
        started = time.perf_counter()
        try:
            runner = build(plan, self.model, self.batch, calibration=self.calibration, store=self.files(plan))
        except UnavailableError as error:
            if plan.folded and plan.backend == "eager":
                self.unfoldable = str(error)
            return EngineTrial(plan, str(error))
        start_s = time.perf_counter() - started
        outputs = runner(self.original.images[: len(self.batch)])
        verdict = self.original.compare(outputs, self.limits[plan.dtype])
        if verdict.objection:
            return EngineTrial(plan, verdict.objection, start_s, difference=verdict.difference)
        self.running[plan] = runner
        return EngineTrial(plan, None, start_s, min(self._time(runner) for _ in range(2)), difference=verdict.difference)

    def _is_right(self, plan: EnginePlan) -> bool:
        """On all images; its row of the report says so."""
        outputs = self.running[plan](self.original.images)
        verdict = self.original.compare(outputs, self.limits[plan.dtype])
        self.found[plan] = replace(
            self.found[plan],
            rejected=verdict.objection,
            difference=verdict.difference,
            changed=verdict.changed,
            score=verdict.score and verdict.score.value,
            score_interval=verdict.score and verdict.score.interval,
        )
        return verdict.objection is None

    def _run_final(self, *, with_original: bool) -> None:
        """Rounds of those that are left until the choice is settled; of the original only the first ones, where it cannot win."""
        finals: dict[EnginePlan, list[float]] = {plan: [] for plan in self.running}
        rivals = {plan: ms for plan, ms in finals.items() if plan != ORIGINAL or with_original}
        started = time.monotonic()
        for done in range(MOST_ROUNDS):
            if done >= MIN_ROUNDS and time.monotonic() - started > ROUNDS_S:
                break
            if done >= ROUNDS and is_settled(list(rivals.values())):
                break
            self._time_in_turn(finals if done < MIN_ROUNDS else rivals)
        self._note(finals)

    def _time_in_turn(self, times: dict[EnginePlan, list[float]]) -> None:
        """One round: a turn for each."""
        for plan, ms in times.items():
            ms.append(self._time(self.running[plan]))

    def _note(self, times: dict[EnginePlan, list[float]]) -> None:
        """Medians and spreads, for the report."""
        for plan, ms in times.items():
            low, median, high = statistics.quantiles(ms, n=4)
            self.found[plan] = replace(self.found[plan], median_ms=median, spread_ms=high - low)

    def _is_behind(self, plan: EnginePlan, leader: EnginePlan, factor: float, *, leader_ms: float | None = None) -> bool:
        """Whether it takes `factor` times as long as the leader in each of `LOOKS` measurements; a busy moment is not held against it."""
        leader_ms = self._ms(leader) if leader_ms is None else leader_ms
        for look in range(LOOKS):
            if self._ms(plan) <= factor * leader_ms:
                return False
            if look < LOOKS - 1:
                fresh = min(self._ms(plan), self._time(self.running[plan]))
                self.found[plan] = replace(self.found[plan], median_ms=fresh)
                leader_ms = self._time(self.running[leader])
        return True

    def _leave(self, plans: list[EnginePlan]) -> None:
        for plan in plans:
            self.found[plan] = replace(self.found[plan], rejected="slower")
            if plan != ORIGINAL:  # what the others are compared with, and what remains if all others are wrong
                del self.running[plan]

    def _time(self, runner: Runner) -> float:
        """ms per batch, over `TURN_S` at least. The engine before may still have threads that spin: the first call is not timed."""
        runner(self.batch)
        calls = 0
        started = time.perf_counter()
        while calls == 0 or time.perf_counter() - started < TURN_S:
            runner(self.batch)
            calls += 1
        return 1000 * (time.perf_counter() - started) / calls

    def _ms(self, plan: EnginePlan) -> float:
        ms = self.found[plan].median_ms
        assert ms is not None  # those running were timed
        return ms


def is_settled(times: Sequence[Sequence[float]]) -> bool:
    """Whether the plan with the smallest median is at most `MARGIN` slower than any other, as far as rounds can tell.

    times: of each plan, ms in the same rounds. The ratio to the leader is taken round by round; what its median may be is the notch of its
    box plot, 1.57 quartile ranges / sqrt(rounds) to each side (McGill, Tukey and Larsen 1978).
    """
    leader = min(times, key=statistics.median)
    for other in times:
        if other is leader:
            continue
        ratios = [a / b for a, b in zip(other, leader, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        if median - 1.57 * (high - low) / len(ratios) ** 0.5 < 1 - MARGIN:
            return False
    return True


def _noise(model: nn.Module, sizes: Sizes) -> Tensor:
    """One batch, the same every time: B,C,H,W."""
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    return torch.randn(sizes[0], channels, *sizes[1:], generator=torch.Generator().manual_seed(0))


def _check(sizes: Sizes, precision: str, images: Tensor | None, calibration: Tensor | None) -> None:
    if precision not in PRECISIONS:
        raise ConfigError(f"precision: {precision} is not one of {', '.join(PRECISIONS)}{did_you_mean(str(precision), PRECISIONS)}")
    if len(sizes) != 3 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in sizes):
        raise ConfigError(f"sizes: {sizes} is not (images per batch, height, width), whole numbers of at least 1")
    for name, given in (("images", images), ("calibration", calibration)):
        if given is not None and (given.ndim != 4 or not len(given) or tuple(given.shape[2:]) != tuple(sizes[1:])):
            raise ModelError(f"{name}: {tuple(given.shape)} is not n,C,{sizes[1]},{sizes[2]}, the height and width of sizes")
