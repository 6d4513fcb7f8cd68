"""Trains the detectors and segmenters that RESULTS.md shows, one after the other, and collects their records.

    python benchmarks/dense.py                     all of them (about an hour and a half)
    python benchmarks/dense.py bccd-convmlp_t      some of them
    python benchmarks/dense.py --collect           nothing is trained: takes the records of finished runs again

Data comes from ../shared/data (or $CONVMIX_SHARED/data) and goes to runs/show/, which git ignores; so do the trained models.
Expected: AP50 >= 60 % on the blood cells, a mean IoU of at least 1.5 times that of the position prior on the street scenes.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import show
import tables
from show import Experiment

RESULTS = tables.ROOT / "benchmarks/results/dense"
EXPERIMENTS = (
    Experiment("bccd-convmlp_t", "convmix train BCCD --model convmlp_t --budget 20m", "bccd_voc.tar.gz"),
    Experiment("bccd-convmixer", "convmix train BCCD --model convmixer_256_8_k7_p16 --budget 20m", "bccd_voc.tar.gz"),
    Experiment("camvid-convmlp_t", "convmix train camvid --model convmlp_t --budget 12m", "camvid.tar.gz"),
    Experiment("camvid-convmlp_t-authors_taps", "convmix train camvid --model convmlp_t --taps authors --budget 12m", "camvid.tar.gz"),
    Experiment("camvid-convmixer", "convmix train camvid --model convmixer_256_8_k7_p8 --budget 12m", "camvid.tar.gz"),
    Experiment("nuclei-convmlp_t", "convmix train nuclei --model convmlp_t --budget 15m", "nuclei_coco.tar.gz"),
)


def prior_scores(folder: Path) -> dict[str, Any]:
    """Scores of saying at every position what is there most often in the training images, on the test images."""
    from convmix.config import Data
    from convmix.data.readers.pixelmaps import read_regions
    from convmix.data.sources import open_source
    from convmix.metrics.segmentation import PositionPrior, confusion, segmentation_metrics

    source = open_source(folder, Data(task="segment"))
    k = len(source.classes)

    def maps(split: str) -> list[np.ndarray]:
        examples = source.splits[split]
        return [read_regions(examples.annotation(i)) for i in range(len(examples))]

    prior = PositionPrior.of(maps("train"), k)
    confusions = np.stack([confusion(truth, prior.predict(truth.shape), k) for truth in maps("test")])
    scores = segmentation_metrics(confusions, source.classes)
    return {name: scores[name] for name in ("n", "miou", "miou_interval", "pixel_accuracy", "pixel_accuracy_interval")}


def collect(experiment: Experiment) -> Path:
    """The run's record, under the experiment's name and with the command as anybody would type it."""
    record = json.loads((experiment.out / "record.json").read_text())
    record |= {"name": experiment.name, "command": experiment.command}
    if record["task"] == "segment":
        record["position_prior"] = prior_scores(show.PLACE / record["data"]["name"])
    RESULTS.mkdir(parents=True, exist_ok=True)
    target = RESULTS / f"{experiment.name}.json"
    target.write_text(json.dumps(record, indent=1) + "\n")
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    return show.run_all(EXPERIMENTS, collect, arguments, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
