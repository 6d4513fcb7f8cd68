"""One way to run a model fast per engine: a EnginePlan and a model become a callable, images B,C,H,W -> logits B,k.

    build(EnginePlan("openvino", dtype="bf16"), model, torch.zeros(8, 3, 224, 224)) -> Runner

A model may also give several tensors with a row for each image, as detectors do; then so does the Runner.

Engines compile for one shape. A Runner therefore fills a batch that is too small and cuts the answer, which changes nothing: every image is
computed on its own. All engines get the number of threads that torch has. Nothing here looks for a device or for the fastest plan.
"""

import contextlib
import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from convmix.errors import ConfigError, ConvmixError, ModelError, did_you_mean, first_line
from convmix.speed.packages import UnavailableError, imported, openvino_core, quiet, signal_stack_kept

Backend = Literal["eager", "compile", "aoti", "onnxruntime", "openvino", "native", "triton"]
Layout = Literal["nchw", "nhwc"]
Dtype = Literal["fp32", "bf16", "fp16", "autocast", "int8"]
Outputs = Tensor | tuple[Tensor, ...]  # with a row for each image: logits n,k, or whatever a network gives
Finish = Callable[[Outputs, tuple[int, int]], Any]  # outputs of a part of a network, height and width of the images -> the network's own
Call = Callable[[Tensor], Any]  # one full batch -> its outputs, a tensor or several

_TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "autocast": torch.float32}
_DTYPES: dict[str, tuple[str, ...]] = {  # what each engine computes in on a CPU
    "eager": ("fp32", "bf16", "fp16", "autocast"),
    "compile": ("fp32", "bf16", "fp16", "autocast"),
    "aoti": ("fp32", "bf16", "fp16"),
    "onnxruntime": ("fp32",),
    "openvino": ("fp32", "bf16", "int8"),
    "native": ("fp32", "bf16"),
    "triton": ("fp32", "bf16", "fp16"),
}


@dataclass(frozen=True)
class EnginePlan:
    """How to run a model."""

    backend: Backend = "eager"
    dtype: Dtype = "fp32"  # autocast: float32 weights under torch.autocast in bf16; int8: after training, needs calibration images
    layout: Layout = "nchw"  # of what torch's engines are given; the others choose their own
    folded: bool = False  # simplified by `convmix.speed.fold` first
    graph: bool = False  # CUDA: the launches of one batch recorded once and replayed, which spares small models the time between them
    streams: int = 1  # OpenVINO: parts of a batch computed side by side, each on its share of the threads

    def __post_init__(self) -> None:
        for name, choices in (("backend", get_args(Backend)), ("dtype", get_args(Dtype)), ("layout", get_args(Layout))):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"{name}: {value} is not one of {', '.join(choices)}{did_you_mean(str(value), choices)}")
        if self.dtype not in _DTYPES[self.backend]:
            raise ConfigError(f"{self.backend} does not compute in {self.dtype}; it has {', '.join(_DTYPES[self.backend])}")
        if self.layout == "nhwc" and self.backend not in ("eager", "compile", "aoti"):
            raise ConfigError(f"{self.backend} chooses its own layout; leave layout out")
        if self.graph and self.backend not in ("eager", "triton"):
            raise ConfigError(f"{self.backend} has no graph of CUDA launches; leave graph out, or take the backend triton or eager")
        if self.streams < 1 or (self.streams > 1 and self.backend != "openvino"):
            raise ConfigError(f"streams: {self.streams}, expected 1, or more with the backend openvino")

    def __str__(self) -> str:
        parts: list[str] = [self.backend, self.dtype]
        parts += ["channels_last"] if self.layout == "nhwc" else []
        parts += ["folded"] if self.folded else []
        parts += ["graph"] if self.graph else []
        parts += [f"{self.streams} streams"] if self.streams > 1 else []
        return " ".join(parts)


