"""One contender in a process of its own: built once, then run when asked, so that nobody's memory, settings or crash touch another's.

parent -> Pipe -> serve(): "run" -> ms per batch, "memory" -> MiB
"""

import contextlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm  # noqa: F401  # by everyone, so that its memory is nobody's
import torch
from torch import Tensor, nn

from convmix.benchmarking.work import Implementation, Work
from convmix.errors import ConvmixError, first_line
from convmix.hardware import keep_freed_memory

TURN_S = 0.2  # of one turn at least
WARM_UPS = 2


@dataclass(frozen=True)
class Ready:
    """What a process says once it could do the work once."""

    plan: str  # how, in words
    start_s: float  # to build it, compilation included
    first: np.ndarray  # logits B,k of the shared images, float32; training: the loss of the first step, 1


def serve(pipe: Connection, work: Work, contender: Implementation) -> None:
    """The process: builds, reports Ready or a reason in words, then answers until it is told to stop."""
    if contender.is_plain:
        os.environ["CONVMIX_KERNELS"] = "off"
    elif work.device == "cpu":
        keep_freed_memory()  # as `train`, `evaluate` and `predict` do
    torch.set_num_threads(work.threads)
    device = torch.device(work.device)
    before = _resident_bytes()
    started = time.perf_counter()
    try:
        with _no_output():
            step, plan, first = _step(work, contender, device)
            for _ in range(WARM_UPS):
                step()
    except ConvmixError as error:
        pipe.send(str(error))
        return
    except Exception as error:  # an engine may raise anything; the race goes on without it
        pipe.send(f"{type(error).__name__}: {first_line(error)}")
        return
    pipe.send(Ready(plan, time.perf_counter() - started, first.float().cpu().numpy()))
    _forget_peak(device)
    while (asked := pipe.recv()) != "stop":
        pipe.send(_turn(step) if asked == "run" else _peak_mib(before, device))


def _turn(step: Callable[[], object]) -> float:
    """ms per batch. The processor's caches and threads were another's a moment ago: what is short enough is done once before."""
    started = time.perf_counter()
    step()
    if time.perf_counter() - started > TURN_S:
        return 1000 * (time.perf_counter() - started)
    times: list[float] = []
    began = time.perf_counter()
    while not times or time.perf_counter() - began < TURN_S:
        started = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def _step(work: Work, contender: Implementation, device: torch.device) -> tuple[Callable[[], object], str, Tensor]:
    """A function that does one batch, how it does it, and its first answer."""
    if work.run:
        return _answering_step(work, contender, device)
    model = _model(work, contender)
    images = _images(work)
    if work.kind == "training":
        return _training_step(work, contender, model, images, device)
    from convmix.speed.backends import build

    assert contender.plan is not None  # chosen before, by `choose`
    runner = build(contender.plan, model.to(device), images.to(device), calibration=_calibration(work, images))
    return lambda: runner(images), str(contender.plan), runner(images)


def _answering_step(work: Work, contender: Implementation, device: torch.device) -> tuple[Callable[[], object], str, Tensor]:
    """A batch through a trained network, whatever its task: what engines may compute by the plan, and all that follows it."""
    from convmix.artifacts.artifact import load_artifact
    from convmix.hardware import autocast
    from convmix.speed.backends import as_tuple, build
    from convmix.tasks import create_task

    plan = contender.plan
    assert plan is not None  # trained networks are compared under one that is given
    artifact, images = load_artifact(work.run), _images(work)
    network, task = artifact.model.to(device), create_task(artifact.task, artifact.labels)
    runner, finish = build(plan, task.engine_part(network), images.to(device)), task.engine_finish(network)

    def step() -> object:
        outputs = runner(images)
        if finish is None:
            return outputs
        with torch.inference_mode(), autocast("bf16" if plan.dtype == "autocast" else "fp32", device):
            return finish(outputs, (work.height, work.width))

    step()
    return step, str(plan), as_tuple(runner(images))[0]


