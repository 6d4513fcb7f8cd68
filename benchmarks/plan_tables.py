"""The tables of docs/how_to/plan.md: what the measured rates mean for ImageNet-1k and for a billion images.

Measured numbers come from the records in benchmarks/results; what is assumed or published by others stands below, with its source.
"""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]
BEGIN, END = "<!-- plan:begin -->", "<!-- plan:end -->"

TRAIN_IMAGES = 1_281_167  # ImageNet-1k
TRAIN_BYTES = 147_897_477_120  # ILSVRC2012_img_train.tar
BILLION = 1_000_000_000
CORE_HOUR, GPU_HOUR = 0.05, 2.50  # US dollars, assumed; every cost is proportional to them
NODE_CORES = 64
EPOCHS = {"convmixer_1536_20": 150, "convmixer_768_32": 300, "convmixer_1024_20_ks9_p14": 150}  # the authors' ImageNet recipes


@dataclass(frozen=True)
class Card:
    """Published images per second of one card at 224 px in mixed precision, timm's results tables (best of its settings)."""

    name: str
    inference: Mapping[str, float]
    training: Mapping[str, float]


CARDS = (
    Card(
        "RTX 4090 (timm, PyTorch 2.9)",
        {"convmixer_1536_20": 308.8, "convmixer_768_32": 1613.6, "convmixer_1024_20_ks9_p14": 1967.4},
        {},
    ),
    Card(
        "RTX 3090 (timm, PyTorch 1.12 to 2.4)",
        {"convmixer_1536_20": 153.8, "convmixer_768_32": 584.6, "convmixer_1024_20_ks9_p14": 1019.2},
        {"convmixer_1536_20": 50.1, "convmixer_768_32": 187.2, "convmixer_1024_20_ks9_p14": 307.8},
    ),
)


@dataclass(frozen=True)
class Rates:
    """What the records say of one core of the machine that they were made on."""

    inference: Mapping[str, float]  # model -> images/s of a core, the engine that convmix chooses
    training: Mapping[str, float]  # model -> images/s of a core
    memory_mib: Mapping[str, float]  # model -> of a process that answers
    prepared: float  # images/s of a core, decoded and cropped as for evaluation
    augmented: float  # the same as the ImageNet recipe trains on them
    image_bytes: float  # of the measured photographs
    machine: str


def read_rates(results: Path) -> Rates | None:
    """None where a record that the page needs is missing."""
    prepared = results / "plan" / "images.json"
    races = [json.loads(p.read_text()) for p in sorted((results / "speed").glob("*.json"))]
    races = [r for r in races if r["kind"] == "speed" and r["work"]["height"] == 224 and r["work"]["precision"] == "bf16"]
    if not prepared.exists() or not races:
        return None
    images = json.loads(prepared.read_text())
    inference, training, memory = {}, {}, {}
    for race in races:
        work, ours = race["work"], next(lane for lane in race["lanes"] if lane["name"] == "convmix")
        place = inference if work["kind"] == "inference" else training
        place[work["model"]] = ours["images_per_s"] / work["threads"]
        if work["kind"] == "inference":
            memory[work["model"]] = ours["memory_mib"]
    rate = {name: statistics.median(values) for name, values in images["images_per_core_second"].items()}
    machine = f"{races[0]['machine']['name']}, {races[0]['machine']['cores']} cores"
    return Rates(inference, training, memory, rate["evaluation"], rate["training"], images["images"]["bytes"], machine)


def hours(images: float, images_per_s: float) -> float:
    return images / images_per_s / 3600


def together(model_rate: float, preparing_rate: float) -> float:
    """Images/s of a core that prepares an image and then computes: the times add up."""
    return 1 / (1 / model_rate + 1 / preparing_rate)


def prediction_table(rates: Rates, table: Table) -> str:
    """A billion images, one model per row."""
    header = (
        "model", "on", "images/s", "hours of it", "cost per million", "100 of them: hours", "read by each, MB/s",
    )  # fmt: skip
    rows = []
    for model, rate in sorted(rates.inference.items()):
        core = together(rate, rates.prepared)
        rows.append(_prediction_row(model, f"node of {NODE_CORES} cores", core * NODE_CORES, NODE_CORES * CORE_HOUR))
        for card in CARDS:
            if model in card.inference:
                rows.append(_prediction_row(model, card.name, card.inference[model], GPU_HOUR))
    return table(header, rows)


def _prediction_row(model: str, place: str, rate: float, price: float) -> tuple[object, ...]:
    needed = hours(BILLION, rate)
    cost = hours(1e6, rate) * price
    read = rate * TRAIN_BYTES / TRAIN_IMAGES / 1e6
    return f"`{model}`", place, f"{rate:,.0f}", f"{needed:,.0f}", f"${cost:,.2f}", f"{needed / 100:,.1f}", f"{read:,.0f}"


def training_table(rates: Rates, table: Table) -> str:
    """ImageNet-1k by the authors' recipes."""
    header = ("model", "epochs", "on", "images/s of one", "hours of one", "8 at 90 %: days", "cost", "cores that prepare, per card or node")
    rows = []
    for model, epochs in EPOCHS.items():
        places = [(card.name, card.training[model], GPU_HOUR) for card in CARDS if model in card.training]
        if model in rates.training:
            places.append((f"node of {NODE_CORES} cores", rates.training[model] * NODE_CORES, NODE_CORES * CORE_HOUR))
        for name, rate, price in places:
            needed = hours(epochs * TRAIN_IMAGES, rate)
            days, cores = needed / 8 / 0.9 / 24, math.ceil(rate / rates.augmented)
            rows.append((f"`{model}`", epochs, name, f"{rate:,.0f}", f"{needed:,.0f}", f"{days:,.1f}", f"${needed * price:,.0f}", cores))
    return table(header, rows)


def tables(results: Path, table: Table) -> str:
    """What stands between the page's markers."""
    rates = read_rates(results)
    if rates is None:
        return "Nothing is recorded yet: `python benchmarks/plan.py` and `make speed` do it."
    mean = TRAIN_BYTES / TRAIN_IMAGES
    facts = [
        f"One core here ({rates.machine}) decodes and crops {rates.prepared:.0f} photographs of {rates.image_bytes / 1000:.0f} kB a second "
        f"for evaluation, {rates.augmented:.0f} as the ImageNet recipe trains on them.",
        f"ImageNet-1k: {TRAIN_IMAGES:,} training images in {TRAIN_BYTES / 1e9:.1f} GB, {mean / 1000:.0f} kB each. "
        f"A billion such images are {BILLION * mean / 1e12:.0f} TB.",
        f"Assumed: ${CORE_HOUR:.2f} per core-hour, ${GPU_HOUR:.2f} per GPU-hour.",
        "A process that answers takes "
        + ", ".join(f"{mib:,.0f} MiB (`{model}`)" for model, mib in sorted(rates.memory_mib.items()))
        + " beyond Python and PyTorch.",
    ]
    listed = "\n".join(f"- {fact}" for fact in facts)
    return (
        f"{listed}\n\n### A billion predictions\n\n{prediction_table(rates, table)}\n\n"
        f"### Training on ImageNet-1k\n\n{training_table(rates, table)}"
    )


def page(text: str, results: Path, table: Table) -> str:
    """The page with its tables renewed."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise SystemExit(f"docs/how_to/plan.md must hold {BEGIN} and {END} once each, in this order")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables(results, table)}\n\n{END}{rest.split(END)[1]}"
