"""Activation, BatchNorm and residual in one operator, and the models that train with the operators; with our kernels and without."""

import copy
import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convmix.models.convmixer import ConvMixer
from convmix.ops import build
from convmix.ops.act_norm import act_norm

# of the largest value: what one rounding to the type allows, several times over for sums
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture(params=["kernels", "pytorch"])
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both ways to compute: our compiled kernels, and PyTorch's where there is no compiler."""
    if request.param == "pytorch":
        with request.getfixturevalue("kernels_off")():
            yield "pytorch"
    elif build.find_compiler() is None or os.environ.get("CONVMIX_KERNELS") == "off":
        pytest.skip("no C compiler here")
    else:
        yield "kernels"


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    assert actual.shape == expected.shape
    assert (actual.double() - expected.double()).abs().max().item() <= tolerance * scale if actual.numel() else True


def test_the_operator_keeps_the_contract_of_torch_library(path: str) -> None:
    x = torch.randn(2, 4, 6, 5).to(memory_format=torch.channels_last).requires_grad_()
    weight, bias = torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (x, torch.randn_like(x).requires_grad_(), weight, bias, 1e-5, "GELU")
    torch.library.opcheck(torch.ops.convmix.act_norm.default, arguments, test_utils=tests)


def test_the_same_bits_on_every_call_and_with_any_number_of_threads(path: str) -> None:
    u = torch.randn(37, 24, 9, 10).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    norm, threads, found = nn.BatchNorm2d(24), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            y = act_norm(u, nn.GELU(), norm)
            found.append((y, *torch.autograd.grad(y, (u, norm.weight, norm.bias), u.detach())))
    finally:
        torch.set_num_threads(threads)
    for run in found[2:] if path == "pytorch" else found[:-1]:
        assert all(torch.equal(a, b) for a, b in zip(run, found[-1], strict=True))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("act", [nn.GELU(), nn.ReLU()], ids=["gelu", "relu"])
@pytest.mark.parametrize("with_residual", [True, False])
def test_act_norm_equals_the_modules_in_float64(path: str, with_residual: bool, act: nn.Module, dtype: torch.dtype) -> None:
    for shape in ((2, 16, 9, 11), (1, 5, 1, 2), (1, 33, 40, 17)):
        torch.manual_seed(0)
        u = (6 * torch.randn(shape)).to(dtype).to(memory_format=torch.channels_last).requires_grad_()  # GELU's flat ends too
        residual = torch.randn_like(u).requires_grad_() if with_residual else None
        norm = nn.BatchNorm2d(shape[1]).to(torch.float64 if dtype == torch.float64 else torch.float32)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        norm64 = copy.deepcopy(norm).double()
        y = act_norm(u, act, norm, residual)
        dy = torch.randn_like(y)
        leaves = [u, norm.weight, norm.bias] + ([residual] if residual is not None else [])
        u64, r64 = u.detach().double().requires_grad_(), residual.detach().double().requires_grad_() if residual is not None else None
        y64 = norm64(act(u64)) if r64 is None else norm64(act(u64)) + r64
        leaves64 = [u64, norm64.weight, norm64.bias] + ([r64] if r64 is not None else [])
        found, expected = torch.autograd.grad(y, leaves, dy), torch.autograd.grad(y64, leaves64, dy.double())
        for actual, exact in zip((y, *found), (y64, *expected), strict=True):
            close(actual, exact, TOLERANCES[dtype])
        close(norm.running_mean, norm64.running_mean, max(TOLERANCES[dtype] / 10, 1e-6))
        close(norm.running_var, norm64.running_var, max(TOLERANCES[dtype] / 10, 1e-6))
        assert norm.num_batches_tracked == 1


def test_a_mean_far_above_the_spread_does_not_swallow_it() -> None:
    u = (1000 + torch.randn(8, 20, 16, 16, generator=torch.Generator().manual_seed(0))).to(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(20, momentum=1.0)
    y = act_norm(u, nn.ReLU(), norm)
    exact = nn.BatchNorm2d(20, momentum=1.0).double()
    close(y, exact(u.double()), 1e-3)
    close(norm.running_var, exact.running_var, 1e-4)


def test_act_norm_leaves_what_it_cannot_fuse_to_the_modules() -> None:
    u = torch.randn(2, 4, 6, 5).to(memory_format=torch.channels_last)
    for norm in (nn.BatchNorm2d(4).eval(), nn.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4)):
        other = copy.deepcopy(norm)
        if norm.momentum is not None and norm.affine and norm.training:
            norm.register_forward_hook(lambda *_: None)
        assert torch.equal(act_norm(u, nn.GELU(), norm), other(F.gelu(u)))
        assert norm.running_mean is not None and torch.equal(norm.running_mean, other.running_mean)


def training_step(model: nn.Module, images: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss = model(images).square().mean()
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None), *(b.clone() for b in model.buffers())]


def test_a_training_step_equals_the_step_of_plain_modules(path: str) -> None:
    torch.manual_seed(0)
    ours = ConvMixer(24, 3, 5, 2, num_classes=10).to(memory_format=torch.channels_last)
    plain = copy.deepcopy(ours)

    def unfused(x: Tensor) -> Tensor:
        x = plain.stem[2](plain.stem[1](plain.stem[0](x)))
        for block in plain.blocks:
            conv, act, norm = block[0].fn
            x = norm(act(F.conv2d(x, conv.weight, conv.bias, padding=2, groups=24))) + x
            x = block[3](block[2](block[1](x)))
        return plain.forward_head(x)

    images = torch.randn(4, 3, 18, 18)
    found = training_step(ours, images)
    plain.forward = unfused
    for actual, expected in zip(found, training_step(plain, images), strict=True):
        close(actual.double(), expected.double(), 2e-5)


@pytest.mark.slow
def test_compile_and_export_take_a_model_without_a_break() -> None:
    torch.manual_seed(0)
    model = ConvMixer(16, 2, 5, 2, num_classes=3).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 12, 12)
    expected = training_step(copy.deepcopy(model), images)
    compiled = copy.deepcopy(model)
    compiled.compile(backend="aot_eager", fullgraph=True)
    for actual, exact in zip(training_step(compiled, images), expected, strict=True):
        close(actual.double(), exact.double(), 1e-5)
    program = torch.export.export(model.eval(), (images,))
    assert not any("convmix" in str(node.target) for node in program.graph.nodes)  # runs where convmix is not installed
    close(program.module()(images), model(images), 1e-6)


def test_weights_with_gaps_give_the_same_bits():
    torch.manual_seed(0)
    u, weight, bias = torch.randn(4, 4096, 3, 3), torch.rand(8192) + 0.5, torch.randn(8192)
    u = u.to(memory_format=torch.channels_last)
    gaps = (weight[::2], bias[::2])
    packed = tuple(t.contiguous() for t in gaps)
    y, mean, var = torch.ops.convmix.act_norm(u, None, *packed, 1e-5, "gelu")
    gradients = torch.ops.convmix.act_norm_backward(y, u, packed[0], mean, var, 1e-5, "gelu")
    for _ in range(20):
        found = torch.ops.convmix.act_norm(u, None, *gaps, 1e-5, "gelu")
        assert all(torch.equal(a, b) for a, b in zip(found, (y, mean, var), strict=True))
        found = torch.ops.convmix.act_norm_backward(y, u, gaps[0], mean, var, 1e-5, "gelu")
        assert all(torch.equal(a, b) for a, b in zip(found, gradients, strict=True))