def choose(pipe: Connection, work: Work, contender: Implementation) -> None:
    """A process that finds out which plan convmix takes for this work, and tells it: a Plan, or a reason in words."""
    from convmix.speed.select import Precision, optimize

    torch.set_num_threads(work.threads)
    try:
        with _no_output():
            model = _model(work, contender).to(work.device)
            images = _images(work)
            found = optimize(
                model, sizes=(work.batch_size, work.height, work.width), precision=cast(Precision, work.precision),
                calibration=_calibration(work, images), budget_s=work.budget_s, again=True,
            )  # fmt: skip
    except ConvmixError as error:
        pipe.send(str(error))
        return
    pipe.send(found.plan)


def _images(work: Work) -> Tensor:
    """The same for everyone: B,C,H,W."""
    return torch.randn(work.shape, generator=torch.Generator().manual_seed(1))


def _calibration(work: Work, images: Tensor) -> Tensor | None:
    """For speed alone the values do not matter; accuracy in int8 is measured on trained models, by `convmix optimize`."""
    return images if work.precision == "int8" else None


def _training_step(
    work: Work, contender: Implementation, model: nn.Module, images: Tensor, device: torch.device
) -> tuple[Callable[[], object], str, Tensor]:
    """Forward, loss, backward, AdamW."""
    plan = contender.plan
    assert plan is not None
    layout = torch.channels_last if plan.layout == "nhwc" else torch.contiguous_format
    model = model.train().to(device).to(memory_format=layout)
    images = images.to(device).contiguous(memory_format=layout)
    targets = torch.arange(work.batch_size, device=device) % work.num_classes
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    forward = torch.compile(model, dynamic=False) if plan.backend == "compile" else model

    def step() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=plan.dtype == "autocast"):
            logits = forward(images)
        loss = nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach().cpu()  # waits for the device

    return step, str(plan), step().reshape(1)


def _model(work: Work, contender: Implementation) -> nn.Module:
    """The same weights for everyone: convmix's module, or the same architecture as timm and the authors wrote it."""
    from convmix.models.catalog import create_model

    torch.manual_seed(0)
    arguments = json.loads(work.model_args)
    model = create_model(work.model, num_classes=work.num_classes, in_chans=work.in_chans, model_args=arguments).eval()
    return plain(model) if contender.is_plain else model


def plain(model: nn.Module) -> nn.Module:
    """The model in PyTorch's own layers: timm's ConvMixer; in the other families `nn.Conv2d` where convmix has its operator."""
    from timm.models.convmixer import ConvMixer as TimmConvMixer

    from convmix.models.convmixer import ConvMixer
    from convmix.models.layers import DepthwiseConv2d

    if isinstance(model, ConvMixer) and model.is_published:
        net: Any = model
        conv, act = net.blocks[0][0].fn[0], type(net.stem[1])
        official = TimmConvMixer(
            dim=net.num_features, depth=len(net.blocks), kernel_size=conv.kernel_size[0], patch_size=net.stem[0].kernel_size[0],
            in_chans=net.stem[0].in_channels, num_classes=net.num_classes, act_layer=act,
        )  # fmt: skip
        official.load_state_dict(model.state_dict())
        return official.train(model.training)
    for name, layer in list(model.named_modules()):
        if type(layer) is DepthwiseConv2d:
            k = layer.kernel_size[0]
            padding: Any = "same" if k % 2 == 0 else k // 2
            dim = layer.in_channels
            conv = nn.Conv2d(dim, dim, k, groups=dim, padding=padding, bias=layer.bias is not None)
            conv.load_state_dict(layer.state_dict())
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, conv)
    return model


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


def _forget_peak(device: torch.device) -> None:
    """Compiling takes more than running; the peak of running is what counts."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mib(before: int, device: torch.device) -> float:
    """Most memory held since `_forget_peak`: on the CPU without what the imports took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # no /proc: the peak since the start, in KiB, or bytes on macOS
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return max(0, peak - before) / 2**20


@contextlib.contextmanager
def _no_output() -> Any:
    """Engines and compilers talk on both streams, also from C."""
    saved = [os.dup(1), os.dup(2)]
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123  # os.devnull is a name, not a path
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        for stream, handle in zip((1, 2), saved, strict=True):
            os.dup2(handle, stream)
            os.close(handle)
