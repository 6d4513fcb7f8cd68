"""What timm's own tests ask of its models, asked of ours: configurations with tags, features, torch.fx, TorchScript, the operators kept."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.feature_extraction import create_feature_extractor

import convmix  # noqa: F401  # registers the names
from convmix.errors import ModelError
from convmix.models import catalog
from convmix.models.catalog import create_model
from convmix.models.layers import Backbone, DropPath
from convmix.models.published import PUBLISHED
from tests.made_once import MadeOnce
from tests.models.test_timm_contract import SMALL
from tests.trained_runs import classifier

CASES = {
    **{family: (family, args) for family, args in SMALL.items()},
    "convmixer, odd kernel": ("convmixer", SMALL["convmixer"] | {"kernel_size": 5, "act": "gelu"}),
    "convmixer, ablated": ("convmixer", SMALL["convmixer"] | {"residual": "both", "norm": "layer"}),
    "multiscale, split": ("multiscale_convmixer", SMALL["multiscale_convmixer"] | {"combine": "split", "channel_mixing": "mlp"}),
}
TRAINED_WITH_DEPTH = {"convmlp": {"drop_path_rate": 0.5, "blocks": [1, 2, 2]}, "multiscale_convmixer": {"drop_path_rate": 0.5}}


def build(case: str, **more: object) -> nn.Module:
    """A small model whose batch norms have seen images."""
    family, args = CASES[case]
    model = create_model(family, num_classes=5, model_args=args | more)
    model.train()(images(8))
    return model.eval()


def assert_same(given: Tensor, wanted: Tensor, case: str) -> None:
    """To the last bit, but for timm's LayerNorm2d, which goes another way while it is traced."""
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5 if "ablated" in case else 0)


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 32, 40, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("name", catalog.registered_names())
def test_a_configuration_is_registered_that_says_how_the_model_is_built_and_fed(name: str) -> None:
    config = get_pretrained_cfg(name, allow_unregistered=False)
    with torch.device("meta"):
        model = timm.create_model(name)
    names = model.state_dict()
    assert f"{config.first_conv}.weight" in names and names[f"{config.classifier}.weight"].shape[0] == config.num_classes
    assert model.default_cfg["architecture"] == name and config.input_size[1:] in ((32, 32), (224, 224))
    features = model.eval().forward_features(torch.empty(1, *config.input_size, device="meta"))
    assert features.shape == (1, model.num_features, *config.pool_size)


def test_published_weights_are_listed_under_their_tag_with_their_preprocessing() -> None:
    ours = [name for name in PUBLISHED if name not in catalog.TIMM_OWN]
    listed = timm.list_models("convm*", pretrained=True)
    assert {n for n in listed if n.startswith("convmlp")} == {f"{name}.shi_in1k" for name in ours}
    assert {f"{name}.in1k" for name in catalog.TIMM_OWN} <= set(listed)
    for name in ours:
        for spelled in (name, f"{name}.shi_in1k"):
            config = get_pretrained_cfg(spelled)
            assert (config.url, config.crop_pct, config.tag) == (PUBLISHED[name].url, PUBLISHED[name].crop_pct, "shi_in1k")
    assert not get_arch_pretrained_cfgs("convmlp_t")["convmlp_t"].has_weights


@pytest.mark.parametrize("build_model", [create_model, timm.create_model])
def test_a_tag_is_part_of_a_name(build_model) -> None:
    with torch.device("meta"):
        model = build_model("convmlp_s.shi_in1k", num_classes=3)
    assert model.num_classes == 3 and model.pretrained_cfg["tag"] == "shi_in1k"
    assert catalog.timm_config(model) == ("convmlp_s", {"num_classes": 3, "in_chans": 3})
    assert catalog.published_input("convmlp_s.shi_in1k").size == (224, 224)


def test_an_unknown_tag_is_one_sentence() -> None:
    with pytest.raises(ModelError, match=r"convmlp_s\.shi_in1: .*did you mean convmlp_s\.shi_in1k"):
        create_model("convmlp_s.shi_in1")
    with pytest.raises(ModelError, match=r"convmlp_t\.in1k: .*no published weights"):
        create_model("convmlp_t.in1k")


def test_a_family_without_sizes_is_built_by_timm_and_refused_by_convmix() -> None:
    with torch.device("meta"):
        assert len(timm.create_model("convmlp").stages[1].blocks) == len(timm.create_model("convmlp_s").stages[1].blocks)
    with pytest.raises(ModelError, match="needs model_args dim"):
        create_model("convmixer")
    with pytest.raises(ModelError, match="needs model_args depth"):
        timm.create_model("convmixer", dim=8)


