"""Detection and segmentation from published weights and from scratch, the same minutes: how good each is at every minute.

    python benchmarks/dense_weights.py                        blood cells and street scenes, ten minutes each way (two cores)
    python benchmarks/dense_weights.py --data camvid --budget 6m

The same network (EfficientNet-Lite0 as the backbone, few.py says whose weights) and recipe, in one case with the weights and the
preprocessing that they bring. A record holds the validation score of every epoch with the seconds since the start of the command, and the
scores on the test images at the end; what is recorded with this budget is not trained again.

Expected: better from weights at every minute.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import few
import show
import tables

RESULTS = show.RESULTS / "dense_weights"
DATA = {"bccd": ("BCCD", "bccd_voc.tar.gz"), "camvid": ("camvid", "camvid.tar.gz")}  # name -> folder, archive
WAYS = ("weights", "scratch")
_SCORES = {"detect": ("ap", "ap50"), "segment": ("miou", "pixel_accuracy")}


def train(data: str, way: str, budget: str) -> dict[str, Any]:
    """What is kept of one command's record; SystemExit where it fails."""
    folder, archive = DATA[data]
    show.PLACE.mkdir(parents=True, exist_ok=True)
    show.prepare(archive)
    out = show.PLACE / "runs" / f"{data}-{way}"
    shutil.rmtree(out, ignore_errors=True)
    start = ["--weights", str(few.weights_file())] if way == "weights" else ["--pretrained", "no"]
    command = ["train", folder, "--model", few.MODEL, *start, "--budget", budget, "--out", str(out.relative_to(show.PLACE))]
    print(f"\n$ convmix {' '.join(command)}", flush=True)
    if code := subprocess.run([sys.executable, "-m", "convmix", *command], cwd=show.PLACE, stdin=subprocess.DEVNULL).returncode:
        raise SystemExit(f"the training {out.name} ended with exit code {code}")
    record = json.loads((out / "record.json").read_text())
    score, *_ = names = _SCORES[record["task"]]
    test = {key: record["test"][key] for name in names for key in (name, f"{name}_interval")} | {"n": record["test"]["n"]}
    return {
        "data": data, "way": way, "budget": budget, "budget_s": record["budget_s"], "task": record["task"], "score": score, "test": test,
        "points": [{"elapsed_s": row["elapsed_s"], "value": row[f"val_{score}"]} for row in record["curve"]],
        **{key: record[key] for key in ("model", "date", "recipe", "machine", "versions", "elapsed_s", "epochs_done")},
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=tuple(DATA), default=tuple(DATA))
    parser.add_argument("--budget", default="10m", help="of every training, as for convmix train")
    asked = parser.parse_args(arguments)
    for data in asked.data:
        for way in WAYS:
            target = RESULTS / f"{data}-{way}.json"
            if target.exists() and json.loads(target.read_text())["budget"] == asked.budget:
                continue
            record = train(data, way, asked.budget)
            RESULTS.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(record, indent=1) + "\n")
    return tables.main([])


if __name__ == "__main__":
    sys.exit(main())
