"""What int8 costs in accuracy: the trained CIFAR-10 model of show.py on its test images, in float32 and in int8.

    python benchmarks/show.py cifar10-convmixer_256_8      trains it
    python benchmarks/int8.py                              evaluates it twice and writes benchmarks/results/int8/NAME.json

Expected: at most 0.5 points between the two.
"""

import csv
import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import show
import tables

NAME = "cifar10-convmixer_256_8"


def main() -> int:
    import torch

    import convmix
    from convmix.hardware import describe_machine

    run = Path("runs") / NAME
    os.chdir(show.PLACE)  # the run names its data as seen from here
    chosen = convmix.optimize(run, precision="int8")
    scores, answers = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for precision, optimize in (("fp32", "never"), ("int8", "always")):
            output = Path(folder) / f"{precision}.json"
            evaluation = convmix.evaluate(run, precision=precision, optimize=optimize, output=output)
            scores[precision] = {key: evaluation.metrics[key] for key in ("n", "correct", "accuracy", "accuracy_interval", "loss")}
            with output.with_suffix(".csv").open(newline="") as file:
                answers[precision] = [row["prediction"] for row in csv.DictReader(file)]
    changed = sum(a != b for a, b in zip(answers["fp32"], answers["int8"], strict=True))
    record = {
        "name": NAME,
        "date": datetime.now(UTC).date().isoformat(),
        "engine": str(chosen.plan),
        "times_as_fast_as_float32": chosen.report.speedup,
        **scores,
        "changed_answers": changed,
        "machine": describe_machine(torch.device("cpu")),
        "versions": {name: version(name) for name in ("convmix", "torch", "openvino", "nncf")},
    }
    target = show.RESULTS / "int8" / f"{NAME}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    return tables.main([])


if __name__ == "__main__":
    sys.exit(main())
