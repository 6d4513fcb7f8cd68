"""Writes docs/gpu_floors.md: what each published model takes at the least on an H200-class card, and how that is counted.

python benchmarks/gpu_floors.py            write the page
python benchmarks/gpu_floors.py --check    fail where it differs from what would be written
"""

import argparse
import sys
from collections.abc import Sequence

from tables import ROOT, table

from convmix.benchmarking.floor import H200, INFERENCE_WEIGHT_BYTES, TRAINING_WEIGHT_BYTES, Card, Floor, Kind, Pass, floor, passes

PAGE = ROOT / "docs/gpu_floors.md"
WORKS: dict[str, tuple[int, int, dict[Kind, int]]] = {  # model -> side in pixels, classes, images per batch of benchmarks/gpu.py
    "convmixer_1536_20": (224, 1000, {"inference": 128, "training": 64}),
    "convmixer_768_32": (224, 1000, {"inference": 256, "training": 64}),
    "convmixer_1024_20_ks9_p14": (224, 1000, {"inference": 256, "training": 128}),
    "convmlp_s": (224, 1000, {"inference": 256, "training": 128}),
    "convmlp_m": (224, 1000, {"inference": 256, "training": 128}),
    "convmlp_l": (224, 1000, {"inference": 256, "training": 128}),
    "convmixer_256_8": (32, 10, {"inference": 1024, "training": 512}),
}
KINDS: tuple[Kind, ...] = ("inference", "training")
DETAILED = "convmixer_1536_20"

HEAD = """# The floors on a GPU

Written by `python benchmarks/gpu_floors.py`; nothing here is measured on a model. For each published model: the operations that must be
done and the bytes that must go through device memory with perfect fusion, and the time that the busiest unit of the card needs for
them. No program runs much faster, whoever writes it; `benchmarks/gpu.py` gives every measured time as a share of this floor.

## The card

{card}

The rate of matrix products and that of copying (bytes read plus bytes written) were measured on one such card with random data. The
rate for depthwise convolutions is the vendor's for float32 outside the tensor cores, a lead and not a measurement: every output needs k
x k products of its own channel alone, which is no matrix product. bf16 in pairs would be twice as fast but add up in bf16; banded
matrices bring the products onto tensor cores at the price of multiplying by zeros. Where `depthwise` is the largest column, a kernel of
that kind may pass the floor.

## What is counted

An operation is a product or a sum: two for each multiply-add. Training does three times the multiply-adds of the forward pass, the stem
twice, since nobody needs the gradient of the image. Activations and norms are not counted.

Traffic is counted in bf16, two bytes a value, every tensor once for each pass that reads or writes it:

- A convolution that looks at neighbouring pixels begins a pass. Products over the channels of one pixel, activations, norms,
  residuals, pooling and the classifier go along with it on chip.
- **Inference, ConvMixer:** a block reads x and writes x; the last one is pooled on the way. Kernels that keep the depthwise and the
  pointwise convolution apart move twice that.
- **Inference, ConvMLP:** a perceptron's inside never leaves the chip. A block is one pass: its depthwise convolution, its second
  perceptron and the first one of the next block.
- **Training:** a batch norm's statistics are of the whole batch, so they end a pass. What is kept for the backward pass is the output
  of each convolution before its activation and norm; whoever reads it computes these again. ConvMixer with u, the output of the last
  pointwise convolution, and z, that of the depthwise one, each T values: depthwise reads u, writes z (2 T); pointwise reads z and u,
  for the residual, and writes the next u (3 T). Backward, the slope of a norm needs two sums over the batch, gathered where the
  incoming slope is made: pointwise reads the slope, the next u, z and u and writes one slope (5 T); depthwise reads that, z and u and
  writes one (4 T). 14 T for a block, 13 T for the last, whose incoming slope is the same for all pixels.
- **Training, ConvMLP:** the passes of inference, which leave what the backward pass needs: before a perceptron, inside it before the
  activation, behind the depthwise convolution. Layer norms are of one pixel and end nothing; in the tokenizer and in the blocks at
  stride 4 every convolution has a batch norm and so a pass of its own.
- **Weights:** once a batch. Inference reads {inference} bytes each; a training step moves {training}: read in bf16 forward and
  backward, gradient written and read, weight and two moments read and written by AdamW, in float32, and the weight written in bf16.
- Caches are left out: what one image of a small batch leaves behind may still be in the 50 or 60 MB of the second-level cache.

## The floors

"""


