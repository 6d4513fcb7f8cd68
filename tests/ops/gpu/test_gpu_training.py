"""The registered operators on the Triton route: training steps against float64, layouts, autocast, compiling, folded inference."""

import copy

import pytest
import torch
from gpu_images import EVERYTHING, everything, images
from torch.nn import functional as F

from convmix.models.catalog import create_model
from convmix.models.convmixer import ConvMixer
from convmix.ops.depthwise import depthwise_conv2d, reference
from convmix.ops.gpu import convolution, norm
from convmix.speed.backends import EnginePlan, build


def step(model, pixels):
    model.zero_grad()
    loss = model(pixels).float().square().mean()
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters()), *(b.clone() for b in model.buffers())]


def mixer(device, act="gelu", **more):
    return ConvMixer(16, 2, 3, 4, num_classes=5, act=act, **more).to(device, memory_format=torch.channels_last)


def assert_step(model, pixels, tolerance):
    """One training step equals the step of plain modules in float64, running statistics too."""
    exact = [t.double() for t in plain_step(copy.deepcopy(model).cpu().double(), pixels.cpu().double())]
    small = 0.1 * max(expected.norm() for expected in exact)  # what is smaller is what larger terms left of one another
    for found, expected in zip(step(model, pixels), exact, strict=True):
        assert (found.double().cpu() - expected).norm() <= tolerance * expected.norm().clamp(min=small)


