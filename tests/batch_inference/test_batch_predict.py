"""Batch prediction on a local Ray with two workers: every row exactly once, whatever dies."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from large_inputs import BROKEN, write_everything
from tiny_run import make_run, write_folder

from convmix.batch_inference import cluster, job
from convmix.batch_inference.actor import Worker
from convmix.batch_inference.partitions import Tally
from convmix.errors import ConfigError, RunError
from convmix.inference.prediction import predict
from tests.patience import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(1200),  # a cluster's workers start several times, beside whatever else the machine does
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),  # Ray's own
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    """`batch_predict` uses the Ray that is there and leaves it alone."""
    before = signal.getsignal(signal.SIGTERM)
    with cluster.connected("local", workers=2, cpus=1, model_bytes=0):
        yield
    signal.signal(signal.SIGTERM, before)  # ray puts its own there


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("model") / "run").path


def rows_of(output: Path) -> list[dict[str, Any]]:
    """In the order of the partitions."""
    return [row for part in sorted(output.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]


def times(output: Path) -> dict[str, int]:
    return {part.name: part.stat().st_mtime_ns for part in output.glob("part-*.parquet")}


def test_rows_are_those_of_predict_and_both_workers_make_them(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = write_everything(tmp_path / "data")
    here = tmp_path / "here"
    here.mkdir()

    class Waits(Worker):
        """Begins when both are there; else the first might have done everything before the second is."""

        def compute(self, number: int, span: tuple[int, int]) -> Tally:
            (here / str(os.getpid())).touch()
            until(lambda: len(list(here.iterdir())) == 2)
            return super().compute(number, span)

    monkeypatch.setattr(cluster, "Worker", Waits)
    summary = job.batch_predict(run, tmp_path / "data", output=tmp_path / "out", part_size=4, batch_size=3, top=2, precision="fp32")
    found = {row["name"]: row for row in rows_of(tmp_path / "out")}
    assert sorted(found) == sorted(names) and summary.rows == len(names) == len(rows_of(tmp_path / "out"))

    photos = [name for name in names if "/photos/" in name]
    expected = [p.to_dict() for p in predict(run, photos, top=2, precision="fp32", optimize="never", workers=0)]
    assert [found[name] for name in photos] == [
        {**row, "probability": row["probability"] and pytest.approx(row["probability"], abs=1e-6)}
        | {"alternatives": [{**a, "probability": pytest.approx(a["probability"], abs=1e-6)} for a in row["alternatives"]]}
        for row in expected
    ]  # fmt: skip
    assert {name for name, row in found.items() if row["error"]} == {
        "row 3", str(tmp_path / "data/photos/ant/broken.png"), *(f"{tmp_path}/data/shards/{s}.tar/deep/005.PNG" for s in range(2)),
    }  # fmt: skip
    assert summary.bad == 4 and sum(summary.labels.values()) == len(names) - 4
    assert len(summary.workers) == 2 and all(w["rows"] > 0 for w in summary.workers.values())

    made = times(tmp_path / "out")
    assert job.batch_predict(run, tmp_path / "data", output=tmp_path / "out", part_size=4, top=2, precision="fp32") == summary
    assert times(tmp_path / "out") == made, "a job that is done computes nothing"


def test_a_dying_worker_costs_nothing_and_a_deadly_block_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "data", {"ant": 20})
    mark = tmp_path / "died"

    class Dies(Worker):
        """Killed once at block 1, and each time at block 3."""

        def compute(self, number: int, span: tuple[int, int]) -> Tally:
            if number == 3 or (number == 1 and not mark.exists()):
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().compute(number, span)

    monkeypatch.setattr(cluster, "Worker", Dies)
    with pytest.raises(job.UnfinishedError, match=r"1 of 5 partitions .* part-00003.parquet of .*: ended the worker 3 times") as problem:
        job.batch_predict(run, tmp_path / "data", output=tmp_path / "out", part_size=4)
    assert "tries these again" in str(problem.value) and mark.exists()
    made = times(tmp_path / "out")
    assert sorted(made) == [f"part-{n:05d}.parquet" for n in (0, 1, 2, 4)] and not (tmp_path / "out/_summary.json").exists()

    monkeypatch.undo()
    (tmp_path / "out/.part-00003.parquet.left").touch()  # as a killed process leaves it
    summary = job.batch_predict(run, tmp_path / "data", output=tmp_path / "out", part_size=4)
    assert summary.rows == 20 and summary.computed == 4
    assert {name: at for name, at in times(tmp_path / "out").items() if name in made} == made
    assert len({r["name"] for r in rows_of(tmp_path / "out")}) == len(rows_of(tmp_path / "out")) == 20
    assert not list((tmp_path / "out").glob(".*"))


def test_mistakes_are_named_before_anything_is_computed(run: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", {"ant": 2})
    (data / "ant/x.png").write_bytes(BROKEN)
    for wrong, message in (
        ({"output": data / "out"}, "lies in the input"),
        ({"output": tmp_path / "out", "top": 0}, "top: 0 is too small"),
        ({"output": tmp_path / "out", "precision": "int8"}, "precision: int8 is not one of auto, fp32, bf16, fp16"),
        ({"output": tmp_path / "out", "cpus_per_worker": 64}, "asks for 64 CPUs"),
    ):
        with pytest.raises(ConfigError, match=message):
            job.batch_predict(run, data, **wrong)  # type: ignore[arg-type]
    with pytest.raises(RunError):
        job.batch_predict(tmp_path, data, output=tmp_path / "out")
    assert not times(tmp_path / "out")
