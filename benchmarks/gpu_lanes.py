"""The lanes of benchmarks/gpu.py: one way each to do a work on the device, checked before it is timed.

model -> lanes (timm's module or the authors' in PyTorch's four settings; convmix) -> start: build, check, warm up -> turns of some steps

All lanes of a work live in one process and take turns, so a change of the card's clocks hits all alike. Weights are the same for all, with
norms away from their defaults, so that a fold or an epilogue that is wrong shows.
"""

import contextlib
import copy
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from convmix.benchmarking.process import plain
from convmix.models.catalog import create_model
from convmix.speed.backends import EnginePlan, build

Kind = Literal["inference", "training"]
KINDS: tuple[Kind, ...] = ("inference", "training")
WORKS: dict[str, tuple[int, int, dict[Kind, int]]] = {  # model -> side in pixels, classes, images per batch
    "convmixer_1536_20": (224, 1000, {"inference": 128, "training": 64}),
    "convmixer_768_32": (224, 1000, {"inference": 256, "training": 64}),
    "convmixer_1024_20_ks9_p14": (224, 1000, {"inference": 256, "training": 128}),
    "convmlp_s": (224, 1000, {"inference": 256, "training": 128}),
    "convmlp_m": (224, 1000, {"inference": 256, "training": 128}),
    "convmlp_l": (224, 1000, {"inference": 256, "training": 128}),
    "convmixer_256_8": (32, 10, {"inference": 1024, "training": 512}),
}
INPUT_SETS = 3  # taken in turn: one alone would stay in the cache
TURN_S = 0.15
CHECKED = 8  # images of the float32 reference of a training step
LOGITS_LIMIT = 2e-2  # of ||out - reference|| / ||reference||, in bf16
GRADIENT_LIMIT = 5e-2
GRADIENT_LIMIT_FP32 = 5e-3  # which tells a mistake from rounding
SLACK = 2.0  # times the error of the plain module under autocast, where that is larger than the limit


class CheckFailedError(Exception):
    """What a lane computes is not what the model computes."""


class TooSlowError(Exception):
    """A lane did not start in the time it was given."""


