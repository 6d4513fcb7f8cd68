"""Every Triton kernel compiles for a Hopper card, on any machine: what the interpreter accepts, the compiler may not. No card is needed."""

import os

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton.backends.compiler")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"),
]
HOPPER, LANES = 90, 32
TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}


class Recorder:
    """Takes a kernel's place, and keeps what it would have been launched with."""

    def __init__(self, kernel) -> None:
        self.kernel, self.calls = kernel, []

    def __getitem__(self, grid):
        return lambda *args, **kwargs: self.calls.append((args, kwargs))


def compiled(kernel, args, settings):
    """The kernel as Triton would compile it for these arguments, for a card that is not there."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {name: settings.pop(name) for name in ("num_warps", "num_stages", "enable_fp_fusion") if name in settings}
    bound = dict(zip(kernel.arg_names, args, strict=False)) | settings
    signature, constants, alignment = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        value = bound[name]
        if name in settings or value is None or (isinstance(value, int) and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[name], alignment[(i,)] = TYPES[value.dtype], [["tt.divisibility", 16]]
        else:
            signature[name] = "i32" if isinstance(value, int) else "fp32"
    return triton.compile(ASTSource(kernel, signature, constants, alignment), target=GPUTarget("cuda", HOPPER, LANES), options=options)


def test_every_kernel_compiles_for_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    from convmix.ops.gpu import convolution, correlation, moments, norm, pointwise

    recorders = [
        (module, name, Recorder(kernel))
        for module in (convolution, correlation, moments, norm, pointwise)
        for name, kernel in vars(module).items()
        if name.startswith("_") and hasattr(kernel, "arg_names")
    ]
    for module, name, recorder in recorders:
        monkeypatch.setattr(module, name, recorder)
    with torch.device("meta"):
        x = torch.empty(64, 256, 16, 16, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
        weight, each, taps = torch.empty(256, 1, 5, 5), torch.empty(256), torch.empty(5, 5, 256, dtype=torch.bfloat16)
        square = torch.empty(256, 256, 1, 1, dtype=torch.bfloat16)
    launch = convolution.candidates(x)[-1]
    convolution.convolve(x, weight, each, 2, launch=launch)
    convolution.convolve(x, weight, None, 2, addend=x, launch=launch)
    convolution.convolve_with_moments(x, weight, each, 2, "GELU", launch=launch)
    convolution.mix(x, taps, each, each, None, 2, "GELU", launch=launch)
    correlation.correlate(x, x, 5, 2, launch=correlation.candidates(x, 5)[-1])
    summing = norm.candidates(x, norm.SUMS, summing=True)[0]
    norm.moments(x, "GELU", launch=summing)
    norm.gradient_sums(x, x, each, each, 1e-5, "GELU", launch=summing)
    norm.normalise(x, each, each, each, each, 1e-5, "GELU", x, launch=norm.PASSES[0])
    norm.gradient(x, x, each, each, each, each, each, 1e-5, "RELU", launch=norm.PASSES[0])
    norm.activate(x, "GELU", each, x)
    pointwise.multiply(x, square, each, "GELU", each, launch=pointwise.TILES[0])
    for module, name, recorder in recorders:
        assert recorder.calls, f"{module.__name__}.{name} was not launched"
        for args, settings in recorder.calls:
            code = compiled(recorder.kernel, args, dict(settings))
            assert code.metadata.shared <= 227 * 1024, f"{module.__name__}.{name}: {code.metadata.shared} bytes of shared memory"