@pytest.mark.parametrize("family", SMALL)
def test_features_come_by_the_getter_and_by_nothing_else(family: str) -> None:
    plain, named = (
        timm.create_model(family, features_only=True, **SMALL[family], **more).eval() for more in ({}, {"feature_cls": "getter"})
    )
    named.load_state_dict(plain.state_dict())
    assert len(plain.feature_info.channels()) >= 3
    assert all(torch.equal(a, b) for a, b in zip(plain(images()), named(images()), strict=True))
    with pytest.raises(ModelError, match="feature_cls is 'hook', expected getter"):
        timm.create_model(family, features_only=True, feature_cls="hook", **SMALL[family])


@pytest.mark.parametrize("case", CASES)
def test_a_graph_of_torch_fx_is_the_model_at_any_size(case: str) -> None:
    model = build(case)
    graph = torch.fx.symbolic_trace(model)
    for x in (images(), images(3)[:, :, :, :33]):
        assert_same(graph(x), model(x), case)
    extract = create_feature_extractor(model, return_nodes={"head": "logits"})
    assert_same(extract(images())["logits"], model(images()), case)


@pytest.mark.parametrize("case", CASES)
def test_a_graph_of_torch_fx_trains_as_the_model_does(case: str) -> None:
    model, x = build(case).train(), images(4)
    torch.manual_seed(0)  # one case has dropout
    model(x).square().mean().backward()
    wanted = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    graph = torch.fx.symbolic_trace(model)
    torch.manual_seed(0)
    graph(x).square().mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated", "ignore:The TorchScript type system")  # of a GraphModule
@pytest.mark.parametrize("case", CASES)
def test_torchscript_has_the_models_answers_and_names(case: str) -> None:
    model = build(case)
    scripted = torch.jit.script(model)
    assert_same(scripted(images()), model(images()), case)
    assert_same(scripted(images(3)), model(images(3)), case)
    assert scripted.state_dict().keys() == model.state_dict().keys()
    assert isinstance(model, Backbone)  # the model itself is left alone


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated", "ignore:The TorchScript type system")  # of a GraphModule
@pytest.mark.parametrize("case", TRAINED_WITH_DEPTH)
def test_what_was_scripted_in_evaluation_still_drops_paths_in_training(case: str) -> None:
    model = build(case, **TRAINED_WITH_DEPTH[case])
    assert any(isinstance(m, DropPath) for m in model.modules())
    scripted = torch.jit.script(model)
    for module in scripted.modules():  # only stochastic depth may move the answers
        module.train("DropPath" in module.original_name)
    assert len({scripted(images()).sum().item() for _ in range(8)}) > 1
    assert torch.equal(scripted.eval()(images()), model(images()))


class _Operators(TorchDispatchMode):
    """Which operators of ours are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "convmix":
            self.called.add(func._opname)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", SMALL)
def test_training_keeps_the_operators_of_its_own(family: str) -> None:
    model = build(family).train().to(memory_format=torch.channels_last)
    with _Operators() as operators:
        model(images(4).to(memory_format=torch.channels_last)).sum().backward()
    assert "depthwise_conv2d" in operators.called
    assert ("act_norm" in operators.called) == (family == "convmixer")


@pytest.mark.slow
def test_a_model_directory_opens_the_way_transformers_opens_it(made_once: MadeOnce, photos: Path) -> None:
    """Its TimmWrapper gives the number of classes and the arguments of the configuration, and puts the weights in by their names."""
    run = classifier(made_once, photos)
    config = json.loads((run / "config.json").read_text())
    model = timm.create_model(config["architecture"], pretrained=False, num_classes=config["num_classes"], **config["model_args"])
    model.load_state_dict(load_file(run / "model.safetensors"))
    x = torch.randn(2, *config["pretrained_cfg"]["input_size"])
    assert torch.equal(model.eval()(x), timm.create_model(f"local-dir:{run}", pretrained=True).eval()(x))


def test_transformers_opens_a_model_directory(made_once: MadeOnce, photos: Path) -> None:
    transformers = pytest.importorskip("transformers")
    run = classifier(made_once, photos)
    model = transformers.AutoModelForImageClassification.from_pretrained(run).eval()
    ours = timm.create_model(f"local-dir:{run}", pretrained=True).eval()
    x = torch.randn(2, 3, 24, 24)
    assert torch.allclose(model(x).logits, ours(x)) and model.config.id2label[0] == "class_0"