@dataclass(frozen=True)
class GpuWork:
    """One model doing one thing."""

    model: str
    kind: Kind
    batch_size: int
    side: int  # pixels
    num_classes: int
    device: str

    def images(self, seed: int, n: int | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(n or self.batch_size, 3, self.side, self.side, generator=generator).to(self.device)

    def targets(self, n: int | None = None) -> Tensor:
        return torch.arange(n or self.batch_size, device=self.device) % self.num_classes


@dataclass(frozen=True)
class Lane:
    """One way to do it; `plan` of a peer has the backend eager or compile."""

    name: str
    role: str  # peer or ours
    plan: EnginePlan


@dataclass
class Running:
    """A lane that has started."""

    lane: Lane
    step: Callable[[int], object]  # with the number of an input set
    error: float  # ||out - reference|| / ||reference||: of the logits, or of all gradients
    start_s: float
    memory_mib: float | None
    ms: list[float] = field(default_factory=list)  # per batch, one a turn


def lanes(kind: Kind, device: str) -> list[Lane]:
    """Ours first: a command that is cut short should have measured them."""
    ours = [
        Lane("convmix", "ours", EnginePlan("eager", "autocast", "nhwc")),
        Lane("convmix, compile", "ours", EnginePlan("compile", "autocast", "nhwc")),
    ]
    if kind == "inference":
        kernels = (
            [EnginePlan("triton", "bf16"), EnginePlan("triton", "bf16", graph=True)] if device == "cuda" else [EnginePlan("native", "bf16")]
        )
        ours = [
            *(Lane("convmix, kernels" + (", CUDA graph" if plan.graph else ""), "ours", plan) for plan in kernels),
            Lane("convmix, folded", "ours", EnginePlan("eager", "bf16", "nhwc", folded=True)),
            Lane("convmix, folded, compile", "ours", EnginePlan("compile", "bf16", "nhwc", folded=True)),
        ]
    peers = [
        Lane(f"{'compile' if backend == 'compile' else 'eager'} {'channels_last' if layout == 'nhwc' else 'NCHW'}", "peer", plan)
        for backend in ("eager", "compile")
        for layout in ("nchw", "nhwc")
        for plan in [EnginePlan(backend, "autocast", layout)]  # type: ignore[arg-type]
    ]
    return [*ours, *peers]


class Course:
    """One work: the model, what its lanes are held against, and the lanes that run."""

    def __init__(self, work: GpuWork) -> None:
        self.work = work
        torch.manual_seed(0)
        # without stochastic depth, for all lanes alike: every one would draw other branches, and gradients could not be compared
        self.model = create_model(work.model, num_classes=work.num_classes, drop_path=0.0).eval()
        _unsettle(self.model.to(work.device), work.images(5, CHECKED))
        self.reference = self._reference()
        self.running: list[Running] = []
        self.plain_error: float | None = None  # of the plain module under autocast, which no lane need beat
        self.plain_error = self._error(self._module(Lane("plain", "peer", EnginePlan())), EnginePlan("eager", "autocast"))

    def start(self, lane: Lane, *, seconds: float) -> Running:
        """Build, check and warm up; raises CheckFailedError, TooSlowError, and whatever a compiler or a lack of memory raises."""
        began = time.perf_counter()
        before = _allocated(self.work.device)
        with _within(seconds):
            step, error = self._training(lane) if self.work.kind == "training" else self._inference(lane)
            for i in range(INPUT_SETS):
                step(i)
            _wait(self.work.device)
            start_s = time.perf_counter() - began
            _forget_peak(self.work.device)
            step(0)
            _wait(self.work.device)
        running = Running(lane, step, error, start_s, _peak_mib(before, self.work.device))
        self.running.append(running)
        return running

    def turn(self, running: Running) -> float:
        """ms per batch over some steps, as many for all turns of the lane."""
        if not running.ms:
            turn(running.step, 1, self.work.device)  # another lane's tensors fill the cache
        once = running.ms[0] if running.ms else turn(running.step, 2, self.work.device)
        steps = max(2, min(200, round(1000 * TURN_S / once)))
        running.ms.append(turn(running.step, steps, self.work.device))
        return running.ms[-1]

    def _module(self, lane: Lane) -> nn.Module:
        model = copy.deepcopy(self.model)
        model = plain(model) if lane.role == "peer" else model
        return model.to(self.work.device).to(memory_format=_memory_format(lane.plan))

    def _inference(self, lane: Lane) -> tuple[Callable[[int], object], float]:
        sets = [self.work.images(seed) for seed in range(1, INPUT_SETS + 1)]
        if lane.role == "peer":
            layout, dtype = _memory_format(lane.plan), torch.float32
            call = self._peer(lane)
        else:
            runner = build(lane.plan, self.model, sets[0])
            call = runner._call  # without the copies to and from the host that a Runner adds
            layout, dtype = runner._format, runner._dtype
        sets = [images.to(dtype).contiguous(memory_format=layout) for images in sets]
        with torch.inference_mode():
            out = torch.full((len(sets[0]), self.work.num_classes), torch.nan, device=self.work.device)  # poisoned: all must be written
            out.copy_(call(sets[0]))
        error = self._judge(out.float(), LOGITS_LIMIT)

        def step(i: int) -> object:
            with torch.inference_mode():
                return call(sets[i % INPUT_SETS])

        return step, error

    def _peer(self, lane: Lane) -> Callable[[Tensor], Tensor]:
        model = self._module(lane).eval().requires_grad_(False)
        forward = torch.compile(model, dynamic=False) if lane.plan.backend == "compile" else model

        def call(images: Tensor) -> Tensor:
            with torch.autocast(images.device.type, torch.bfloat16):
                return forward(images)

        return call

    def _training(self, lane: Lane) -> tuple[Callable[[int], object], float]:
        """Forward, loss, backward, AdamW. Of a compiled lane the module before it is compiled is checked, and then that the loss stays."""
        model = self._module(lane).train()
        if lane.role == "ours":
            self._judge(self._gradients(copy.deepcopy(model), replace(lane.plan, dtype="fp32")), GRADIENT_LIMIT_FP32, slack=0)
        error = self._error(copy.deepcopy(model), lane.plan)
        layout = _memory_format(lane.plan)
        sets = [self.work.images(seed).contiguous(memory_format=layout) for seed in range(1, INPUT_SETS + 1)]
        targets = self.work.targets()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=self.work.device == "cuda")
        forward = torch.compile(model, dynamic=False) if lane.plan.backend == "compile" else model
        if lane.plan.backend == "compile":
            self._same_loss(copy.deepcopy(model), forward, sets[0], targets)

        def step(i: int) -> object:
            with torch.autocast(self.work.device, torch.bfloat16):
                logits = forward(sets[i % INPUT_SETS])
            loss = nn.functional.cross_entropy(logits.float(), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()

        return step, error

    def _reference(self) -> Tensor:
        """float32 without tf32, the plain module: logits of the first input set, or all gradients of a few images."""
        model = self._module(Lane("reference", "peer", EnginePlan()))
        if self.work.kind == "training":
            return self._gradients(model.train(), EnginePlan())
        with torch.inference_mode():
            return torch.cat([model(part) for part in self.work.images(1).split(CHECKED)])

    def _error(self, model: nn.Module, plan: EnginePlan) -> float:
        if self.work.kind == "training":
            return self._judge(self._gradients(model.train(), plan), GRADIENT_LIMIT)
        with torch.inference_mode(), torch.autocast(self.work.device, torch.bfloat16):
            return self._judge(model(self.work.images(1)).float(), LOGITS_LIMIT)

    def _gradients(self, model: nn.Module, plan: EnginePlan) -> Tensor:
        n = min(CHECKED, self.work.batch_size)
        images = self.work.images(7, n).contiguous(memory_format=_memory_format(plan))
        with torch.autocast(self.work.device, torch.bfloat16, enabled=plan.dtype == "autocast"):
            logits = model(images)
        nn.functional.cross_entropy(logits.float(), self.work.targets(n)).backward()
        return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.float().flatten() for p in model.parameters()])

    def _judge(self, out: Tensor, limit: float, *, slack: float = SLACK) -> float:
        error = float(torch.linalg.vector_norm(out - self.reference) / torch.linalg.vector_norm(self.reference))
        limit = max(limit, slack * (self.plain_error or 0.0))
        if self.plain_error is not None and not error <= limit:  # not: NaN never passes
            raise CheckFailedError(f"the error is {error:.2e}, the limit {limit:.1e}")
        return error

    def _same_loss(self, model: nn.Module, forward: Any, images: Tensor, targets: Tensor) -> None:
        with torch.no_grad(), torch.autocast(self.work.device, torch.bfloat16):
            expected = float(nn.functional.cross_entropy(model(images).float(), targets))
        with torch.autocast(self.work.device, torch.bfloat16):
            loss = nn.functional.cross_entropy(forward(images).float(), targets)
        loss.backward()
        found = float(loss.detach())
        if not abs(found - expected) <= LOGITS_LIMIT * abs(expected):
            raise CheckFailedError(f"the loss is {found:.4f} compiled and {expected:.4f} not compiled")