def as_tuple(outputs: Outputs) -> tuple[Tensor, ...]:
    """One output or several, as several."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _each(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    """The same with every tensor changed."""
    if isinstance(outputs, Tensor):
        return change(outputs)
    if not isinstance(outputs, (tuple, list)) or not all(isinstance(output, Tensor) for output in outputs):
        raise ModelError("the model gives something else than tensors with a row for each image; a trained run can be given instead")
    return tuple(change(output) for output in outputs)


class Runner(nn.Module):
    """A built plan: float32 images n,C,H,W of any n -> the model's outputs, n rows each, float32 on the CPU.

    ModelError for another C, H or W.

    A module for the places that take one; it has no parameters of its own, and cannot be trained or moved.
    """

    def __init__(self, plan: EnginePlan, call: Call, example: Tensor) -> None:
        super().__init__()
        self.plan = plan
        self.shape = tuple(example.shape)  # B,C,H,W
        self._call, self._device = call, example.device
        self._dtype = _TORCH_DTYPES[plan.dtype] if plan.backend in ("eager", "compile", "aoti") else torch.float32
        self._format = torch.channels_last if plan.layout == "nhwc" else torch.contiguous_format

    def forward(self, images: Tensor) -> Outputs:
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape[1:]:
            expected, got = ",".join(map(str, self.shape[1:])), ",".join(map(str, images.shape))
            raise ModelError(f"this model was built for images n,{expected}, got {got}; build it again for another size")
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self.plan.dtype == "autocast"):
            parts = [self._part(part) for part in images.split(self.shape[0])]
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)  # type: ignore[arg-type]  # all are what the first one is
        return tuple(torch.cat(some) for some in zip(*parts, strict=True))

    def _part(self, images: Tensor) -> Outputs:
        # always a new tensor: compiled code would be compiled again for an input of another kind, such as one made in inference mode
        batch = torch.empty(self.shape, dtype=self._dtype, device=self._device, memory_format=self._format)
        batch[: len(images)] = images
        batch[len(images) :] = 0
        return _each(self._call(batch), lambda output: output[: len(images)].float().cpu())


def build(plan: EnginePlan, model: nn.Module, example: Tensor, *, calibration: Tensor | None = None, store: Path | None = None) -> Runner:
    """Make `model`, which stays as it is, ready to run by `plan` for batches shaped like `example` (B,C,H,W float32).

    calibration: n,C,H,W images, normalised as for the model; what int8 takes its value ranges from.
    store: a folder for the engine's own files; those that are there already are used instead of made again.
    Raises UnavailableError with the reason where the engine is not installed, cannot take this model, or fails.
    """
    if example.ndim != 4 or example.dtype != torch.float32 or 0 in example.shape:
        raise ModelError(f"example is {example.dtype} of {tuple(example.shape)}, expected float32 images B,C,H,W")
    if example.is_cuda and plan.backend not in ("eager", "compile", "triton"):
        raise UnavailableError(f"{plan.backend} is used on the CPU only")
    if plan.graph and not example.is_cuda:
        raise UnavailableError("graphs of launches are recorded on CUDA only")
    with quiet(), torch.inference_mode(False), torch.no_grad():
        try:
            net = _prepared(plan, model, example.device)
            call = _BUILDERS[plan.backend](plan, net, _as_given(plan, example), calibration, store)
            call = _recorded(call, _as_given(plan, example)) if plan.graph else call
            runner = Runner(plan, call, example)
            runner(example)  # some engines compile, and fail, only now
        except UnavailableError:
            raise
        except Exception as error:  # engines raise whatever they like; none of it may stop a program that has other engines
            kind = "" if isinstance(error, ConvmixError) else f"{type(error).__name__}: "
            raise UnavailableError(f"{kind}{first_line(error)}") from error
    return runner


def _prepared(plan: EnginePlan, model: nn.Module, device: torch.device) -> nn.Module:
    """A copy in eval mode, folded, in the plan's dtype and layout."""
    net = _folded(model) if plan.folded else copy.deepcopy(model)
    net = net.eval().requires_grad_(False).to(device)
    if plan.backend in ("eager", "compile", "aoti"):
        net = net.to(_TORCH_DTYPES[plan.dtype])
        if plan.layout == "nhwc":
            net = net.to(memory_format=torch.channels_last)
    return net


