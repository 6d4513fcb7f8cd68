"""Whether a kernel is trusted with images of a shape: at its first use it is compared with PyTorch and timed beside it, on that shape.

    trusted("mix_space", shape, dtype, device, ...) -> Trials.verdict(case): kept? else examined, kept and, where it failed, said in a line

Equal: ||ours - exact|| / ||exact|| within BOUNDS for the result and for every gradient, exact being PyTorch in float32 on the same numbers.
Fast: not slower than PyTorch in the type of the images, gradients included. What fails either goes to PyTorch for good.

One JSON file in the cache folder per card, driver, versions and kernel source:
{"card": {...}, "checks": {"depthwise 64x768x32x32 bfloat16 7 True": {"trusted": true, ...}}}.
"""

import functools
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convmix.cache import cache_dir
from convmix.ops import switch
from convmix.ops.gpu.card import Card, confirmed, identity
from convmix.ops.gpu.cases import Case, Pair, pair

# Of float32's own sums in another order, and of three roundings to 8 or 11 bits: the result, and two between a slope and a gradient.
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 3 * 2**-8, torch.float16: 3 * 2**-11}
ROUNDS, WARM_UP_MS, MEASURE_MS = 2, 10, 40
log = logging.getLogger("convmix")
Timer = Callable[[Callable[[], object]], float]  # how many ms a call takes


@dataclass(frozen=True)
class Verdict:
    """What came of one check."""

    trusted: bool
    reason: str  # why not; "" where it is trusted
    error: float | None  # the largest of ||ours - exact|| / ||exact||; None where the kernel did not run
    bound: float
    ours_ms: float | None = None  # None where it was wrong
    pytorch_ms: float | None = None

    @classmethod
    def read(cls, kept: Any) -> "Verdict | None":
        """From JSON; None for anything that this class does not write."""
        try:
            made = cls(**kept)
        except TypeError:
            return None
        return made if isinstance(made.trusted, bool) and isinstance(made.reason, str) else None


def trusted(kernel: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device, *settings: int | str | bool) -> bool:
    """Whether `kernel` is to compute images B,C,H,W of this shape, type and device, `settings` as in `cases`.

    torch.compile asks while a graph is made, not when it runs; so a graph with dynamic shapes is made for one shape after all.
    """
    numbers = tuple([len(range(n)) for n in shape])  # for torch.compile a symbol has become a number then, which int() does not do
    return _answer(kernel, numbers, dtype, device, *settings)


def _answer(kernel: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, *settings: int | str | bool) -> bool:
    asked = switch.kernels()
    if asked == "triton":
        return True
    if asked == "off" or (asked == "on" and kernel not in confirmed(torch.cuda.get_device_name(device))):
        return False
    return trials(device.type, device.index).verdict(Case(kernel, shape, dtype, settings)).trusted


vars(_answer)["_dynamo_marked_constant"] = True  # as routes.route_for


@functools.cache
def trials(kind: str, index: int | None) -> "Trials":
    """The checks of this process for one card."""
    device = torch.device(kind, index) if index is not None else torch.device(kind)
    return Trials(identity(device), device)


