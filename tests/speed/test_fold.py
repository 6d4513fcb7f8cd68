"""fold: the same answers from fewer operations, in every size and argument, and a refusal where they would not be the same."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from convmix.errors import ModelError
from convmix.models.catalog import NAMED, create_model
from convmix.models.convmixer import ConvMixer
from convmix.models.convmlp import ConvMLP
from convmix.models.multiscale import MultiScaleConvMixer, TokenMixing
from convmix.speed.fold import Folded, Shift, fold

SIZES = {  # height and width that leave a few positions, and pixels that fill no patch
    "convmixer_1536_20": (39, 50),
    "convmixer_768_32": (39, 50),
    "convmixer_1024_20_ks9_p14": (75, 100),
    "convmixer_256_8": (13, 19),
}
SHALLOW = {  # wide ones with few of their blocks, which are all alike; convmixer_768_32 has all of its 32
    "convmixer_1536_20": {"depth": 3},
    "convmixer_1024_20_ks9_p14": {"depth": 3},
    "convmlp_m": {"blocks": (2, 2, 1)},
    "convmlp_l": {"blocks": (2, 2, 1)},
    "multiscale_convmixer_m": {"depth": 4},
}
LARGE = ("convmixer_768_32", "convmlp_l", "multiscale_convmixer_s")


def images(count: int, size: tuple[int, int], channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth colours with noise on top: unlike pure noise they keep their variance through the mean of many pixels."""
    generator = torch.Generator().manual_seed(seed)
    colours = F.interpolate(torch.randn(count, channels, 3, 3, generator=generator), size, mode="bicubic")
    return colours + 0.3 * torch.randn(count, channels, *size, generator=generator)


@torch.no_grad()
def lived_in(model: nn.Module, size: tuple[int, int], *, channels: int = 3, negative: float = 0.0) -> nn.Module:
    """The model with random biases, random norms (a share of them negative) and the statistics of real activations."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        bias = getattr(module, "bias", None)
        if bias is not None:
            bias.add_(0.2 * torch.randn(bias.shape, generator=generator))
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            sign = torch.where(torch.rand(module.weight.shape, generator=generator) < negative, -1.0, 1.0)
            module.weight.copy_(sign * (0.5 + torch.rand(module.weight.shape, generator=generator)))
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    model.train()
    for seed in (2, 3):
        model(images(4, size, channels, seed))
    return model.eval()


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest one, as a share of the largest expected value."""
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


@torch.no_grad()
def assert_exact(model: nn.Module, x: Tensor) -> Folded:
    """The algebra: 1e-10 in float64, whatever the rounding of a model with odd arguments is. Returns the fold."""
    exact = copy.deepcopy(model).double()
    folded = fold(exact)
    assert difference(folded(x.double()), exact(x.double())) <= 1e-10
    return folded


@torch.no_grad()
def assert_equal(model: nn.Module, x: Tensor) -> Folded:
    """Exact, and 1e-5 in float32; where a deep model's own rounding is near that, twice its rounding. Returns the fold."""
    assert_exact(model, x)
    folded = fold(model)
    expected = copy.deepcopy(model).double()(x.double())
    assert difference(folded(x), expected) <= max(1e-5, 2 * difference(model(x), expected))
    return folded


def small(family: str) -> nn.Module:
    """A small model of the family, with four classes and realistic norms."""
    torch.manual_seed(0)
    model: nn.Module
    if family == "convmixer":
        model = ConvMixer(8, 3, 5, 3, num_classes=4)
    elif family == "multiscale":
        model = MultiScaleConvMixer(7, 3, stem_dim=5, num_classes=4, drop_path_rate=0.2)
    else:
        model = ConvMLP((1, 2, 1), (8, 10, 12), mlp_ratios=(2, 2, 2), channels=6, num_classes=4)
    return lived_in(model, (37, 40), negative=0.2)


def kinds(module: nn.Module) -> set[type]:
    return {type(m) for m in module.modules()}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in NAMED])