def _folded(model: nn.Module) -> nn.Module:
    from convmix.speed.fold import fold

    try:
        return fold(model)
    except ModelError as error:
        raise UnavailableError(f"cannot be folded: {error}") from error


def _as_given(plan: EnginePlan, example: Tensor) -> Tensor:
    """The example as a Runner hands it to the engine."""
    if plan.backend not in ("eager", "compile", "aoti"):
        return example.contiguous()
    return example.to(_TORCH_DTYPES[plan.dtype]).contiguous(
        memory_format=torch.channels_last if plan.layout == "nhwc" else torch.contiguous_format
    )


# one builder per engine: (plan, prepared model, example as given, calibration, store) -> Call


def _eager(plan: EnginePlan, net: nn.Module, example: Tensor, calibration: Tensor | None, store: Path | None) -> Call:
    return net


def _compile(plan: EnginePlan, net: nn.Module, example: Tensor, calibration: Tensor | None, store: Path | None) -> Call:
    import torch._inductor.config as inductor_config

    # Through torch.export, because torch keeps compiled code per class, at most 8 times, and all of our models share one `forward`.
    with torch.autocast(example.device.type, torch.bfloat16, enabled=plan.dtype == "autocast"):
        graph = torch.export.export(net, (example,)).module()
    compiled = torch.compile(graph, fullgraph=True, dynamic=False)
    # Compiled here, for freezing (weights packed for oneDNN, activations in its kernels) is taken from the configuration alone: as one
    # of `options` torch 2.15 ignores it without a word.
    with (
        inductor_config.patch(freezing=True),
        torch.inference_mode(),
        torch.autocast(example.device.type, torch.bfloat16, enabled=plan.dtype == "autocast"),
    ):
        compiled(example.clone())  # a tensor made in inference mode, as a Runner's are
    return compiled


def _aoti(plan: EnginePlan, net: nn.Module, example: Tensor, calibration: Tensor | None, store: Path | None) -> Call:
    import torch._inductor.config as inductor_config
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    with contextlib.ExitStack() as stack:
        folder = store or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        package = folder / "model.pt2"
        if not package.exists():
            with inductor_config.patch(freezing=True):
                aoti_compile_and_package(torch.export.export(net, (example,)), package_path=str(package))
        return aoti_load_package(str(package))


def _onnxruntime(plan: EnginePlan, net: nn.Module, example: Tensor, calibration: Tensor | None, store: Path | None) -> Call:
    ort = imported("onnxruntime")
    ort.disable_telemetry_events()
    path = store / "model.onnx" if store else None
    if path is not None and path.exists():
        content = path.read_bytes()
    else:
        imported("onnxscript")
        program = torch.onnx.export(torch.export.export(net, (example,)), dynamo=True, verbose=False)
        content = program.model_proto.SerializeToString()  # type: ignore[union-attr]
        if path is not None:
            path.write_bytes(content)
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: _one_or_several([torch.from_numpy(output) for output in session.run(None, {name: images.numpy()})])


