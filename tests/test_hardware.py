"""Free memory is what the machine and the container leave."""

import sys
from pathlib import Path

import pytest

from convmix.hardware import free_memory

GIB = 2**30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MACHINE = {"proc/meminfo": f"MemTotal:       {16 * GIB // 1024} kB\nMemAvailable:   {8 * GIB // 1024} kB\nHugePages_Total:       0\n"}
V2, V1 = "sys/fs/cgroup/", "sys/fs/cgroup/memory/"


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({}, 8 * GIB),
        ({V2 + "memory.max": "max\n", V2 + "memory.current": "1000\n"}, 8 * GIB),
        ({V2 + "memory.max": f"{4 * GIB}\n", V2 + "memory.current": f"{3 * GIB}\n"}, GIB),
        (  # the container's file cache can be given up
            {V2 + "memory.max": f"{4 * GIB}", V2 + "memory.current": f"{3 * GIB}", V2 + "memory.stat": f"anon 5\ninactive_file {GIB}\n"},
            2 * GIB,
        ),
        ({V2 + "memory.max": f"{GIB}", V2 + "memory.current": f"{2 * GIB}"}, 0),
        ({V1 + "memory.limit_in_bytes": "9223372036854771712", V1 + "memory.usage_in_bytes": f"{GIB}"}, 8 * GIB),
        (
            {
                V1 + "memory.limit_in_bytes": f"{4 * GIB}",
                V1 + "memory.usage_in_bytes": f"{3 * GIB}",
                V1 + "memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}\n",
            },
            2 * GIB,
        ),
    ],
    ids=["machine", "v2-max", "v2", "v2-cache", "v2-over", "v1-none", "v1-cache"],
)
def test_free_memory(tmp_path: Path, container: dict[str, str], expected: int) -> None:
    assert free_memory(write(tmp_path, MACHINE | container)) == expected


def test_where_nothing_tells_nothing_counts_as_free(tmp_path: Path) -> None:
    assert free_memory(tmp_path) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")
def test_this_machine_has_memory_left() -> None:
    assert free_memory() > 2**20