def _memory_format(plan: EnginePlan) -> torch.memory_format:
    return torch.channels_last if plan.layout == "nhwc" else torch.contiguous_format


def turn(step: Callable[[int], object], steps: int, device: str) -> float:
    """ms per step: by events on the device where it is a GPU."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for i in range(steps):
            step(i)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / steps
    began = time.perf_counter()
    for i in range(steps):
        step(i)
    return 1000 * (time.perf_counter() - began) / steps


def _unsettle(model: nn.Module, images: Tensor) -> None:
    """Norms as a trained model has them: away from one and zero, with the statistics of images, so that every branch counts."""
    generator = torch.Generator().manual_seed(3)
    norms = [module for module in model.modules() if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm))]
    for norm in norms:
        for values, low, high in ((norm.weight, 0.7, 1.3), (norm.bias, -0.2, 0.2)):
            values.data.copy_(torch.rand(values.shape, generator=generator) * (high - low) + low)
    batch_norms = [norm for norm in norms if isinstance(norm, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in batch_norms]
    for norm in batch_norms:
        norm.momentum = 1.0  # the running statistics become the batch's
    with torch.no_grad():
        model.train()(images)
    model.eval()
    for norm, momentum in zip(batch_norms, momenta, strict=True):
        norm.momentum = momentum


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """TooSlowError inside once the seconds are over: compilers have no limit of their own."""

    def stop(*_: object) -> None:
        raise TooSlowError(f"not ready after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _allocated(device: str) -> int:
    return torch.cuda.memory_allocated() if device == "cuda" else 0


def _forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak_mib(before: int, device: str) -> float | None:
    """Of this lane alone, its weights and moments included."""
    return (torch.cuda.max_memory_allocated() - before) / 2**20 if device == "cuda" else None