def page() -> str:
    """The whole page."""
    card = table(
        ("unit", "rate"),
        [
            ("matrix products, bf16, tensor cores", f"{H200.matrix / 1e12:.0f} TFLOP/s"),
            ("depthwise convolutions, float32", f"{H200.plain / 1e12:.0f} TFLOP/s"),
            ("device memory", f"{H200.memory / 1e12:.1f} TB/s"),
        ],
    )
    parts = [HEAD.format(card=card, inference=INFERENCE_WEIGHT_BYTES, training=TRAINING_WEIGHT_BYTES)]
    for kind in KINDS:
        parts.append(f"### {kind.capitalize()}\n\nMicroseconds per image, weights shared by the batch:\n\n{floors(kind, H200)}\n")
    parts.append(
        '"One after the other": the same for kernels that do either depthwise convolutions or matrix products, none beside another.\n'
    )
    for kind in KINDS:
        parts.append(f"## {DETAILED}, {kind}, pass by pass\n\nOne image, millions:\n\n{detail(kind)}\n")
    return "\n".join(parts).rstrip("\n") + "\n"


def floors(kind: Kind, card: Card) -> str:
    """One row per model: at one image and at the batch of benchmarks/gpu.py."""
    header = (
        "model", "images", "G operations", "of them depthwise", "MB of activations", "MB of weights",
        "matrix products", "depthwise", "memory", "floor", "images/s at most", "one after the other",
    )  # fmt: skip
    rows = []
    for model, (side, classes, batches) in WORKS.items():
        for batch in (1, batches[kind]):
            f = floor(model, kind, batch_size=batch, size=(side, side), num_classes=classes)
            rows.append((f"`{model}`", batch, *_cells(f, card)))
    return table(header, rows)


def _cells(f: Floor, card: Card) -> tuple[str, ...]:
    n = f.batch_size
    times = {name: 1e6 * seconds / n for name, seconds in f.times(card).items()}
    return (
        f"{(f.matrix_operations + f.depthwise_operations) / n / 1e9:.4g}",
        f"{f.depthwise_operations / n / 1e9:.3g}",
        f"{f.activation_bytes / n / 1e6:.4g}",
        f"{f.weight_bytes / n / 1e6:.3g}",
        *(f"**{us:.3g}**" if name == f.bound_by(card) else f"{us:.3g}" for name, us in times.items()),
        f"{1e6 * f.seconds(card) / n:.3g}",
        f"{n / f.seconds(card):,.0f}",
        f"{1e6 * f.seconds_in_turn(card) / n:.3g}",
    )


def detail(kind: Kind) -> str:
    """Equal passes in one row."""
    counted: dict[Pass, int] = {}
    for p in passes(DETAILED, kind):
        counted[p] = counted.get(p, 0) + 1
    header = ("pass", "times", "values read and written", "multiply-adds in matrix products", "in depthwise convolutions")
    return table(
        header,
        [
            (p.name, times, f"{p.values / 1e6:.3f}", f"{p.matrix_macs / 1e6:,.1f}", f"{p.depthwise_macs / 1e6:,.1f}")
            for p, times in counted.items()
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the page is not up to date")
    if parser.parse_args(arguments).check:
        stale = not PAGE.exists() or PAGE.read_text() != page()
        if stale:
            print(f"{PAGE.name} is not what the code says; run `python benchmarks/gpu_floors.py`", file=sys.stderr)
        return int(stale)
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
