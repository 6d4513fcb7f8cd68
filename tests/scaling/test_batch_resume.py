"""A job that is killed, with its whole cluster or by a signal, goes on where it was: no row twice, none lost, none computed again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from tiny_run import make_run, write_image

pytestmark = pytest.mark.slow
IMAGES, PART = 1500, 20
START = """
import sys
from convmix.commands.scaling import batch_predict
batch_predict(sys.argv[1], sys.argv[2], output=sys.argv[3], part_size=int(sys.argv[4]), workers=2)
"""


def begin(arguments: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", START, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def times(output: Path) -> dict[str, int]:
    return {part.name: part.stat().st_mtime_ns for part in output.glob("part-*.parquet")}


def wait_for_more(output: Path, process: "subprocess.Popen[str]", parts: int) -> None:
    deadline = time.monotonic() + 240
    while len(times(output)) < parts:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no partitions appear"
        time.sleep(0.02)


def kill_everything(process: "subprocess.Popen[str]") -> None:
    """The driver and all of its cluster, as a machine that loses power."""
    everybody = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in everybody:
        one.suspend()
    for one in everybody:
        one.kill()
    psutil.wait_procs(everybody, timeout=30)
    process.communicate()


def test_every_row_is_there_once_after_a_kill_and_a_signal(tmp_path: Path) -> None:
    run, data, output = make_run(tmp_path / "run").path, tmp_path / "data", tmp_path / "out"
    content = write_image(tmp_path / "a.png", 1).read_bytes()
    data.mkdir()
    for i in range(IMAGES):
        (data / f"{i:04d}.png").write_bytes(content)
    arguments = [str(run), str(data), str(output), str(PART)]

    killed = begin(arguments)
    wait_for_more(output, killed, 5)
    kill_everything(killed)
    after_kill = times(output)
    assert 5 <= len(after_kill) < IMAGES // PART, "the job must be killed in its middle for this test to say anything"

    stopped = begin(arguments)
    wait_for_more(output, stopped, len(after_kill) + 3)
    stopped.send_signal(signal.SIGTERM)
    _, said = stopped.communicate(timeout=120)
    assert stopped.returncode == 128 + signal.SIGTERM
    assert f"of {IMAGES // PART} partitions are in {output}" in said and "go on with: convmix" in said and str(data) in said
    after_signal = times(output)
    assert after_kill.items() <= after_signal.items() and len(after_signal) < IMAGES // PART

    last = begin(arguments)
    out, said = last.communicate(timeout=300)
    assert last.returncode == 0, said
    assert f"{IMAGES:,} rows in {IMAGES // PART} partitions" in out
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
