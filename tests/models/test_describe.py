"""Counts equal the published models' and the closed forms; receptive field and memory equal what a real pass shows."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from convmix.errors import ModelError
from convmix.models.catalog import create_model
from convmix.models.describe import describe

CONVMIXER = [(24, 3, 5, 4), (16, 2, 4, 3), (8, 4, 9, 1), (32, 1, 8, 7)]
SIX = ["convmixer_1536_20", "convmixer_768_32", "convmixer_1024_20_ks9_p14", "convmlp_s", "convmlp_m", "convmlp_l"]


@pytest.mark.parametrize("name", SIX)
def test_parameters_and_macs_of_the_published_sizes_equal_the_manifest(shared: Path, name: str) -> None:
    expected = json.loads((shared / "golden/manifest.json").read_text())[name]
    d = describe(name)
    assert (d.parameters, d.macs) == (expected["parameters"], expected["macs"])


@pytest.mark.parametrize(("dim", "depth", "kernel", "patch"), CONVMIXER)
@pytest.mark.parametrize("size", [(37, 37), (29, 53)])
@pytest.mark.parametrize(("in_chans", "classes"), [(3, 1000), (5, 7)])
def test_convmixer_counts_equal_the_closed_forms_at_odd_sizes(
    dim: int, depth: int, kernel: int, patch: int, size: tuple[int, int], in_chans: int, classes: int
) -> None:
    d = describe(f"convmixer_{dim}_{depth}_k{kernel}_p{patch}", size=size, in_chans=in_chans, num_classes=classes)
    grid = (size[0] // patch) * (size[1] // patch)
    assert d.macs == grid * (in_chans * dim * patch**2 + depth * (dim * kernel**2 + dim**2)) + dim * classes
    stem, block = in_chans * dim * patch**2 + 3 * dim, dim * kernel**2 + dim**2 + 6 * dim
    assert d.parameters == stem + depth * block + dim * classes + classes
    assert d.receptive_field == patch * (1 + depth * (kernel - 1))


def support(model: nn.Module, size: int) -> int:
    """Side of the square of input pixels that the centre unit's gradient reaches, with weights that cannot cancel."""
    model = model.double().eval()
    for name, p in model.named_parameters():
        nn.init.constant_(p, 0.0) if name.endswith("bias") else nn.init.uniform_(p, 0.01, 0.02)
    x = torch.rand(1, 3, size, size, dtype=torch.double, requires_grad=True)
    features: Tensor = model.forward_features(x)  # type: ignore[operator]
    features[0, :, features.shape[2] // 2, features.shape[3] // 2].sum().backward()
    assert x.grad is not None
    touched = x.grad[0].abs().sum(0) > 0  # H,W
    rows, columns = touched.any(1).sum().item(), touched.any(0).sum().item()
    assert rows == columns < size  # not cut off by the image's edge
    return int(rows)


@pytest.mark.parametrize(
    ("name", "size"), [("convmixer_8_3_k5_p2", 64), ("convmixer_8_2_k4_p3", 64), ("multiscale_convmixer_t", 160), ("convmlp_s", 544)]
)
def test_receptive_field_equals_the_support_of_the_gradient(name: str, size: int) -> None:
    args: dict[str, object] = {}
    if name == "convmlp_s":
        args = {"dims": (4, 4, 4), "channels": 4}
    if name == "multiscale_convmixer_t":
        args = {"dim": 8}
    model = create_model(name, num_classes=2, model_args=args)
    assert describe(name, size=size, num_classes=2, model_args=args).receptive_field == support(model, size)


@pytest.mark.parametrize(("name", "expected"), [("resnet18", 435), ("vgg11", 150), ("inception_v3", 1311)])
def test_receptive_field_of_timms_networks_is_the_one_in_the_literature(name: str, expected: int) -> None:
    assert describe(name).receptive_field == expected


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mixer_s32_224"])
def test_attention_and_token_mixing_see_the_whole_image(name: str) -> None:
    d = describe(name)
    assert d.receptive_field == 224
    assert "whole 224 x 224 image" in str(d)


def test_macs_of_attention_are_counted() -> None:
    n, dim, depth = 197, 192, 12  # ViT-Ti/16: 196 patches and one class token
    linear = n * depth * 12 * dim**2 + 196 * dim * 3 * 16**2 + dim * 1000
    assert describe("vit_tiny_patch16_224").macs == linear + depth * 2 * n**2 * dim


@pytest.mark.parametrize("name", ["convmixer_24_3_k5_p4", "convmixer_16_2_k4_p3_relu", "convmlp_s", "multiscale_convmixer_t", "resnet18"])
def test_memory_estimate_equals_what_a_real_pass_keeps(name: str) -> None:
    model = create_model(name, num_classes=5).train()
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model(torch.randn(4, 3, 64, 48))
    measured = sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in own) / 4
    d = describe(name, size=(64, 48), num_classes=5)
    assert d.activation_bytes == pytest.approx(measured, rel=0.2)
    assert d.memory(8) == d.training_bytes + 8 * d.activation_bytes
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    assert d.training_bytes == 16 * d.parameters + buffers


def test_stages_are_what_the_model_gives() -> None:
    stages = describe("convmlp_s", size=(70, 90)).stages
    maps = create_model("convmlp_s", features_only=True, out_indices=(0, 1, 2, 3))(torch.zeros(1, 3, 70, 90))
    assert [(s.channels, s.height, s.width) for s in stages] == [tuple(m.shape[1:]) for m in maps]
    assert [s.reduction for s in stages] == [4, 8, 16, 32]


def test_the_text_names_everything_and_marks_what_is_published() -> None:
    text = str(describe("convmixer_768_32"))
    for part in (
        "21,110,248",
        "20,676,851,712",
        "1351 px",
        "blocks.0 .. blocks.31  768 x 32 x 32",
        "80.158 %",
        "published, not measured here",
    ):
        assert part in text
    assert "published" not in str(describe("convmixer_256_8", size=32, num_classes=10))


def test_a_description_is_plain_json() -> None:
    d = json.loads(json.dumps(describe("convmlp_s").to_dict()))
    assert d["published"]["top1"] == 76.8 and d["stages"][0]["channels"] == 64


def test_a_size_or_name_that_cannot_be_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="convmixer_256_8"):
        describe("convmixer_256_9")
    with pytest.raises(ModelError, match="0x4"):
        describe("convmixer_256_8", size=(0, 4))
    with pytest.raises(ModelError, match="7x7"):
        describe("convmixer_768_32", size=3)
    assert describe("vit_tiny_patch16_224", size=192).stages[0].height == 12