def test_every_size_answers_the_same_without_batchnorm(name):
    torch.manual_seed(0)
    size = SIZES.get(name, (70, 75))
    folded = assert_equal(lived_in(create_model(name, model_args=SHALLOW.get(name)), size), images(2, size, seed=4))
    assert nn.BatchNorm2d not in kinds(folded)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    kernel_size=st.integers(1, 8),
    patch_size=st.integers(1, 4),
    act=st.sampled_from(["gelu", "relu"]),
    pool=st.sampled_from(["avg", "fast", "max", "avgmax", "catavgmax"]),
    num_classes=st.sampled_from([0, 5]),
    size=st.tuples(st.integers(6, 21), st.integers(6, 21)),
)
def test_any_convmixer(kernel_size, patch_size, act, pool, num_classes, size):
    torch.manual_seed(0)
    model = ConvMixer(6, 3, kernel_size, patch_size, in_chans=2, num_classes=num_classes, act=act, global_pool=pool, drop_rate=0.5)
    assert_exact(lived_in(model, (16, 16), channels=2, negative=0.3), images(3, size, 2))


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    kernel_sizes=st.lists(st.integers(1, 8), min_size=1, max_size=4, unique=True),
    combine=st.sampled_from(["sum", "split"]),
    channel_mixing=st.sampled_from(["conv", "mlp"]),
    patch_size=st.sampled_from([2, 4, 6]),
    act=st.sampled_from(["gelu", "relu", "leaky_relu"]),
    pool=st.sampled_from(["avg", "max"]),
    size=st.tuples(st.integers(6, 21), st.integers(6, 21)),
)
def test_any_multiscale_convmixer(kernel_sizes, combine, channel_mixing, patch_size, act, pool, size):
    torch.manual_seed(0)
    model = MultiScaleConvMixer(
        7,
        4,
        kernel_sizes=kernel_sizes,
        combine=combine,
        channel_mixing=channel_mixing,
        patch_size=patch_size,
        act=act,
        stem_dim=5,
        num_classes=4,
        global_pool=pool,
        drop_path_rate=0.3,
    )
    folded = assert_exact(lived_in(model, (16, 16), negative=0.3), images(3, size))
    assert all(len(m.branches) == 1 for m in folded.modules() if isinstance(m, TokenMixing))


@pytest.mark.slow
@settings(max_examples=8, deadline=None, derandomize=True)
@given(num_classes=st.sampled_from([0, 5]), pool=st.sampled_from(["avg", "max"]), size=st.tuples(st.integers(32, 75), st.integers(32, 75)))
def test_any_convmlp(num_classes, pool, size):
    torch.manual_seed(0)
    model = ConvMLP((1, 2, 1), (8, 10, 12), mlp_ratios=(2, 1.5, 3), channels=6, num_classes=num_classes, global_pool=pool)
    assert_exact(lived_in(model, (64, 64), negative=0.3), images(3, size))


@pytest.mark.parametrize("family", ["convmixer", "multiscale", "convmlp"])
def test_a_headless_model_returns_its_map(family):
    model = small(family)
    model.reset_classifier(0, "")
    assert_equal(model, images(2, (37, 40)))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("even", [False, True])
def test_timms_own_convmixer(even):
    model = timm.models.convmixer.ConvMixer(8, 3, kernel_size=4 if even else 5, patch_size=3, num_classes=5)
    folded = assert_equal(lived_in(model, (16, 20)), images(2, (16, 20)))
    assert nn.BatchNorm2d not in kinds(folded)


@pytest.mark.parametrize("file", ["convmixer_timm_gelu", "convmixer_timm_relu"])
def test_logits_equal_the_original(shared, file):
    golden = load_file(shared / "golden" / f"{file}.safetensors")
    weights = {k.removeprefix("param."): v for k, v in golden.items() if k.startswith("param.")}
    dim, _, patch, _ = weights["stem.0.weight"].shape
    depth = sum(k.endswith("fn.0.bias") for k in weights)
    model = ConvMixer(
        dim, depth, weights["blocks.0.0.fn.0.weight"].shape[-1], patch, num_classes=len(weights["head.bias"]), act=file.rsplit("_")[-1]
    )
    model.load_state_dict(weights)
    assert (fold(model)(golden["eval.input"]) - golden["eval.logits"]).abs().max() <= 1e-5