def plain_step(model, pixels):
    """The same step in float64, which no kernel of ours takes on this route."""

    def forward(x):
        x = model.stem[2](model.stem[1](model.stem[0](x)))
        for block in model.blocks:
            conv, act, norm = block[0].fn
            k = conv.kernel_size[0]
            y = norm(act(reference(x, conv.weight, conv.bias, (k - 1) // 2)))
            x = y + x if block[0].residual else y
            y = block[3](block[2](block[1](x)))
            x = y + x if block.residual else y
        return model.forward_head(x)

    model.forward = forward
    return step(model, pixels)


@pytest.mark.parametrize(("act", "residual"), [("gelu", "depthwise"), ("relu", "none")][: 1 + EVERYTHING])
def test_a_training_step_equals_float64(act, residual, device, monkeypatch):
    calls = []
    monkeypatch.setattr(convolution, "convolve_with_moments", counted(convolution.convolve_with_moments, calls))
    monkeypatch.setattr(norm, "gradient", counted(norm.gradient, calls))
    assert_step(mixer(device, act, residual=residual), images((2, 3, 13, 9), torch.float32, device), 2e-5)
    assert len(calls) == 2 + 5  # both blocks' convolutions; their norms, those of the pointwise halves, the stem's


def counted(function, calls):
    def count(*args, **kwargs):
        calls.append(function)
        return function(*args, **kwargs)

    return count


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16][: 1 + EVERYTHING], ids=str)
def test_a_training_step_under_autocast_stays_near_float64(dtype, device):
    with torch.autocast(device.type, dtype):
        model = mixer(device)
        assert_step(model, images((4, 3, 8, 12), torch.float32, device), 0.06 if dtype == torch.bfloat16 else 0.01)


@everything
def test_checkpointed_and_compiled_steps_are_the_same(device):
    model, pixels = mixer(device), images((2, 3, 8, 8), torch.float32, device)
    expected = step(copy.deepcopy(model), pixels)
    checkpointed = copy.deepcopy(model)
    checkpointed.set_grad_checkpointing(True)
    assert all(torch.equal(a, b) for a, b in zip(step(checkpointed, pixels), expected, strict=True))
    compiled = copy.deepcopy(model)
    compiled.compile(backend="aot_eager", fullgraph=True)
    for found, exact in zip(step(compiled, pixels), expected, strict=True):
        assert (found.double() - exact.double()).norm() <= 1e-6 * exact.double().norm().clamp(min=1e-2)


@everything
def test_a_step_repeats_to_the_bit(device):
    model, pixels = mixer(device), images((1, 3, 8, 8), torch.float32, device)
    runs = [step(copy.deepcopy(model), pixels) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("layout", ["strided", "contiguous", "transposed"] if EVERYTHING else ["strided"])
def test_every_layout_gives_the_same_numbers(layout, device, close):
    x = {
        "contiguous": torch.randn(2, 5, 4, 6, device=device),
        "strided": images((2, 10, 4, 12), torch.float32, device)[:, ::2, :, ::2],
        "transposed": images((2, 5, 6, 4), torch.float32, device).transpose(2, 3),
    }[layout].requires_grad_()  # fmt: skip
    weight, bias = torch.randn(5, 1, 4, 4, device=device, requires_grad=True), torch.randn(5, device=device, requires_grad=True)
    leaves = (x, weight, bias)
    exact_leaves = [t.detach().double().requires_grad_() for t in leaves]
    y, exact = depthwise_conv2d(*leaves), reference(*exact_leaves, 1)
    dy = torch.randn_like(y)
    for found, expected in zip(
        (y, *torch.autograd.grad(y, leaves, dy)), (exact, *torch.autograd.grad(exact, exact_leaves, dy.double())), strict=True
    ):
        close(found, expected, 2e-6)


def test_types_and_sizes_without_kernels_fall_back(device):
    for shape, k, dtype in (((2, 3, 5, 5), 3, torch.float64), ((1, 3, 20, 20), 17, torch.float32), ((1, 3, 4, 4), 1, torch.float32)):
        x, weight = torch.randn(shape, device=device, dtype=dtype), torch.randn(shape[1], 1, k, k, device=device, dtype=dtype)
        assert torch.allclose(depthwise_conv2d(x, weight), reference(x, weight, None, (k - 1) // 2), atol=1e-5)


def test_the_operator_can_be_differentiated_twice(device, close):
    x = images((2, 4, 5, 4), torch.float32, device).requires_grad_()
    others = [torch.randn(s, device=device, requires_grad=True) for s in ((4, 1, 3, 3), (4,), (4,), (4,))]
    exact = [t.detach().double().requires_grad_() for t in (x, *others)]

    def plain(x, weight, bias, norm_weight, norm_bias):
        g = F.gelu(F.conv2d(x, weight, bias, padding=1, groups=4))
        return F.batch_norm(g, None, None, norm_weight, norm_bias, True) + x

    def twice(y, leaves):
        slopes = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(s.square().sum() for s in slopes), leaves)

    ours = torch.ops.convmix.mix_space(x, *others, 1e-5, "GELU", True)[0]
    for found, expected in zip(twice(ours, [x, *others]), twice(plain(*exact), exact), strict=True):
        close(found, expected, 1e-5)


def test_the_operator_keeps_the_contract_of_torch_library(device):
    x = images((1, 4, 3, 4), torch.float32, device).requires_grad_()
    others = [torch.randn(s, device=device, requires_grad=True) for s in ((4, 1, 3, 3), (4,), (4,), (4,))]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.convmix.mix_space.default, (x, *others, 1e-5, "GELU", True), test_utils=tests)


FOLDED = [("convmixer", "bf16"), ("convmlp", "fp32"), ("convmixer", "fp32"), ("convmlp", "bf16")]


@pytest.mark.parametrize(("family", "dtype"), FOLDED if EVERYTHING else FOLDED[:2])
def test_folded_models_answer_as_the_original(family, dtype, device):
    name, arguments = {
        "convmixer": ("convmixer_16_2_k5_p4", {}),
        "convmlp": ("convmlp", {"blocks": [1, 1, 1], "dims": [16, 16, 32], "mlp_ratios": [1, 1, 1], "channels": 8, "n_conv_blocks": 1}),
    }[family]
    model = create_model(name, num_classes=7, model_args=arguments).to(device)
    side = 12 if family == "convmixer" and device.type == "cpu" else 32  # 3 x 3 patches are enough of a wait, and so is one image
    shape = (1 + EVERYTHING, 3, side, side)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(shape, device=device) * 2 + 1)  # norms with statistics that matter
    pixels = torch.randn(shape, device=device)
    expected = model.eval().cpu().double()(pixels.cpu().double())
    for graph in (False, True) if device.type == "cuda" else (False,):
        found = build(EnginePlan("triton", dtype, graph=graph), model.float().to(device), torch.zeros(shape, device=device))(pixels)
        assert (found.double() - expected).norm() <= {"fp32": 1e-5, "bf16": 0.05}[dtype] * expected.norm()
