"""What a teacher gives a small mixer: the same model, data, recipe, minutes and seeds, with its answers and without.

    python benchmarks/distill.py                              three seeds, ten minutes each (an hour and a quarter on two cores)
    python benchmarks/distill.py --seeds 5 --budget 5m        what benchmarks/results/distill lacks of five seeds, five minutes each

The teacher is EfficientNet-Lite0 (few.py says whose weights) with a classifier fitted to frozen features of the same training images; its
own training, once, is outside the minutes and stands in the record. A training is one `convmix train` on two cores; its score the one on
the test images at its end. A record keeps what is done, so that the script can be stopped and called again.

Expected: at least five points more with the teacher. Its photos are a part of ImageNet, which the teacher's weights were trained on.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import few
import show
import tables

RESULTS = show.RESULTS / "distill"
PLACE = tables.ROOT / "runs/distill"
DATA, STUDENT = "imagenette160", "convmixer_256_8_k7_p8"
WAYS: dict[str, tuple[str, ...]] = {"with": ("--teacher", "runs/teacher"), "without": ()}


def train(name: str, *options: str) -> dict[str, Any]:
    """The record of one command, run where the data lies; SystemExit where it fails."""
    shutil.rmtree(PLACE / "runs" / name, ignore_errors=True)
    command = ["train", DATA, *options, "--out", f"runs/{name}"]
    print(f"\n$ convmix {' '.join(command)}", flush=True)
    if code := subprocess.run([sys.executable, "-m", "convmix", *command], cwd=PLACE, stdin=subprocess.DEVNULL).returncode:
        raise SystemExit(f"the training {name} ended with exit code {code}")
    record: dict[str, Any] = json.loads((PLACE / "runs" / name / "record.json").read_text())
    return record


def teach() -> dict[str, Any]:
    """The record of the teacher's training, which is done once."""
    place = PLACE / "runs/teacher/record.json"
    if place.exists():
        done: dict[str, Any] = json.loads(place.read_text())
        return done
    return train("teacher", "--model", few.MODEL, "--weights", str(few.weights_file()), "--freeze", "backbone")


def read(budget: str) -> dict[str, Any]:
    """What is measured with this budget."""
    path = RESULTS / f"{DATA}-{budget}.json"
    empty: dict[str, Any] = {"data": DATA, "student": STUDENT, "budget": budget, "seeds": {way: {} for way in WAYS}}
    return json.loads(path.read_text()) if path.exists() else empty


def facts(record: dict[str, Any]) -> dict[str, Any]:
    """What of a training's record the table needs."""
    return {key: record[key] for key in ("model", "elapsed_s", "epochs_done", "images_per_s")} | {
        key: record["test"][key] for key in ("n", "correct", "accuracy", "accuracy_interval")
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", default="10m", help="of every training of the small model, as for convmix train")
    asked = parser.parse_args(arguments)
    show.prepare(f"{DATA}.tar.gz")
    PLACE.mkdir(parents=True, exist_ok=True)
    if not (PLACE / DATA).exists():
        (PLACE / DATA).symlink_to((show.PLACE / DATA).resolve(), target_is_directory=True)
    for seed in range(asked.seeds):
        for way, options in WAYS.items():
            record = read(asked.budget)
            if str(seed) in record["seeds"][way]:
                continue
            record["teacher"] = facts(teach())
            settings = ("--model", STUDENT, "--budget", asked.budget, "--pretrained", "no", "--seed", str(seed), *options)
            done = train(f"{way}-{seed}", *settings)
            record["seeds"][way][str(seed)] = facts(done)
            record |= {"date": datetime.now(UTC).date().isoformat(), "machine": done["machine"], "recipe": done["recipe"]}
            record["versions"] = {name: version(name) for name in ("convmix", "torch", "timm", "scikit-learn")}
            RESULTS.mkdir(parents=True, exist_ok=True)
            target: Path = RESULTS / f"{DATA}-{asked.budget}.json"
            target.write_text(json.dumps(record, indent=1) + "\n")
    return tables.main([])


if __name__ == "__main__":
    sys.exit(main())
