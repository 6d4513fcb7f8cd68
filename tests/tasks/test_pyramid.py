"""Backbones for dense tasks and the pyramids on them: strides, channels, taps, starting weights."""

import pytest
import torch
from torch import Tensor, nn

from convmix.errors import ModelError, WeightsError
from convmix.models.catalog import create_model
from convmix.tasks.pyramid import DenseBackbone, Fpn, SimplePyramid, create_pyramid

CONVMLP = {"blocks": [1, 2, 1], "dims": [8, 12, 16], "mlp_ratios": [2, 2, 2], "channels": 6, "n_conv_blocks": 1}
SWIN = {"img_size": 64, "embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
HIERARCHICAL = [("convmlp", CONVMLP), ("resnet18", {}), ("swin_tiny_patch4_window7_224", SWIN)]
ISOTROPIC = [
    ("convmixer_8_2_k3_p7", {}, 7),
    ("multiscale_convmixer", {"dim": 8, "depth": 4, "patch_size": 8}, 8),
    ("deit_tiny_patch16_224", {"img_size": 64, "depth": 2}, 16),
]


def _convmlp(taps: str, strides: tuple[int, ...] = (4, 8, 16, 32)) -> DenseBackbone:
    torch.manual_seed(0)
    return DenseBackbone("convmlp", taps=taps, strides=strides, model_args=CONVMLP).eval()


@pytest.mark.parametrize("strides", [(8, 16, 32), (4, 8, 16, 32)])
@pytest.mark.parametrize(("name", "model_args"), HIERARCHICAL, ids=[n for n, _ in HIERARCHICAL])
def test_hierarchical_backbones_give_a_map_per_stride(name, model_args, strides):
    backbone = DenseBackbone(name, strides=strides, model_args=model_args).eval()
    assert backbone.strides == strides
    assert not backbone.isotropic
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [(2, c, 64 // s, 64 // s) for c, s in zip(backbone.channels, strides, strict=True)]
    assert backbone.num_features == maps[-1].shape[1]


@pytest.mark.parametrize(("name", "model_args", "patch"), ISOTROPIC, ids=[n for n, *_ in ISOTROPIC])
def test_isotropic_backbones_get_a_pyramid_around_their_stride(name, model_args, patch):
    backbone = DenseBackbone(name, strides=(8, 16, 32), model_args=model_args).eval()
    assert backbone.isotropic
    assert backbone.strides == (patch,)
    pyramid = create_pyramid(backbone, 5, "pool").eval()
    assert isinstance(pyramid, SimplePyramid)
    assert pyramid.strides == (patch / 2, patch, patch * 2, patch * 4, patch * 8)
    levels = pyramid(backbone(torch.randn(2, 3, 64, 64)))
    n = 64 // patch
    assert [tuple(m.shape) for m in levels] == [(2, 5, s, s) for s in (2 * n, n, -(-n // 2), -(-n // 4), -(-n // 8))]


def test_the_last_block_of_an_isotropic_backbone_is_what_is_taken():
    backbone = DenseBackbone("convmixer_8_3_k3_p7", strides=(8,)).eval()
    x = torch.randn(1, 3, 28, 28)
    (last,) = backbone(x)
    assert torch.equal(last, backbone.features.model.forward_features(x))
    assert len(backbone.features.model.blocks) == 3


def test_a_stride_that_the_backbone_lacks_is_said():
    with pytest.raises(ModelError, match=r"visformer_tiny has features at strides 8, 16, 32 and none at 4; .*strides 4, 8, 16, 32"):
        DenseBackbone("visformer_tiny", strides=(4, 8, 16, 32))


def test_only_convmlp_has_authors_taps():
    for name in ("resnet18", "convmixer_8_2_k3_p7"):
        with pytest.raises(ModelError, match="which only ConvMLP has"):
            DenseBackbone(name, taps="authors", strides=(8, 16, 32))


def test_authors_taps_are_the_raw_outputs_of_tokenizer_and_downsampling():
    backbone = _convmlp("authors")
    model, seen = backbone.features.model, {}
    last_block = model.stages[2].blocks[-1]
    for name, module in (("s4", model.tokenizer), ("s8", model.conv_stages.downsample), ("s16", model.stages[0].downsample_mlp)):
        module.register_forward_hook(lambda m, args, out, name=name: seen.update({name: out}))
    last_block.register_forward_hook(lambda m, args, out: seen.update(s32=out.permute(0, 3, 1, 2)))
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert all(torch.equal(m, seen[f"s{s}"]) for m, s in zip(maps, backbone.strides, strict=True))
    assert backbone.channels == (6, 8, 12, 16)
    assert not list(backbone.norms.parameters())


def test_authors_taps_end_where_the_classifier_takes_its_features():
    backbone = _convmlp("authors")
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(backbone(x)[-1], backbone.features.model.forward_features(x))


def test_taps_behind_the_blocks_are_the_features_normalised_over_channels():
    backbone = _convmlp("blocks")
    x = torch.randn(1, 3, 64, 64)
    for plain, normed in zip(backbone.features(x), backbone(x), strict=True):
        expected = (plain - plain.mean(1, keepdim=True)) / (plain.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
        torch.testing.assert_close(normed, expected, rtol=1e-4, atol=1e-4)


def test_batch_normalised_backbones_are_left_as_they_are():
    backbone = DenseBackbone("resnet18", strides=(8, 16, 32)).eval()
    x = torch.randn(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(backbone(x), backbone.features(x), strict=True))


def test_a_backbone_without_its_classifier_has_the_published_number_of_parameters():
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in DenseBackbone(f"convmlp_{size}", taps="authors", strides=(4, 8, 16, 32)).parameters()) for size in "sml"
        ]
    assert counts == [8_508_896, 16_896_480, 41_957_904]


def test_checkpointed_gradients_equal_plain_ones():
    backbone = _convmlp("authors").train()
    x = torch.randn(2, 3, 64, 64)

    def gradients() -> list[Tensor]:
        backbone.zero_grad()
        torch.manual_seed(1)
        sum(m.square().mean() for m in backbone(x)).backward()
        return [p.grad for p in backbone.parameters()]

    plain = gradients()
    backbone.set_grad_checkpointing()
    for a, b in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("name", "model_args"), [*HIERARCHICAL, ("convmixer_8_2_k3_p7", {})], ids=["convmlp", "resnet18", "swin", "convmixer"]
)
def test_a_classifiers_weights_go_into_the_backbone(name, model_args, tmp_path):
    torch.manual_seed(1)
    classifier = create_model(name, num_classes=4, model_args=model_args).eval()
    for norm in (m for m in classifier.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean)
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    backbone = DenseBackbone(name, strides=(8, 16, 32), model_args=model_args).eval()
    notes = backbone.start_from(tmp_path / "weights.pth")
    assert any("classifier is left out" in note for note in notes)
    x = torch.randn(1, 3, 64, 64)
    expected = classifier.forward_intermediates(x, intermediates_only=True)
    found = backbone.features(x)
    if backbone.channels_last:
        found = [m.permute(0, 3, 1, 2) for m in found]
    for theirs, ours in zip(expected[-len(found) :], found, strict=True):
        assert torch.equal(theirs, ours)


def test_weights_of_another_size_are_refused(tmp_path):
    other = create_model("convmlp", num_classes=4, model_args=CONVMLP | {"dims": [8, 12, 20]})
    torch.save(other.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="dims 8,12,20"):
        _convmlp("authors").start_from(tmp_path / "weights.pth")


def test_extra_levels_of_retinanet_follow_the_backbones_last_map():
    fpn = Fpn((4, 6), 5, "convs", strides=(16, 32)).eval()
    assert fpn.strides == (16.0, 32.0, 64.0, 128.0)
    maps = [torch.randn(1, 4, 12, 9), torch.randn(1, 6, 6, 5)]
    levels = fpn(maps)
    first, second = fpn.fpn.extra_blocks.convs
    assert torch.equal(levels[2], first(maps[1]))
    assert torch.equal(levels[3], second(levels[2]))  # no ReLU between
    assert (levels[2] < 0).any()


def test_the_extra_level_of_mask_rcnn_is_every_second_pixel():
    fpn = Fpn((4, 6), 5, "pool", strides=(16, 32)).eval()
    levels = fpn([torch.randn(1, 4, 12, 9), torch.randn(1, 6, 6, 5)])
    assert fpn.strides == (16.0, 32.0, 64.0)
    assert torch.equal(levels[2], levels[1][:, :, ::2, ::2])


def test_fpn_adds_the_coarser_level_enlarged_to_the_finer_ones_size():
    fpn = Fpn((4, 6), 5, strides=(16, 32)).eval()
    fine, coarse = torch.randn(1, 4, 11, 9), torch.randn(1, 6, 6, 5)
    inner, layer = fpn.fpn.inner_blocks, fpn.fpn.layer_blocks
    enlarged = nn.functional.interpolate(inner[1](coarse), (11, 9), mode="nearest")
    torch.testing.assert_close(fpn([fine, coarse])[0], layer[0](inner[0](fine) + enlarged))
