"""The models against tensors that the original implementations computed (shared/golden), and the published sizes against its manifest."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from convmix.models.catalog import create_model
from convmix.models.convmixer import ConvMixer
from convmix.models.convmlp import ConvMLP
from convmix.models.origins import to_our_names

PUBLISHED = ["convmixer_1536_20", "convmixer_768_32", "convmixer_1024_20_ks9_p14", "convmlp_s", "convmlp_m", "convmlp_l"]
FILES = ["convmixer_timm_gelu", "convmixer_timm_relu", "convmixer_sequential", "convmlp"]
Group = dict[str, Tensor]


def _read(shared: Path, name: str) -> tuple[nn.Module, dict[str, Group]]:
    """The model built and loaded, and the tensors by their prefix, under our names."""
    with safe_open(shared / "golden" / f"{name}.safetensors", "pt") as file:
        config = {k: json.loads(v) for k, v in file.metadata().items()}
        groups: dict[str, Group] = {}
        for key in file.keys():  # noqa: SIM118  # safe_open is no mapping
            prefix, rest = key.split(".", 1)
            groups.setdefault(prefix, {})[rest] = file.get_tensor(key)
    if "blocks" in config:
        model: nn.Module = ConvMLP(
            config["blocks"],
            config["dims"],
            mlp_ratios=config["mlp_ratios"],
            channels=config["channels"],
            n_conv_blocks=config["n_conv_blocks"],
            num_classes=config["num_classes"],
            drop_path_rate=config["drop_path_rate"],
        )
    else:
        sizes = [config[k] for k in ("dim", "depth", "kernel_size", "patch_size")]
        model = ConvMixer(*sizes, num_classes=config["num_classes"], act=config["activation"])
    ours = to_our_names(groups["param"])[1]
    theirs = dict(zip(groups["param"], ours, strict=True))  # order is kept
    groups["param"] = ours
    groups["grad"] = {theirs[k]: v for k, v in groups["grad"].items()}
    groups["after"] = {theirs[k]: v for k, v in groups["after"].items()}
    model.load_state_dict(groups["param"])
    return model, groups


def _close(value: Tensor, expected: Tensor, what: str) -> None:
    assert value.shape == expected.shape, what
    assert (value - expected).abs().max().item() <= 1e-5 * max(1.0, expected.abs().max().item()), (
        what
    )  # each processor sums in its own order


@pytest.mark.parametrize("name", FILES)
def test_logits_equal_the_original(shared, name):
    model, golden = _read(shared, name)
    _close(model.eval()(golden["eval"]["input"]), golden["eval"]["logits"], "logits")


@pytest.mark.parametrize("name", FILES)
def test_intermediate_features_equal_the_original(shared, name):
    model, golden = _read(shared, name)
    model.eval()
    x, expected = golden["eval"]["input"], {k: v for k, v in golden["eval"].items() if k not in ("input", "logits")}
    seen: Group = {}
    places = {"tokenizer": "tokenizer", "conv_stages.downsample": "conv_stage"}
    for path, module in model.named_modules():
        if path in places:
            module.register_forward_hook(lambda m, args, out, place=places[path]: seen.update({place: out}))
    last, levels = model.forward_intermediates(x)
    if isinstance(model, ConvMLP):
        seen |= {f"stage{i}_before_downsample": level for i, level in enumerate(levels[1:])}
    else:
        seen["features"] = last
        assert torch.equal(levels[-1], model.forward_features(x))
    for key, value in expected.items():
        _close(seen[key], value, key)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_training_pass_equals_the_original(shared, name, checkpointing):
    """Logits, loss, every gradient, and the BatchNorm statistics after it."""
    model, golden = _read(shared, name)
    model.train().set_grad_checkpointing(checkpointing)
    train = golden["train"]
    logits = model(golden["eval"]["input"])
    loss = nn.functional.cross_entropy(logits, train["targets"])
    loss.backward()
    _close(logits, train["logits"], "logits")
    _close(loss.reshape(1), train["loss"], "loss")
    gradients = {k: p.grad for k, p in model.named_parameters()}
    assert gradients.keys() == golden["grad"].keys()
    for key, expected in golden["grad"].items():
        error = (gradients[key] - expected).abs().max() / expected.abs().max()
        assert float(error) <= 1e-4, key
    state = model.state_dict()
    for key, expected in golden["after"].items():
        _close(state[key], expected, key)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_size_has_the_manifests_tensors(shared, name):
    manifest = json.loads((shared / "golden" / "manifest.json").read_text())[name]
    with torch.device("meta"):
        model = create_model(name)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == manifest["tensors"]
    assert sum(p.numel() for p in model.parameters()) == manifest["parameters"]


def test_published_size_has_the_weights_activation(shared):
    for name in PUBLISHED[:3]:
        with torch.device("meta"):
            kinds = {type(m).__name__ for m in create_model(name).modules()}
        assert ("ReLU" in kinds) == ("GELU" not in kinds) == bool(re.search("768", name))