@pytest.mark.parametrize("scale", [0.0, 1e-30, -1e-6])
def test_a_channel_that_cannot_be_divided_by_keeps_its_norm(scale):
    model = small("convmixer")
    model.stem[2].weight.data[1] = scale
    model.blocks[1][3].weight.data[:2] = scale
    folded = assert_equal(model, images(2, (37, 40)))
    stays = [type(layers[-1]) for layers in (folded.parts.stem, *folded.parts.blocks)]
    assert stays == [nn.BatchNorm2d, Shift, nn.BatchNorm2d, nn.Identity]


def test_statistics_and_eps_are_those_of_the_model():
    for family in ("convmixer", "multiscale", "convmlp"):
        model = small(family)
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                module.eps = 0.3
        assert_equal(model, images(2, (37, 40)))


def test_norms_and_convolutions_may_lack_their_weights():
    model = small("convmixer")
    model.stem[2] = nn.BatchNorm2d(8, affine=False).eval()
    model.blocks[0][1] = nn.Conv2d(8, 8, 1, bias=False)
    assert_equal(model, images(2, (37, 40)))


@pytest.mark.parametrize("family", ["convmixer", "multiscale", "convmlp"])
def test_the_given_model_and_the_random_numbers_stay(family):
    model = small(family).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modules = [type(m) for m in model.modules()]
    random = torch.get_rng_state()
    folded = fold(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training and all(p.requires_grad for p in model.parameters()) and [type(m) for m in model.modules()] == modules
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not folded.training and not any(p.requires_grad for p in folded.parameters())


@pytest.mark.parametrize("family", ["convmixer", "multiscale", "convmlp"])
def test_evaluation_is_meant_whatever_the_mode(family):
    model, x = small(family), images(2, (37, 40))
    model.reset_classifier(4, "max")  # ConvMixer's last BatchNorm stays
    expected = model.eval()(x).detach()
    assert difference(fold(model.train()).train()(x), expected) <= 1e-5


@pytest.mark.parametrize("family", ["convmixer", "multiscale", "convmlp"])
def test_other_types_and_layouts(family):
    model, x = small(family), images(2, (37, 40))
    expected = model(x).detach()
    nhwc = x.contiguous(memory_format=torch.channels_last)
    assert difference(fold(model).to(memory_format=torch.channels_last)(nhwc), expected) <= 1e-5
    for dtype in (torch.bfloat16, torch.float16):
        for lower in (fold(model).to(dtype), fold(copy.deepcopy(model).to(dtype))):
            answer = lower(x.to(dtype))
            assert answer.dtype == dtype and difference(answer.float(), expected) <= 0.05
    with torch.autocast("cpu", torch.bfloat16):
        assert difference(fold(model)(x).float(), expected) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("family", ["convmixer", "multiscale", "convmlp"])
def test_exports_with_any_batch_and_size(family):
    model = small(family)
    folded = fold(model)
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(folded, (images(2, (64, 96)),), dynamic_shapes=({**dynamic},)).module()
    for count, size in ((3, (64, 96)), (5, (70, 85))):
        x = images(count, size)
        assert difference(program(x), model(x).detach()) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("family", ["convmixer", "multiscale", "convmlp"])
def test_compiles_as_one_graph(family):
    model, x = small(family), images(2, (37, 40))
    with torch.no_grad():
        compiled = torch.compile(fold(model), backend="aot_eager", fullgraph=True)  # the code made of the graph: test_backends.py
        assert difference(compiled(x), model(x)) <= 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.parametrize("family", ["multiscale", "convmlp"])  # a folded ConvMixer has no operation that these have not
def test_runs_in_onnxruntime(family, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = small(family)
    path = str(tmp_path / "folded.onnx")
    batch = {0: torch.export.Dim.DYNAMIC}
    torch.onnx.export(fold(model), (images(2, (37, 40)),), path, dynamo=True, dynamic_shapes=(batch,), input_names=["x"], verbose=False)
    x = images(3, (37, 40))
    found = runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x.numpy()})[0]
    assert difference(torch.from_numpy(found), model(x).detach()) <= 1e-5


