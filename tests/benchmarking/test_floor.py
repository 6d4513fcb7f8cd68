"""Floors equal cases counted by hand, and their operations convmix's own count of multiply-adds."""

import pytest

from convmix.benchmarking.floor import Card, Floor, floor, passes
from convmix.errors import ModelError
from convmix.models.describe import count_macs

SIX = ["convmixer_1536_20", "convmixer_768_32", "convmixer_1024_20_ks9_p14", "convmlp_s", "convmlp_m", "convmlp_l"]
TINY = "convmixer_8_2_k3_p4"  # on 8x12 pixels: 2x3 patches of 8 channels, T = 48 values
T, IMAGE = 48, 3 * 8 * 12
STEM, SPACE, CHANNELS, HEAD = 48 * T, 9 * T, 8 * T, 8 * 5  # multiply-adds: 3 * 4 * 4 products per value, 3 * 3, 8, 8 per class
PARAMETERS = (48 * 8 + 3 * 8) + 2 * (9 * 8 + 8 * 8 + 6 * 8) + (8 * 5 + 5)


def tiny(kind: str, batch_size: int = 1) -> Floor:
    return floor(TINY, kind, batch_size=batch_size, size=(8, 12), num_classes=5)  # type: ignore[arg-type]


def test_inference_of_a_convmixer_by_hand() -> None:
    f = tiny("inference")
    assert f.activation_bytes == 2 * ((IMAGE + T) + 2 * T + (T + 5))  # stem; a block; the last block, of which logits are left
    assert f.matrix_operations == 2 * (STEM + 2 * CHANNELS + HEAD)
    assert f.depthwise_operations == 2 * 2 * SPACE
    assert f.weight_bytes == 2 * PARAMETERS


def test_training_of_a_convmixer_by_hand() -> None:
    f = tiny("training")
    stem = (IMAGE + T) + (2 * T + IMAGE)
    head = 2 * (2 * 8 + 5)
    assert f.activation_bytes == 2 * (stem + (14 + 13) * T + head)
    assert f.matrix_operations == 2 * (2 * STEM + 3 * (2 * CHANNELS + HEAD))
    assert f.depthwise_operations == 2 * 3 * 2 * SPACE
    assert f.weight_bytes == 38 * PARAMETERS


def test_a_batch_shares_its_weights() -> None:
    one, many = tiny("training"), tiny("training", 7)
    assert many.weight_bytes == one.weight_bytes
    assert many.activation_bytes == 7 * one.activation_bytes and many.matrix_operations == 7 * one.matrix_operations


def test_the_last_stage_of_a_convmlp_by_hand() -> None:
    t, hidden, earlier = 512 * 49, 1024 * 49, 256 * 196  # 7x7 pixels at stride 32, perceptrons twice as wide; 14x14 before
    mlp, down = 2 * 512 * 1024 * 49, 9 * 256 * 512 * 49
    *_, entry, block, last, _ = passes("convmlp_s", "inference")
    assert (entry.values, entry.matrix_macs) == (earlier + t, down + mlp)
    assert (block.values, block.matrix_macs, block.depthwise_macs) == (2 * t, 2 * mlp, 9 * t)
    assert (last.values, last.matrix_macs) == (t, mlp)
    training = passes("convmlp_s", "training")
    at = next(i for i, p in enumerate(training) if p.name.startswith("head:"))
    entry, block, last, _, _, first, second, third = training[at - 3 : at + 5]
    assert [p.values for p in (entry, block, last)] == [earlier + (t + hidden + t), t + (3 * t + 2 * hidden), t + (2 * t + hidden)]
    assert [p.values for p in (first, second, third)] == [3 * t + hidden, 5 * t + 2 * hidden, 4 * t + hidden]
    assert [p.matrix_macs for p in (first, second, third)] == [2 * mlp, 4 * mlp, 2 * mlp]


def test_the_tokenizer_of_a_convmlp_by_hand() -> None:
    image, narrow, wide, x, inner = 3 * 224**2, 32 * 112**2, 64 * 112**2, 64 * 56**2, 128 * 56**2
    first, second, third, block, last = passes("convmlp_s", "inference")[:5]
    assert [p.values for p in (first, second, third)] == [image + narrow, 2 * narrow, narrow + x + inner]
    assert [p.matrix_macs for p in (first, second, third)] == [27 * narrow, 9 * 32 * narrow, 9 * 32 * wide + 64 * inner]
    assert [p.values for p in (block, last)] == [2 * x + 2 * inner, 2 * x + inner]
    backward = passes("convmlp_s", "training")[-4:]
    assert [p.values for p in backward] == [2 * inner + 3 * x + wide, x + wide + 2 * narrow, 4 * narrow, 2 * narrow + image]


@pytest.mark.parametrize("model", [*SIX, "convmixer_256_8", "convmlp_t"])
@pytest.mark.parametrize("size", [(224, 224), (96, 160)])
def test_operations_are_those_that_describe_counts(model: str, size: tuple[int, int]) -> None:
    macs = count_macs(model, size=size, num_classes=1000)
    f = floor(model, "inference", batch_size=1, size=size)
    assert f.matrix_operations + f.depthwise_operations == 2 * macs
    trained = floor(model, "training", batch_size=1, size=size)
    first = passes(model, "inference", size=size)[0].matrix_macs  # whose input gradient nobody needs
    assert trained.matrix_operations + trained.depthwise_operations == 2 * (3 * macs - first)


@pytest.mark.parametrize(
    ("model", "share"), [("convmixer_1536_20", 0.050), ("convmixer_768_32", 0.060), ("convmixer_1024_20_ks9_p14", 0.071)]
)
def test_the_depthwise_share_is_the_published_models(model: str, share: float) -> None:
    f = floor(model, "inference", batch_size=1)
    assert f.depthwise_operations / (f.depthwise_operations + f.matrix_operations) == pytest.approx(share, abs=5e-4)


def test_the_busiest_unit_is_the_floor() -> None:
    f = Floor("m", "inference", 1, matrix_operations=600, depthwise_operations=50, activation_bytes=90, weight_bytes=10)
    card = Card("c", matrix=100, plain=10, memory=25)
    assert f.times(card) == {"matrix products": 6, "depthwise": 5, "memory": 4}
    assert (f.seconds(card), f.bound_by(card), f.seconds_in_turn(card)) == (6, "matrix products", 11)
    slow = Card("c", matrix=100, plain=10, memory=5)
    assert (slow.memory, f.seconds(slow), f.bound_by(slow), f.seconds_in_turn(slow)) == (5, 20, "memory", 20)


@pytest.mark.parametrize("model", ["multiscale_convmixer_s", "resnet18", "convmixer"])
def test_other_architectures_have_no_floor_here(model: str) -> None:
    with pytest.raises(ModelError, match="named sizes of ConvMixer and ConvMLP"):
        passes(model, "inference")