def _openvino(plan: EnginePlan, net: nn.Module, example: Tensor, calibration: Tensor | None, store: Path | None) -> Call:
    ov, core = imported("openvino"), openvino_core()
    if plan.dtype == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UnavailableError("this CPU has no bf16 arithmetic")
    if len(example) % plan.streams:
        raise UnavailableError(f"batches of {len(example)} cannot be shared by {plan.streams} streams")
    part = example[: len(example) // plan.streams]
    path = store / "model.xml" if store else None
    if path is not None and path.exists():
        network = core.read_model(path)
    else:
        if plan.dtype == "int8" and calibration is None:
            raise UnavailableError("int8 needs calibration images")
        network = ov.convert_model(torch.export.export(net, (part,)))
        network.reshape(list(part.shape))
        if calibration is not None and plan.dtype == "int8":
            network = _quantized(network, calibration, batch_size=len(part))
        if path is not None:
            ov.save_model(network, path, compress_to_fp16=False)
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": plan.streams,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if plan.dtype != "int8":  # what int8 leaves out is computed in what the engine thinks best
        settings["INFERENCE_PRECISION_HINT"] = {"fp32": "f32", "bf16": "bf16"}[plan.dtype]
    compiled = core.compile_model(network, "CPU", settings)
    requests = [compiled.create_infer_request() for _ in range(plan.streams)]

    def call(images: Tensor) -> Outputs:
        parts = [part.numpy() for part in images.chunk(plan.streams)]
        for request, array in zip(requests, parts, strict=True):
            request.start_async([array], share_inputs=True)
        for request in requests:
            request.wait()
        count = len(compiled.outputs)
        outputs = [[torch.from_numpy(request.get_output_tensor(i).data) for request in requests] for i in range(count)]
        return _one_or_several([torch.cat(parts) for parts in outputs])  # copies: the buffers are reused

    return call


def _one_or_several(outputs: list[Tensor]) -> Outputs:
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _quantized(network: Any, calibration: Tensor, *, batch_size: int) -> Any:
    """An OpenVINO network in int8, its value ranges from `calibration` (NNCF, post-training)."""
    nncf = imported("nncf")
    count = -(-len(calibration) // batch_size)
    rows = torch.arange(count * batch_size) % len(calibration)  # the last batch is filled with the first images
    batches = [calibration[part].numpy() for part in rows.split(batch_size)]
    preset = nncf.QuantizationPreset.MIXED  # asymmetric activations, which GELU needs
    with signal_stack_kept():
        return nncf.quantize(network, nncf.Dataset(batches), preset=preset, subset_size=count, fast_bias_correction=True)


def _native(plan: EnginePlan, net: nn.Module, example: Tensor, calibration: Tensor | None, store: Path | None) -> Call:
    """Kernels of our own: all of a ConvMixer; in a ConvMLP the large convolutions, the rest compiled by torch."""
    from convmix.models.convmlp import ConvMLP
    from convmix.speed.native import native
    from convmix.speed.winograd import use_winograd

    dtype = _TORCH_DTYPES[plan.dtype]
    if not isinstance(net, ConvMLP):
        return native(net, dtype)
    net = _folded(net)
    use_winograd(net, dtype)
    compiled = EnginePlan("compile", plan.dtype, "nhwc")
    net = net.to(dtype).to(memory_format=torch.channels_last)
    call = _compile(compiled, net, _as_given(compiled, example), None, None)
    return lambda images: call(_as_given(compiled, images))


def _triton(plan: EnginePlan, net: nn.Module, example: Tensor, calibration: Tensor | None, store: Path | None) -> Call:
    """Kernels of our own on CUDA: the halves of a ConvMixer's blocks, the perceptrons and depthwise convolutions of a ConvMLP."""
    from convmix.ops.gpu import routes
    from convmix.speed.fused import fused

    if not routes.route_for(example.device.type):
        why = routes.said(example.device.type) or "triton runs on CUDA cards from compute capability 8.0 on, where Triton is installed"
        raise UnavailableError(why)
    return fused(net, _TORCH_DTYPES[plan.dtype])


def _recorded(call: Call, example: Tensor) -> Call:
    """`call` as one CUDA graph, for batches shaped like `example`; what is measured once is measured before the recording."""
    given = example.clone()
    stream = torch.cuda.Stream(example.device)
    stream.wait_stream(torch.cuda.current_stream(example.device))
    with torch.cuda.stream(stream), torch.inference_mode():
        for _ in range(3):
            call(given)
    torch.cuda.current_stream(example.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.inference_mode():
        answer = call(given)

    def replayed(images: Tensor) -> Outputs:
        given.copy_(images)
        graph.replay()
        return _each(answer, torch.clone)  # the next replay writes there again

    return replayed


_BUILDERS: dict[str, Callable[[EnginePlan, nn.Module, Tensor, Tensor | None, Path | None], Call]] = {
    "eager": _eager,
    "compile": _compile,
    "aoti": _aoti,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "native": _native,
    "triton": _triton,
}