class Trials:
    """Checks on one card: those kept by other processes, and those made here."""

    def __init__(self, card: Card, device: torch.device, *, timer: Timer | None = None, sides: Callable[[Case], Pair] = pair) -> None:
        self.card, self.device, self.sides = card, device, sides
        self.timer = timer or (_event_ms if device.type == "cuda" else _clock_ms)
        self._known: dict[str, Verdict] | None = None

    def verdict(self, case: Case) -> Verdict:
        """What is kept for `case`, else what an examination finds, which is kept then."""
        known = self._read_once()
        if case.key not in known:
            if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                return Verdict(False, "first used while a CUDA graph was recorded", None, BOUNDS[case.dtype])  # not kept
            known[case.key] = self.examine(case)
            self._keep(case.key, known[case.key])
            if not known[case.key].trusted:
                log.warning("Triton kernel %s on %s: %s; PyTorch's own is used", case.key, self.card.name, known[case.key].reason)
        return known[case.key]

    def examine(self, case: Case) -> Verdict:
        """Compares and times the two sides of `case`, whatever is kept; the program's gradients, autocast and random numbers stay."""
        bound = BOUNDS[case.dtype]
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(self.device.type, enabled=False):
            sides = self.sides(case)
            try:
                inputs, slope = self._numbers(case, sides)
                with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # tf32 has ten bits
                    exact = _outcomes(sides.pytorch, [t.float() for t in inputs], slope.float(), learns=sides.learns)
                found = _outcomes(sides.ours, inputs, slope, learns=sides.learns)
                error = max((_distance(a, b) for a, b in zip(found, exact, strict=True)), key=lambda e: (math.isnan(e), e))
                del exact, found
                if not error <= bound:  # not: NaN never passes
                    return Verdict(False, f"differs from PyTorch by {error:.1e}, the bound is {bound:.1e}", _number(error), bound)
                ours_ms, pytorch_ms = self._times(sides, inputs, slope)
            except torch.cuda.OutOfMemoryError:
                return Verdict(False, "too little memory to check it", None, bound)
            except Exception as failure:  # a compiler, a launch, a driver: PyTorch is there
                log.debug("%s", case.key, exc_info=True)
                return Verdict(False, f"fails with {type(failure).__name__}", None, bound)
        slow = ours_ms > pytorch_ms
        reason = f"slower than PyTorch, {ours_ms:.3g} and {pytorch_ms:.3g} ms" if slow else ""
        return Verdict(not slow, reason, error, bound, ours_ms, pytorch_ms)

    def _numbers(self, case: Case, sides: Pair) -> tuple[list[Tensor], Tensor]:
        """The inputs, images channels last, and the slope of the result, whose mean of one keeps its sums from cancelling."""
        generator = torch.Generator(self.device).manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=self.device)

        given = sides.inputs(normal)
        images = [t.to(case.dtype).contiguous(memory_format=torch.channels_last) for t in given[: sides.images]]
        return [*images, *given[sides.images :]], (1 + normal(*case.shape)).to(case.dtype).contiguous(memory_format=torch.channels_last)

    def _times(self, sides: Pair, inputs: list[Tensor], slope: Tensor) -> tuple[float, float]:
        """ms of ours and of PyTorch's, in turn; of each the best."""
        runs = [functools.partial(_outcomes, way, inputs, slope, learns=sides.learns) for way in (sides.ours, sides.pytorch)]
        times = [[self.timer(run) for run in runs] for _ in range(ROUNDS)]
        ours, theirs = zip(*times, strict=True)
        return min(ours), min(theirs)

    def _read_once(self) -> dict[str, Verdict]:
        if self._known is None:
            self._known = self._read()
        return self._known

    def _read(self) -> dict[str, Verdict]:
        try:
            place = self._place()
            checks = json.loads(place.read_text())["checks"]
            found = {str(key): Verdict.read(kept) for key, kept in checks.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("the kept checks of the Triton kernels cannot be read (%s) and are made again", type(error).__name__)
            return {}
        if broken := sum(verdict is None for verdict in found.values()):
            log.warning("%d kept checks of the Triton kernels cannot be read and are made again", broken)
        return {key: verdict for key, verdict in found.items() if verdict is not None}

    def _keep(self, key: str, verdict: Verdict) -> None:
        """Adds one check to the file, which another process may have extended meanwhile. A cache that cannot be written is no error."""
        if verdict.reason == "too little memory to check it":
            return  # there may be more next time
        try:
            place = self._place()
            kept = {**self._read_quietly(place), key: asdict(verdict)}
            content = json.dumps({"card": asdict(self.card), "checks": kept}, indent=0, sort_keys=True)
            handle, unfinished = tempfile.mkstemp(dir=place.parent, suffix=".json")
            with os.fdopen(handle, "w") as file:
                file.write(content)
            Path(unfinished).replace(place)  # whole or not at all
        except OSError as error:
            log.debug("the check of %s is not kept: %s", key, error)

    def _read_quietly(self, place: Path) -> dict[str, Any]:
        try:
            found = json.loads(place.read_text())["checks"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}

    def _place(self) -> Path:
        return cache_dir("triton") / f"checks-{self.card.file_name}.json"


def _outcomes(way: Callable[..., Tensor], inputs: Sequence[Tensor], slope: Tensor, *, learns: bool) -> list[Tensor]:
    """The result and, where it learns, the gradients of all inputs."""
    if not learns:
        with torch.no_grad():
            return [way(*inputs)]
    leaves = [t.detach().requires_grad_() for t in inputs]
    y = way(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, slope)]


def _distance(found: Tensor, exact: Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm().clamp(min=1e-30))


def _number(error: float) -> float | None:
    """JSON has no NaN."""
    return error if error < float("inf") else None


def _event_ms(run: Callable[[], object]) -> float:
    """By events on the card, its cache emptied before each run."""
    from triton.testing import do_bench

    return float(do_bench(run, warmup=WARM_UP_MS, rep=MEASURE_MS, return_mode="median"))


def _clock_ms(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - began)
