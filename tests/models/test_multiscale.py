"""MultiScaleConvMixer: every part the source text lists, and the three sizes."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from convmix.errors import ModelError
from convmix.models.catalog import create_model
from convmix.models.layers import DepthwiseConv2d
from convmix.models.multiscale import MultiScaleConvMixer, TokenMixing, kernel_schedule

REFERENCE = {
    "multiscale_convmixer_t": (594_186, 10),
    "multiscale_convmixer_s": (9_022_920, 1000),
    "multiscale_convmixer_m": (17_410_504, 1000),
}
EXACT = {"multiscale_convmixer_t": 595_018, "multiscale_convmixer_s": 9_038_008, "multiscale_convmixer_m": 17_535_016}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_named_sizes_match_their_counterparts_in_parameters(name):
    matched, num_classes = REFERENCE[name]
    with torch.device("meta"):
        count = sum(p.numel() for p in create_model(name, num_classes=num_classes).parameters())
    assert count == EXACT[name]
    assert count == pytest.approx(matched, rel=0.01)


def test_schedule_thins_with_depth():
    assert kernel_schedule(8, (7, 5, 3, 1)) == ((1, 3, 5, 7),) * 2 + ((1, 3, 5),) * 2 + ((1, 3),) * 2 + ((3,),) * 2
    assert kernel_schedule(3, (7, 3)) == ((3, 7), (3, 7), (3,))
    assert kernel_schedule(1, (1, 3, 5)) == ((1, 3, 5),)
    assert kernel_schedule(2, (1,)) == ((1,), (1,))


@pytest.mark.parametrize("depth", range(1, 15))
def test_schedule_starts_with_all_never_widens_and_always_mixes_space(depth):
    schedule = kernel_schedule(depth, (1, 3, 5, 7))
    assert schedule[0] == (1, 3, 5, 7) and len(schedule) == depth
    assert all(set(later) <= set(earlier) for earlier, later in pairwise(schedule))
    assert all(max(kernels) >= 3 for kernels in schedule)


def test_branches_of_a_sum_merge_exactly_into_one_convolution():
    """conv and BN of every branch are linear, so that one 7x7 kernel and one bias do the work of all of them."""
    torch.manual_seed(0)
    mixing = TokenMixing(6, (1, 3, 5, 7), "sum", "relu", 0.0).double()
    mixing(torch.randn(8, 6, 9, 9, dtype=torch.double))
    mixing.eval()
    merged = DepthwiseConv2d(6, 7).double()
    nn.init.zeros_(merged.weight)
    nn.init.zeros_(merged.bias)
    with torch.no_grad():
        for conv, bn in mixing.branches:
            scale = bn.weight / (bn.running_var + bn.eps).sqrt()
            margin = (7 - conv.kernel_size[0]) // 2
            merged.weight += nn.functional.pad(conv.weight * scale[:, None, None, None], (margin,) * 4)
            merged.bias += (conv.bias - bn.running_mean) * scale + bn.bias
    x = torch.randn(2, 6, 9, 9, dtype=torch.double)
    torch.testing.assert_close(mixing(x), x + torch.relu(merged(x)), rtol=0, atol=1e-12)


def test_split_gives_each_kernel_its_share_of_the_channels():
    mixing = TokenMixing(10, (1, 3, 5), "split", "relu", 0.0).eval()
    assert [b[0].in_channels for b in mixing.branches] == [4, 3, 3]
    x = torch.zeros(1, 10, 9, 9)
    x[:, :, 4, 4] = 1
    for branch in mixing.branches:
        nn.init.ones_(branch[0].weight)
        nn.init.zeros_(branch[0].bias)
    reach = (mixing(x) > 0.5).sum((0, 2, 3)).tolist()
    assert reach == [1] * 4 + [9] * 3 + [25] * 3


def test_token_mixing_is_residual_around_the_activation():
    mixing = TokenMixing(4, (3, 5), "sum", "relu", 0.0).eval()
    for branch in mixing.branches:
        nn.init.constant_(branch[1].bias, -100.0)  # everything behind the activation is 0
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(mixing(x), x)


@pytest.mark.parametrize("combine", ["sum", "split"])
@pytest.mark.parametrize("channel_mixing", ["conv", "mlp"])
@pytest.mark.parametrize(("patch_size", "size"), [(2, (9, 14)), (4, (32, 32)), (14, (28, 45)), (16, (16, 16))])
def test_any_image_size(combine, channel_mixing, patch_size, size):
    model = MultiScaleConvMixer(
        16, 4, patch_size=patch_size, combine=combine, channel_mixing=channel_mixing, stem_dim=8, num_classes=3, in_chans=2
    ).eval()
    x = torch.randn(2, 2, *size)
    grid = tuple(-(-s // 2) // (patch_size // 2) for s in size)
    assert model.forward_features(x).shape == (2, 16, *grid)
    assert model(x).shape == (2, 3)


def test_every_listed_part_is_there():
    model = MultiScaleConvMixer(16, 4, stem_dim=8, num_classes=3)
    assert isinstance(model.stem[0], nn.Conv2d) and model.stem[0].kernel_size == (7, 7) and model.stem[0].stride == (2, 2)
    first, last = model.blocks[0], model.blocks[-1]
    assert [b[0].kernel_size[0] for b in first.token_mixing.branches] == [1, 3, 5, 7]
    assert [b[0].kernel_size[0] for b in last.token_mixing.branches] == [3]
    assert [m.kernel_size for m in first.channel_mixing if isinstance(m, nn.Conv2d)] == [(1, 1), (3, 3), (1, 1)]
    assert [m.kernel_size for m in model.pointwise if isinstance(m, nn.Conv2d)] == [(1, 1), (1, 1)]
    mlp = MultiScaleConvMixer(16, 1, channel_mixing="mlp").blocks[0].channel_mixing
    assert [type(m) for m in mlp] == [nn.LayerNorm, nn.Linear, nn.GELU, nn.LayerNorm, nn.Linear, nn.Dropout] and mlp[-1].p == 0.2


def test_initialisation_is_he_with_zero_biases():
    torch.manual_seed(0)
    model = MultiScaleConvMixer(256, 2, stem_dim=32, num_classes=50)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in = module.weight[0].numel()
            if module.weight.numel() > 5000:
                assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
            assert not module.bias.any()


def test_learns_one_batch():
    torch.manual_seed(0)
    model = MultiScaleConvMixer(16, 2, stem_dim=8, num_classes=4)
    x, y = torch.randn(8, 3, 16, 16), torch.arange(8) % 4
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3  # from 1.4 or more


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 7}, "patch_size is 7, expected an even number"),
        ({"kernel_sizes": (3, 3)}, "different sizes"),
        ({"kernel_sizes": ()}, "different sizes"),
        ({"combine": "add"}, "expected sum or split"),
        ({"channel_mixing": "linear"}, "expected conv or mlp"),
        ({"dim": 3, "combine": "split"}, "cannot be split"),
        ({"channel_ratio": 0.0}, "channel_ratio is 0.0"),
        ({"drop_path_rate": -0.1}, "drop_path is -0.1"),
    ],
)
def test_impossible_arguments_are_named(arguments, message):
    with pytest.raises(ModelError, match=message):
        MultiScaleConvMixer(**{"dim": 8, "depth": 2, **arguments})


def test_too_small_an_image_says_what_is_needed():
    with pytest.raises(ModelError, match="at least 4x4 pixels, got 3x8"):
        MultiScaleConvMixer(8, 1)(torch.randn(1, 3, 3, 8))
