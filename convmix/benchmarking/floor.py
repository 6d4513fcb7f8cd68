"""The floor of a model on a card: no program for it runs much faster, whoever writes it.

architecture -> passes (operations, bytes through device memory) -> the time of each unit of the card -> the largest is the floor

Counted per image, in bf16, with perfect fusion:
- a convolution that looks at neighbouring pixels begins a pass; products over the channels of one pixel, activations, norms, residuals and
  pooling go along with it on chip. In training a batch norm ends a pass too, since its statistics are of the whole batch.
- a pass reads each of its tensors once and writes each of its results once. In training a convolution leaves its output as it is, before
  activation and norm, which whoever reads it computes again; the backward pass reads that, and what the convolution read.
- the weights and what the optimiser keeps of them are read and written once a batch.
Not counted: the arithmetic of activations and norms, and caches, which may hold what one small image leaves between two passes.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from convmix.config import Size
from convmix.errors import ModelError
from convmix.models import catalog

Kind = Literal["inference", "training"]
VALUE_BYTES = 2  # a bf16 value
INFERENCE_WEIGHT_BYTES = 2
# Per parameter and training step: read in bf16 forward and backward (4), the float32 gradient written and read (8), AdamW reads and writes
# weight and two moments in float32 (24) and leaves the weight in bf16 for the next step (2).
TRAINING_WEIGHT_BYTES = 4 + 8 + 24 + 2


@dataclass(frozen=True)
class Card:
    """What a card can do at most, per second."""

    name: str
    matrix: float  # bf16 operations on tensor cores
    plain: float  # float32 operations outside them, where a depthwise convolution is computed
    memory: float  # bytes to and from device memory


# Matrix products of random numbers and a copy, both measured on such a card; `plain` is the datasheet's for float32 (bf16 in pairs: twice).
H200 = Card("H200", matrix=790e12, plain=67e12, memory=4.3e12)
H100 = Card("H100", matrix=798e12, plain=67e12, memory=3.0e12)


@dataclass(frozen=True)
class Pass:
    """What is done and moved for one image between two times of going through device memory."""

    name: str
    values: int  # read and written
    matrix_macs: int = 0
    depthwise_macs: int = 0


@dataclass(frozen=True)
class Floor:
    """Of one batch."""

    model: str
    kind: Kind
    batch_size: int
    matrix_operations: int  # a product and a sum are two
    depthwise_operations: int
    activation_bytes: int
    weight_bytes: int

    def times(self, card: Card) -> dict[str, float]:
        """Seconds that each unit of the card is busy with it at the least."""
        return {
            "matrix products": self.matrix_operations / card.matrix,
            "depthwise": self.depthwise_operations / card.plain,
            "memory": (self.activation_bytes + self.weight_bytes) / card.memory,
        }

    def seconds(self, card: Card) -> float:
        """The floor: of the unit that is busy longest, as if the others worked beside it all the time."""
        return max(self.times(card).values())

    def seconds_in_turn(self, card: Card) -> float:
        """The same for kernels that do either depthwise convolutions or matrix products, one kernel after the other."""
        times = self.times(card)
        return max(times["matrix products"] + times["depthwise"], times["memory"])

    def bound_by(self, card: Card) -> str:
        """The unit that is busy longest."""
        times = self.times(card)
        return max(times, key=lambda name: times[name])


def floor(model: str, kind: Kind, *, batch_size: int, size: Size = (224, 224), num_classes: int = 1000) -> Floor:
    """The least that a batch of `model` takes; ModelError for an architecture whose passes are not known here.

    Training is forward, backward and an AdamW step.
    """
    done = passes(model, kind, size=size, num_classes=num_classes)
    per_parameter = INFERENCE_WEIGHT_BYTES if kind == "inference" else TRAINING_WEIGHT_BYTES
    return Floor(
        model, kind, batch_size,
        matrix_operations=2 * batch_size * sum(p.matrix_macs for p in done),
        depthwise_operations=2 * batch_size * sum(p.depthwise_macs for p in done),
        activation_bytes=VALUE_BYTES * batch_size * sum(p.values for p in done),
        weight_bytes=per_parameter * _parameters(model, num_classes),
    )  # fmt: skip


@functools.cache
def _parameters(model: str, num_classes: int) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in catalog.create_model(model, num_classes=num_classes).parameters())


def passes(model: str, kind: Kind, *, size: Size = (224, 224), num_classes: int = 1000) -> list[Pass]:
    """What one image goes through, forward and then, in training, backward."""
    spec = catalog.find(model)
    counted = {"convmixer": _convmixer, "convmlp": _convmlp}
    if spec is None or spec.family not in counted or not spec.arguments:
        raise ModelError(f"{model}: floors are counted for named sizes of ConvMixer and ConvMLP alone")
    return list(counted[spec.family](dict(spec.arguments), size, num_classes, kind == "training"))


def _convmixer(a: dict[str, Any], size: Size, num_classes: int, training: bool) -> Iterator[Pass]:
    """u: what a pointwise convolution (at first the stem) leaves; z: what a depthwise one leaves. Each is C,h,w."""
    dim, depth, patch = a["dim"], a["depth"], a["patch_size"]
    pixels = (size[0] // patch) * (size[1] // patch)
    image, t = 3 * size[0] * size[1], dim * pixels
    stem, space, channels, head = 3 * patch**2 * t, a["kernel_size"] ** 2 * t, dim * t, dim * num_classes
    yield Pass("stem: image -> u", image + t, stem)
    if not training:
        for _ in range(depth - 1):
            yield Pass("block: x -> x", 2 * t, channels, space)
        yield Pass("last block, pooling, head: x -> logits", t + num_classes, channels + head, space)
        return
    for _ in range(depth):
        yield Pass("depthwise: u -> z", 2 * t, depthwise_macs=space)
        yield Pass("pointwise: z, u -> next u", 3 * t, channels)
    yield Pass("head: pooled on the way -> logits", 2 * dim + num_classes, head)
    yield Pass("head backward", num_classes + 2 * dim, 2 * head)
    for i in range(depth):
        slope = 0 if i == 0 else t  # behind the last block every pixel has the pooled one's
        yield Pass("pointwise backward: d next u, next u, z, u -> dy", slope + 4 * t, 2 * channels)
        yield Pass("depthwise backward: dy, z, u -> du", 4 * t, depthwise_macs=2 * space)
    yield Pass("stem backward: du, u, image -> its weights' gradient", 2 * t + image, stem)


def _convmlp(a: dict[str, Any], size: Size, num_classes: int, training: bool) -> Iterator[Pass]:
    """x: the stream of pixels, D,h,w; h: inside a perceptron, before its activation; c: what a depthwise convolution leaves.

    Of a block's two perceptrons the second and the next block's first are of one pixel, so they are in one pass, forward and backward.
    """
    forward, backward, read, down = _tokenized_training(a, size) if training else _tokenized(a, size)
    yield from forward
    dims = a["dims"]
    head = dims[-1] * num_classes
    for i, (dim, ratio, depth) in enumerate(zip(dims, a["mlp_ratios"], a["blocks"], strict=True)):
        last = i + 1 == len(dims)
        pixels, next_pixels = (_down(size[0], n) * _down(size[1], n) for n in (3 + i, 4 + i))
        t, hidden = dim * pixels, int(dim * ratio) * pixels
        mlp, space, out = 2 * dim * hidden, 9 * t, 0 if last else dims[i + 1] * next_pixels
        kept = t + hidden if training else 0  # what stands before a perceptron and what is inside it
        yield Pass("downsample, MLP: x -> x, h, x", read + kept + t, down + mlp)
        for _ in range(depth - 1):
            yield Pass("depthwise, MLP, MLP: x -> c, h, x, h, x", t + 2 * kept + t, 2 * mlp, space)
        left = 0 if last and not training else t  # nobody needs the last pixels: they are pooled on the way
        yield Pass("depthwise, MLP: x -> c, h, x", t + kept + left, mlp, space)
        read, down = t, 0 if last else 9 * dim * out
        if last:
            yield Pass("head: pooled on the way -> logits", 2 * dim + num_classes, head)
        backward.append(
            [
                Pass("backward, downsample or head, then MLP: slope, x, h, c -> dc", out + 3 * t + hidden, 2 * (down + mlp)),
                *([Pass("backward, depthwise, MLP, MLP: dc, x, h, x, h, c -> dc", 5 * t + 2 * hidden, 4 * mlp, 2 * space)] * (depth - 1)),
                Pass("backward, depthwise, MLP: dc, x, h, x -> dx", 4 * t + hidden, 2 * mlp, 2 * space),
            ]
        )
    if training:
        yield Pass("head backward", num_classes + 2 * dims[-1], 2 * head)
        for stage in reversed(backward):
            yield from stage


_Part = tuple[
    list[Pass], list[list[Pass]], int, int
]  # passes forward; backward, in stages; what the convolution to stride 8 reads; its MACs


@dataclass(frozen=True)
class _Tokens:
    """Values and MACs of the convolutional part of a ConvMLP: tokenizer, blocks at stride 4, the convolution to stride 8."""

    image: int
    narrow: int  # what the first two convolutions leave
    wide: int  # what the third leaves, before the pooling
    x: int  # the stream at stride 4
    inner: int  # inside a block
    out: int
    first: int  # MACs from here on
    second: int
    third: int
    across: int  # of each of a block's 1x1 convolutions
    middle: int
    down: int


def _tokens(a: dict[str, Any], size: Size) -> _Tokens:
    c, d = a["channels"], a["dims"][0]
    halves, quarters, eighths = (_down(size[0], i) * _down(size[1], i) for i in (1, 2, 3))
    narrow, wide, inner, out = c // 2 * halves, c * halves, d * quarters, d * eighths
    return _Tokens(
        3 * size[0] * size[1], narrow, wide, c * quarters, inner, out,
        first=27 * narrow, second=9 * (c // 2) * narrow, third=9 * (c // 2) * wide,
        across=c * inner, middle=9 * d * inner, down=9 * c * out,
    )  # fmt: skip


def _tokenized(a: dict[str, Any], size: Size) -> _Part:
    t = _tokens(a, size)
    depth = a["n_conv_blocks"]
    forward = [
        Pass("tokenizer 1: image -> a", t.image + t.narrow, t.first),
        Pass("tokenizer 2: a -> a", 2 * t.narrow, t.second),
        Pass("tokenizer 3, pooling, 1x1: a -> x, b", t.narrow + t.x + t.inner, t.third + t.across),
        *([Pass("block, 3x3, 1x1, next 1x1: b, x -> x, b", 2 * t.inner + 2 * t.x, t.middle + 2 * t.across)] * (depth - 1)),
        Pass("block, 3x3, 1x1: b, x -> x", t.inner + 2 * t.x, t.middle + t.across),
    ]
    return forward, [], t.x, t.down


def _tokenized_training(a: dict[str, Any], size: Size) -> _Part:
    """a1 to a3 and b1 to b3 are convolutions' outputs before their batch norms."""
    t = _tokens(a, size)
    forward = [
        Pass("tokenizer 1: image -> a1", t.image + t.narrow, t.first),
        Pass("tokenizer 2: a1 -> a2", 2 * t.narrow, t.second),
        Pass("tokenizer 3: a2 -> a3", t.narrow + t.wide, t.third),
    ]
    backward = [
        Pass("backward, tokenizer 1: da1, a1, image -> its weights' gradient", 2 * t.narrow + t.image, t.first),
        Pass("backward, tokenizer 2: da2, a2, a1 -> da1", 4 * t.narrow, 2 * t.second),
        Pass("backward, tokenizer 3: dx, a3, a2 -> da2", t.x + t.wide + 2 * t.narrow, 2 * t.third),
    ]
    for i in range(a["n_conv_blocks"]):
        source = t.wide if i == 0 else t.x  # a3, pooled on the way; else b3 of the block before, which is added to its x
        forward += [
            Pass("block, 1x1: a3, or x and b3 -> x, b1", source + (0 if i == 0 else t.x) + t.x + t.inner, t.across),
            Pass("block, 3x3: b1 -> b2", 2 * t.inner, t.middle),
            Pass("block, 1x1: b2 -> b3", t.inner + t.x, t.across),
        ]
        backward += [
            Pass("backward, block, 1x1: db1, b1, x, d next x, a3 or earlier b3 -> dx", 2 * t.inner + 3 * t.x + source, 2 * t.across),
            Pass("backward, block, 3x3: db2, b2, b1 -> db1", 4 * t.inner, 2 * t.middle),
            Pass("backward, block, 1x1: d next x, b3, b2 -> db2", 2 * t.x + 2 * t.inner, 2 * t.across),
        ]
    backward.append(Pass("backward, downsample: d next x, x, b3 -> dx", t.out + 3 * t.x, 2 * t.down))
    return forward, [list(reversed(backward))], 2 * t.x, t.down


def _down(pixels: int, times: int) -> int:
    """A side after so many convolutions of stride 2 that pad by one."""
    for _ in range(times):
        pixels = (pixels + 1) // 2
    return pixels
