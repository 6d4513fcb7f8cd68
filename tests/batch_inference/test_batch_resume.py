"""A job that is killed, with its whole cluster or by a signal, goes on where it was: no row twice, none lost, none computed again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from tiny_run import make_run, write_image

from tests.command_line import Command
from tests.patience import PATIENCE_S, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(1200),  # a cluster's workers start several times, beside whatever else the machine does
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),  # Ray's own
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
IMAGES, PART = 1200, 100
# A job whose workers begin nothing more when so many partitions are there, so that it is always stopped in its middle. Which ones these are
# does not matter: Ray Data lets a worker take what is waiting for it in any order. Each may have begun one beforehand.
START = """
import sys, time
from pathlib import Path
from convmix.commands.scaling import batch_predict
from convmix.batch_inference import cluster

output, end = Path(sys.argv[3]), int(sys.argv[5])

class Halting(cluster.Worker):
    def compute(self, number, span):
        while len(list(output.glob("part-*.parquet"))) >= end:
            time.sleep(0.05)
        return super().compute(number, span)

cluster.Worker = Halting
batch_predict(sys.argv[1], sys.argv[2], output=sys.argv[3], part_size=int(sys.argv[4]), workers=2)
"""


def begin(arguments: list[str], *, parts: int) -> "subprocess.Popen[str]":
    """A job that makes so many partitions, or one more."""
    command = [sys.executable, "-c", START, *arguments, str(parts)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def times(output: Path) -> dict[str, int]:
    return {part.name: part.stat().st_mtime_ns for part in output.glob("part-*.parquet")}


def kill_everything(process: "subprocess.Popen[str]") -> None:
    """The driver and all of its cluster, as a machine that loses power."""
    everybody = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
    for one in everybody:
        one.suspend()
    for one in everybody:
        one.kill()
    psutil.wait_procs(everybody, timeout=PATIENCE_S)
    process.communicate()


def test_every_row_is_there_once_after_a_kill_and_a_signal(command: Command, tmp_path: Path) -> None:
    run, data, output = make_run(tmp_path / "run").path, tmp_path / "data", tmp_path / "out"
    content = write_image(tmp_path / "a.png", 1).read_bytes()
    data.mkdir()
    for i in range(IMAGES):
        (data / f"{i:04d}.png").write_bytes(content)
    arguments = [str(run), str(data), str(output), str(PART)]

    killed = begin(arguments, parts=5)
    try:
        until(lambda: len(times(output)) >= 5, while_runs=killed)
    finally:
        kill_everything(killed)
    after_kill = times(output)
    assert 5 <= len(after_kill) <= 6

    stopped = begin(arguments, parts=8)
    try:
        until(lambda: len(times(output)) >= 8, while_runs=stopped)
        stopped.send_signal(signal.SIGTERM)
        _, said = stopped.communicate(timeout=PATIENCE_S)
    finally:
        kill_everything(stopped)
    assert stopped.returncode == 128 + signal.SIGTERM
    assert f"of {IMAGES // PART} partitions are in {output}" in said and "go on with: convmix" in said and str(data) in said
    after_signal = times(output)
    assert after_kill.items() <= after_signal.items() and 8 <= len(after_signal) <= 9

    last = command("batch-predict", run, data, "--output", output, "--part-size", PART, "--workers", 1)
    assert last.code == 0, last.err
    assert f"{IMAGES:,} rows in {IMAGES // PART} partitions" in last.out
    at_the_end = times(output)
    assert after_signal.items() <= at_the_end.items(), "a finished partition was written again"
    names = [name for part in sorted(at_the_end) for name in pq.read_table(output / part)["name"].to_pylist()]
    assert names == [f"{data}/{i:04d}.png" for i in range(IMAGES)]
    assert sorted(p.name for p in output.iterdir() if not p.name.startswith("part-")) == [
        "_blocks.jsonl",
        "_manifest.json",
        "_summary.json",
    ]
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(output) in " ".join(p.info["cmdline"] or []) and p.pid != os.getpid()]
