"""Every engine gives the original's logits, for any number of images, or says why it cannot."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from convmix.errors import ConfigError, ModelError
from convmix.hardware import fast_bf16
from convmix.models.catalog import create_model
from convmix.speed import backends
from convmix.speed.backends import EnginePlan, Runner, build
from convmix.speed.packages import UnavailableError

FAMILIES = {
    "convmixer": ("convmixer_16_2_k5_p4", {}),
    "multiscale": ("multiscale_convmixer", {"dim": 16, "depth": 2, "patch_size": 4}),
    "convmlp": ("convmlp", {"blocks": [1, 1, 1], "dims": [16, 16, 32], "mlp_ratios": [1, 1, 1], "channels": 8, "n_conv_blocks": 1}),
}
TOLERANCE = {"fp32": 1e-5, "bf16": 0.05, "fp16": 0.01, "autocast": 0.05, "int8": 0.25}  # of the largest logit
EAGER = [
    EnginePlan(layout="nhwc"),
    EnginePlan(dtype="bf16"),
    EnginePlan(dtype="fp16", layout="nhwc"),
    EnginePlan(dtype="autocast"),
    EnginePlan(folded=True),
]
# The runtimes translate operations, so every family meets each of them. Compilers take all of torch's, and what differs between plans is
# how the compiler is called: every plan is there once; ConvMLP is compiled behind our kernels, in test_convmlp_convolutions.py.
ENGINES = (
    *((family, plan) for plan in (EnginePlan("onnxruntime"), EnginePlan("openvino")) for family in FAMILIES),
    ("convmixer", EnginePlan("openvino", "bf16", streams=2)),
    ("convmixer", EnginePlan("openvino", "int8")),  # convolutions
    ("convmlp", EnginePlan("openvino", "int8")),  # and matrix products
    ("convmixer", EnginePlan("compile")),
    ("convmixer", EnginePlan("compile", "autocast")),
    ("convmixer", EnginePlan("compile", "bf16", "nhwc", folded=True)),
    ("convmixer", EnginePlan("aoti")),
)
Engine = Callable[[str, EnginePlan], tuple[Runner, Path]]


def model_of(family: str) -> nn.Module:
    """A small model whose norms have statistics that matter."""
    torch.manual_seed(0)
    name, arguments = FAMILIES[family]
    model = create_model(name, num_classes=7, model_args=arguments)
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(8, 3, 32, 32) * 2 + 1)  # training mode: BatchNorm learns what it sees
    return model.eval()


def images(n: int, *, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def need(plan: EnginePlan) -> None:
    """Skip where the engine is not installed."""
    for package in {"onnxruntime": ("onnxruntime", "onnxscript"), "openvino": ("openvino",)}.get(plan.backend, ()):
        pytest.importorskip(package)
    if plan.dtype == "int8":
        pytest.importorskip("nncf")


def built(plan: EnginePlan, model: nn.Module, store: Path | None = None) -> Runner:
    need(plan)
    try:
        return build(plan, model, images(4), calibration=images(16, seed=2), store=store)
    except UnavailableError as error:
        if "has no bf16" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """family, plan -> the family's `model_of` built once, and the folder with the engine's own files; read only."""

    @functools.cache
    def make(family: str, plan: EnginePlan) -> tuple[Runner, Path]:
        store = tmp_path_factory.mktemp("engine")
        return built(plan, model_of(family), store), store

    return make


def assert_equal(runner: Runner, model: nn.Module, n: int) -> None:
    with torch.no_grad():
        expected = model(images(n))
    found = runner(images(n))
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    if n:
        assert float((found - expected).abs().max() / expected.abs().max()) < TOLERANCE[runner.plan.dtype]


@pytest.mark.parametrize("plan", EAGER, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_eager_plans_equal_the_model(family: str, plan: EnginePlan) -> None:
    model = model_of(family)
    runner = built(plan, model)
    for n in (4, 3, 9):  # a full batch, a part of one, more than one
        assert_equal(runner, model, n)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "plan"), ENGINES, ids=str)
def test_engines_equal_the_model(family: str, plan: EnginePlan, engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    runner, _ = engine(family, plan)
    if plan.backend in ("onnxruntime", "openvino"):
        assert capfd.readouterr() == ("", "")  # although the exporters draw bars and warn
    model = model_of(family)
    for n in (4, 3, 9):
        assert_equal(runner, model, n)
    with torch.inference_mode():
        assert_equal(runner, model, 4)  # as `run_model` calls it


@pytest.mark.slow
def test_compiled_models_of_one_class_do_not_share_torchs_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch, "compile", functools.partial(torch.compile, backend="aot_eager")
    )  # the limit is of graphs, not of their code
    with torch._dynamo.config.patch(recompile_limit=1):
        first, second = model_of("convmixer"), model_of("convmixer")
        with torch.no_grad():
            second.head.weight.mul_(-1)
        runners = [built(EnginePlan("compile"), model) for model in (first, second)]
        for runner, model in zip(runners, (first, second), strict=True):
            assert_equal(runner, model, 4)


@pytest.mark.slow
@pytest.mark.parametrize("plan", [EnginePlan(), EnginePlan("openvino", streams=4), EnginePlan("onnxruntime")], ids=str)
def test_any_number_of_images_is_answered(plan: EnginePlan, engine: Engine) -> None:
    model = model_of("convmixer")
    runner, _ = engine("convmixer", plan)
    for n in (0, 1, 4, 5, 8, 11):
        assert_equal(runner, model, n)


def test_images_of_another_size_are_refused() -> None:
    runner = build(EnginePlan(), model_of("convmixer"), images(4))
    with pytest.raises(ModelError, match="built for images n,3,32,32, got 2,3,40,32"):
        runner(torch.zeros(2, 3, 40, 32))
    with pytest.raises(ModelError, match="got 3,32,32"):
        runner(torch.zeros(3, 32, 32))
    with pytest.raises(ModelError, match="expected float32 images"):
        build(EnginePlan(), model_of("convmixer"), torch.zeros(4, 3, 32, 32, dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.parametrize("plan", [EnginePlan(dtype="bf16", layout="nhwc"), EnginePlan("openvino")], ids=str)
def test_the_model_stays_as_it_is(plan: EnginePlan) -> None:
    model = model_of("convmixer").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    runner = built(plan, model)
    assert model.training
    assert all(p.requires_grad and p.dtype == torch.float32 and p.is_contiguous() for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert_equal(runner, model.eval(), 4)  # evaluating, although the model was training


@pytest.mark.slow
def test_models_of_timm_run_as_well() -> None:
    model = create_model("resnet10t", num_classes=5).eval()
    for plan in (EnginePlan(layout="nhwc"), EnginePlan("openvino")):
        assert_equal(built(plan, model), model, 3)
    with pytest.raises(UnavailableError, match="cannot be folded"):
        build(EnginePlan(folded=True), model, images(4))
    with pytest.raises(UnavailableError, match="ResNet"):
        build(EnginePlan("native"), model, images(4))


@pytest.mark.parametrize(("package", "plan"), [("openvino", EnginePlan("openvino")), ("onnxruntime", EnginePlan("onnxruntime"))])
def test_a_missing_package_is_a_reason(package: str, plan: EnginePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=rf"{package} is not installed; pip install 'convmix\[speed\]'"):
        build(plan, model_of("convmixer"), images(4))


def test_int8_without_images_is_a_reason() -> None:
    need(EnginePlan("openvino", "int8"))
    with pytest.raises(UnavailableError, match="int8 needs calibration images"):
        build(EnginePlan("openvino", "int8"), model_of("convmixer"), images(4))


def test_a_failing_engine_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> backends.Call:
        raise RuntimeError("no such instruction\nand a long story")

    monkeypatch.setitem(backends._BUILDERS, "compile", fail)
    with pytest.raises(UnavailableError, match=r"^RuntimeError: no such instruction$"):
        build(EnginePlan("compile"), model_of("convmixer"), images(4))


@pytest.mark.slow
@pytest.mark.parametrize("plan", [EnginePlan("onnxruntime"), EnginePlan("openvino", "int8"), EnginePlan("aoti")], ids=str)
def test_kept_files_are_used_instead_of_the_model(plan: EnginePlan, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    _, store = engine("convmixer", plan)
    other = model_of("convmixer")
    nn.init.zeros_(other.head.weight)
    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", None)
    runner = build(plan, other, images(4), store=store)  # no calibration images either
    assert_equal(runner, model_of("convmixer"), 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "openvno"}, "backend: openvno is not one of .*did you mean openvino"),
        ({"dtype": "bf32"}, "dtype: bf32 is not one of"),
        ({"backend": "onnxruntime", "dtype": "bf16"}, "onnxruntime does not compute in bf16; it has fp32"),
        ({"backend": "openvino", "layout": "nhwc"}, "openvino chooses its own layout"),
        ({"backend": "eager", "streams": 2}, "streams: 2, expected 1"),
        ({"backend": "openvino", "streams": 0}, "streams: 0, expected 1"),
    ],
)
def test_impossible_plans_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EnginePlan(**arguments)  # type: ignore[arg-type]


@pytest.mark.slow
def test_nothing_is_sent_and_no_telemetry_is_left_behind(tmp_path: Path) -> None:
    need(EnginePlan("openvino", "int8"))
    program = """
import socket, sys
def refuse(*arguments, **_):
    print("NETWORK", arguments)
    raise OSError
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
import torch
from convmix.models.catalog import create_model
from convmix.speed.backends import EnginePlan, build
build(EnginePlan("openvino", "int8"), create_model("convmixer_8_1_k3_p4"), torch.zeros(2, 3, 8, 8), calibration=torch.randn(4, 3, 8, 8))
print(sys.modules["openvino_telemetry"])
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "NNCF_CI", "NNCF_DEV")} | {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["None"]
    assert not (tmp_path / "home" / "intel").exists()


@pytest.mark.slow
def test_compiled_models_have_their_weights_packed(engine: Engine) -> None:
    """What freezing is for; a setting that torch ignored once."""
    if not fast_bf16(torch.device("cpu")):
        pytest.skip("oneDNN packs weights for bf16 hardware")
    runner, _ = engine("convmixer", EnginePlan("compile", "bf16", "nhwc", folded=True))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        runner(images(4))
    names = {event.key for event in profile.key_averages()}
    assert "mkldnn::_convolution_pointwise" in names and "aten::mkldnn_convolution" not in names