class Doubled(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def _hook(model: nn.Module) -> None:
    model.blocks[1][1].register_forward_hook(lambda module, args, output: 2 * output)


def _no_statistics(model: nn.Module) -> None:
    model.blocks[0][0].fn[2] = nn.BatchNorm2d(8, track_running_stats=False)


def _replaced(model: nn.Module) -> None:
    model.blocks[1][1] = Doubled(8, 8, 1)


def _parametrized(model: nn.Module) -> None:
    parametrizations.weight_norm(model.blocks[1][0].fn[0])


def _shared(model: nn.Module) -> None:
    model.blocks[1] = model.blocks[0]


def _patched(model: nn.Module) -> None:
    model.blocks[0].forward = lambda x: x


def _dense(model: nn.Module) -> None:
    model.blocks[1][0].fn[0] = nn.Conv2d(8, 8, 5, padding=2)


def _padded(model: nn.Module) -> None:
    model.blocks[1][1] = nn.Conv2d(8, 8, 1, padding=1)


def _mixed(model: nn.Module) -> None:
    model.stem[2].double()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_hook, r"blocks\.1\.1 has a hook"),
        (_no_statistics, r"blocks\.0\.0\.fn\.2 is a BatchNorm without running statistics"),
        (_replaced, r"blocks\.1 is Block\(MixSpace, Doubled, GELU, BatchNorm2d\), expected .*Conv2d, activation, BatchNorm2d"),
        (_parametrized, r"blocks\.1\.0\.fn is Sequential\(ParametrizedDepthwiseConv2d"),
        (_shared, r"blocks\.1 is the same module as blocks\.0"),
        (_patched, r"blocks\.0 has a forward of its own"),
        (_dense, r"blocks\.1 is not a depthwise and a pointwise convolution"),
        (_padded, r"blocks\.1 is not a depthwise and a pointwise convolution"),
        (_mixed, r"weights in torch\.float32 and torch\.float64"),
    ],
)
def test_what_would_not_be_exact_is_refused(change: Callable[[nn.Module], None], message: str):
    model = small("convmixer")
    change(model)
    with pytest.raises(ModelError, match=message):
        fold(model)


def test_a_norm_behind_something_unknown_is_refused():
    model = small("convmlp")
    model.tokenizer.block[3] = Doubled(3, 3, 3, padding=1)
    with pytest.raises(ModelError, match=r"tokenizer\.block\.4 is a BatchNorm that does not directly follow"):
        fold(model)


def test_a_branch_that_is_no_depthwise_convolution_is_refused():
    model = small("multiscale")
    model.blocks[0].token_mixing.branches[1][0] = nn.Conv2d(7, 7, 3, padding=1)
    with pytest.raises(
        ModelError, match=r"branches\.1 is Sequential\(Conv2d, Identity\), expected Sequential\(DepthwiseConv2d, Identity\)"
    ):
        fold(model)


def test_weights_that_overflow_are_refused():
    model = small("multiscale").half()
    model.stem[1].weight.data.fill_(60000)
    model.stem[1].running_var.fill_(1e-4)
    with pytest.raises(ModelError, match=r"stem\.0\.weight would not be finite in torch\.float16"):
        fold(model)


def test_other_architectures_and_wrappers_are_refused():
    for model in (timm.create_model("resnet18"), nn.Sequential(small("convmixer")), create_model("convmixer_256_8", features_only=True)):
        with pytest.raises(ModelError, match=rf"cannot fold {type(model).__name__}, expected a whole model of ConvMixer, Multi"):
            fold(model)
