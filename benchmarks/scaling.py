"""Measures batch prediction on a local Ray: throughput with one and two workers, and memory as the number of rows grows.

    python benchmarks/scaling.py throughput      about five minutes on two cores
    python benchmarks/scaling.py memory          10,000, 100,000 and 1,000,000 rows: about ten minutes

Images and models are made here: what is computed does not depend on weights. Nothing else may run on the machine.
Expected: two workers at least 1.6 times as fast as one; the same memory within 15 % from 10,000 rows on.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import tables
from PIL import Image

RESULTS = tables.ROOT / "benchmarks/results/scaling"
REPEATS, WORKERS = 3, (1, 2)
PHOTOS, PHOTO_SIDE, PHOTO_MODEL = 400, 256, "convmlp_s"
ROWS = (10_000, 100_000, 1_000_000)
SMALL_SIDE, SMALL_MODEL = 8, "convmixer_8_1_k3_p4"
SAMPLE_S = 0.5
CHILD = (
    "import sys, json, convmix.batch_inference.job as job; a = json.loads(sys.argv[1]); job.batch_predict(a.pop('run'), a.pop('data'), **a)"
)


def make_model(path: Path, name: str, *, side: int) -> Path:
    """A run directory with the weights of the beginning."""
    from convmix.artifacts.artifact import save_artifact
    from convmix.data.preprocessing import Preprocess
    from convmix.models.catalog import create_model
    from convmix.tasks.classify import Classify

    labels = tuple(f"class {i}" for i in range(10))
    prepare = Preprocess((side, side), "crop", "bicubic", 1.0, (0.5,) * 3, (0.25,) * 3)
    save_artifact(path, model=create_model(name, num_classes=len(labels)), task=Classify(labels), preprocess=prepare, info={})
    return path


def make_table(path: Path, rows: int, *, side: int, form: str, group: int) -> Path:
    """A parquet file of pictures of noise, 64 different ones again and again, written group by group."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(64):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(out, form)
        pictures.append(out.getvalue())
    schema = pa.schema([("id", pa.string()), ("image", pa.binary())])
    with pq.ParquetWriter(path, schema) as writer:
        for begin in range(0, rows, group):
            numbers = range(begin, min(begin + group, rows))
            columns = [[f"image {i:07d}" for i in numbers], [pictures[i % 64] for i in numbers]]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=group)
    return path


class Memory(threading.Thread):
    """The peak of the proportional set size, in bytes, of a process and all below it: whole, and by their part in the job."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root = psutil.Process(pid)
        self.peaks: dict[str, int] = {}
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(SAMPLE_S):
            parts: dict[str, int] = {}
            try:
                for process in (self.root, *self.root.children(recursive=True)):
                    part = self._part(process)
                    parts[part] = parts.get(part, 0) + _pss(process.pid)
            except psutil.Error:  # one ended while it was looked at
                continue
            parts["all"] = sum(parts.values())
            self.peaks = {part: max(self.peaks.get(part, 0), parts.get(part, 0)) for part in {*self.peaks, *parts}}

    def _part(self, process: psutil.Process) -> str:
        if process.pid == self.root.pid:
            return "driver"
        return "workers" if "MapWorker" in " ".join(process.cmdline()) else "ray"


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def predict(run: Path, data: Path, output: Path, **settings: Any) -> dict[str, Any]:
    """The summary of a job in a process of its own, with its peak memory."""
    arguments = json.dumps({"run": str(run), "data": str(data), "output": str(output), **settings})
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}  # 15 where nothing is said: after everybody else
    process = subprocess.Popen([sys.executable, "-c", CHILD, arguments], env=environment, cwd=tables.ROOT)
    memory = Memory(process.pid)
    memory.start()
    code = process.wait()
    memory.stopped.set()
    if code:
        raise SystemExit(f"the job ended with {code}")
    summary: dict[str, Any] = json.loads((output / "_summary.json").read_text())
    return summary | {"wall_s": round(time.perf_counter() - started, 1), "peak_bytes": memory.peaks}


def throughput(place: Path) -> dict[str, Any]:
    run = make_model(place / "run", PHOTO_MODEL, side=224)
    data = make_table(place / "photos.parquet", PHOTOS, side=PHOTO_SIDE, form="JPEG", group=20)
    runs = []
    for repeat in range(REPEATS):
        for workers in WORKERS:
            done = predict(run, data, place / f"{repeat}-{workers}", workers=workers, part_size=20, precision="fp32")
            rates = [one["rows"] / one["busy_s"] for one in done["workers"].values()]
            times = {k: done[k] for k in ("images_per_s", "elapsed_s", "startup_s", "wall_s")}
            runs.append({"workers": workers, "steady_per_s": round(sum(rates), 2), **times})
            print(runs[-1], flush=True)
    return {
        "model": PHOTO_MODEL, "images": PHOTOS, "image": f"{PHOTO_SIDE}x{PHOTO_SIDE} JPEG", "input": 224, "precision": "fp32", "runs": runs,
        "images_per_s": _by_workers(runs, "images_per_s"), "steady_per_s": _by_workers(runs, "steady_per_s"),
    }  # fmt: skip


def _by_workers(runs: Sequence[dict[str, Any]], key: str) -> dict[str, dict[str, float]]:
    """Median and range."""
    found = {w: [r[key] for r in runs if r["workers"] == w] for w in WORKERS}
    return {str(w): {"median": statistics.median(values), "min": min(values), "max": max(values)} for w, values in found.items()}


def memory(place: Path) -> dict[str, Any]:
    run = make_model(place / "run", SMALL_MODEL, side=SMALL_SIDE)
    runs = []
    for rows in ROWS:
        data = make_table(place / f"{rows}.parquet", rows, side=SMALL_SIDE, form="PNG", group=1000)
        done = predict(run, data, place / f"out-{rows}", workers=2, part_size=2000, batch_size=256, precision="fp32")
        if done["rows"] != rows or done["bad"]:
            raise SystemExit(f"{done['rows']} rows, {done['bad']} of them bad, expected {rows}")
        runs.append({"rows": rows, **{k: done[k] for k in ("parts", "images_per_s", "elapsed_s", "startup_s", "wall_s", "peak_bytes")}})
        print(runs[-1], flush=True)
    return {"model": SMALL_MODEL, "image": f"{SMALL_SIDE}x{SMALL_SIDE} PNG", "workers": 2, "runs": runs}


def main(arguments: Sequence[str]) -> int:
    import torch

    from convmix.hardware import describe_machine

    works = {"throughput": throughput, "memory": memory}
    for name in arguments or works:
        if name not in works:
            print(__doc__, file=sys.stderr)
            return 2
        with tempfile.TemporaryDirectory(prefix="convmix-scaling-") as place:
            record = works[name](Path(place))
        RESULTS.mkdir(parents=True, exist_ok=True)
        described = {"command": f"python benchmarks/scaling.py {name}", "machine": describe_machine(torch.device("cpu"))}
        (RESULTS / f"{name}.json").write_text(json.dumps({**described, **record}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
