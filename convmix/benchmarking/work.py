"""What is measured and who takes part: frozen values that travel between processes.

Work (model, inference or training, batch, size) -> contenders -> a race of processes (`race`) -> a record (`record`)
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch

from convmix.errors import ConfigError, did_you_mean
from convmix.hardware import fast_bf16
from convmix.models import catalog
from convmix.speed.backends import Dtype, EnginePlan
from convmix.speed.select import PRECISIONS

Role = Literal["official", "peer", "ours"]
KINDS = ("inference", "training", "latency")  # latency: inference of one image at a time
SWEEPS = {  # what grows, and where it starts and ends
    "batch": (1, 2, 4, 8, 16, 32, 64),
    "resolution": (32, 64, 96, 128, 192, 256, 320),
    "depth": (2, 4, 8, 16, 32),
    "kernel": (3, 5, 7, 9, 11, 15),
}


@dataclass(frozen=True)
class Work:
    """One model doing one thing."""

    model: str
    kind: str  # of `KINDS`
    batch_size: int
    height: int  # px
    width: int
    num_classes: int
    device: str
    threads: int
    precision: str  # exact, bf16 or int8: what convmix may compute in; peers compete in all that it allows
    budget_s: float  # for convmix's own choice of an engine
    in_chans: int = 3
    model_args: str = "{}"  # further arguments of the model, as JSON
    run: str = ""  # the model directory whose network does the work, to the end of its answers; "": a classifier with random weights

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the images: B,C,H,W."""
        return self.batch_size, self.in_chans, self.height, self.width


@dataclass(frozen=True)
class Implementation:
    """One way to do the work. For training, `plan` has the backend eager or compile, and autocast as dtype."""

    name: str
    role: Role
    plan: EnginePlan | None = None  # None: what `convmix.optimize` chooses

    @property
    def is_plain(self) -> bool:
        """Whether it runs the architecture in PyTorch's own layers: timm's module, or the authors'."""
        return self.role != "ours"


def contenders(work: Work, *, in_sweep: bool = False) -> list[Implementation]:
    """The official path, the peers in the settings that are fastest somewhere, and convmix; in a sweep only those that start at once.

    float32 engines take part where nothing else is allowed, and those that have nothing else.
    """
    everyone = _of_training(work) if work.kind == "training" else _of_inference(work)
    if not in_sweep:
        return everyone
    quick = [c for c in everyone if c.plan and c.plan.backend in ("eager", "native")]
    return [c for c in quick if c.role != "peer" or (c.plan and c.plan.layout == "nhwc")]


def _of_training(work: Work) -> list[Implementation]:
    found = [Implementation("official path", "official", EnginePlan()), Implementation("channels_last", "peer", EnginePlan(layout="nhwc"))]
    dtype: Dtype = "fp32"
    said = ""
    if work.precision != "exact":
        dtype, said = "autocast", "autocast bf16, "
        found.append(Implementation(f"{said}channels_last", "peer", EnginePlan(dtype=dtype, layout="nhwc")))
    found += [
        Implementation(f"compile, {said}contiguous", "peer", EnginePlan("compile", dtype)),
        Implementation(f"compile, {said}channels_last", "peer", EnginePlan("compile", dtype, "nhwc")),
        Implementation("convmix", "ours", EnginePlan(dtype=dtype, layout="nhwc")),
    ]
    if work.device != "cpu":
        found.append(Implementation("convmix, compile", "ours", EnginePlan("compile", dtype, "nhwc")))
    return found


def _of_inference(work: Work) -> list[Implementation]:
    found = [Implementation("official path", "official", EnginePlan()), Implementation("channels_last", "peer", EnginePlan(layout="nhwc"))]
    if work.precision == "exact":
        found.append(Implementation("compile, freezing", "peer", EnginePlan("compile")))
    else:
        found += [
            Implementation("bf16, channels_last", "peer", EnginePlan(dtype="bf16", layout="nhwc")),
            Implementation("compile, freezing, bf16", "peer", EnginePlan("compile", "bf16", "nhwc")),
            Implementation("compile, freezing, autocast bf16", "peer", EnginePlan("compile", "autocast", "nhwc")),
        ]
    if work.device == "cpu":
        lower: dict[str, list[Dtype]] = {"exact": ["fp32"], "bf16": ["bf16"], "int8": ["bf16", "int8"]}
        found.append(Implementation("ONNX Runtime", "peer", EnginePlan("onnxruntime")))
        found += [Implementation(f"OpenVINO {dtype}", "peer", EnginePlan("openvino", dtype)) for dtype in lower[work.precision]]
        if work.threads > 1 and work.batch_size % work.threads == 0:
            best = lower[work.precision][-1]
            found.append(
                Implementation(f"OpenVINO {best}, {work.threads} streams", "peer", EnginePlan("openvino", best, streams=work.threads))
            )
        spec = catalog.find(work.model)
        if spec is not None and spec.family in ("convmixer", "convmlp"):
            found.append(Implementation("convmix kernels", "ours", EnginePlan("native", "fp32" if work.precision == "exact" else "bf16")))
    return [*found, Implementation("convmix", "ours")]


def sweep(work: Work, over: str) -> list[tuple[int, Work]]:
    """The same work at growing batch, resolution, depth or kernel size; ConfigError where the model has none of that."""
    if over not in SWEEPS:
        raise ConfigError(f"sweep: {over} is not one of {', '.join(SWEEPS)}{did_you_mean(over, SWEEPS)}")
    if over == "batch" and work.kind == "latency":
        raise ConfigError("sweep: latency is that of one image at a time; sweep resolution, depth or kernel, or take --work inference")
    if over == "batch":
        return [(n, dataclasses.replace(work, batch_size=n)) for n in SWEEPS[over]]
    if over == "resolution":
        return [(n, dataclasses.replace(work, height=n, width=n)) for n in SWEEPS[over]]
    spec = catalog.find(work.model)
    if spec is None or spec.family != "convmixer" or "dim" not in spec.arguments:
        raise ConfigError(f"sweep: {over} can be varied in a ConvMixer of a size such as convmixer_256_8, not in {work.model}")
    argument = {"depth": "depth", "kernel": "kernel_size"}[over]
    return [(n, dataclasses.replace(work, model=catalog.convmixer_name({**spec.arguments, argument: n}))) for n in SWEEPS[over]]


def check(work: Work) -> None:
    """ConfigError for values that cannot be measured."""
    if work.kind not in KINDS:
        raise ConfigError(f"work: {work.kind} is not one of {', '.join(KINDS)}{did_you_mean(work.kind, KINDS)}")
    for name, value in (("batch_size", work.batch_size), ("size", min(work.height, work.width)), ("threads", work.threads)):
        if value < 1:
            raise ConfigError(f"{name}: {value}, expected at least 1")
    if work.precision not in PRECISIONS:
        raise ConfigError(f"precision: {work.precision} is not one of {', '.join(PRECISIONS)}{did_you_mean(work.precision, PRECISIONS)}")
    if work.precision == "int8" and (work.kind == "training" or work.device != "cpu"):
        raise ConfigError("precision: int8 exists for inference on the CPU; take bf16 or exact")


def default_precision(device: torch.device) -> str:
    """bf16 where the hardware has it, else float32 alone."""
    return "bf16" if fast_bf16(device) else "exact"
