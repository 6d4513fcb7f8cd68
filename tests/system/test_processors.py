"""A container's quota counts, wherever the kernel writes it."""

import os
from pathlib import Path

import pytest

from convmix import hardware
from convmix.system.processors import has_quota, processors

V2, V1 = "0::/pod/box\n", "4:cpu,cpuacct:/pod/box\n3:memory:/pod/box\n"
CASES = {
    "no quota": ({"proc/self/cgroup": V2, "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n"}, 8),
    "no /sys": ({}, 8),
    "two processors": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
    "a part counts as one": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
    "less than one": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "5000 100000\n"}, 1),
    "of the group above": ({"proc/self/cgroup": V2, "sys/fs/cgroup/pod/cpu.max": "300000 100000\n"}, 3),
    "more than there are": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 8),
    "version 1": (
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/cpu/pod/box/cpu.cfs_quota_us": "400000",
            "sys/fs/cgroup/cpu/pod/box/cpu.cfs_period_us": "100000",
        },
        4,
    ),
    "version 1 without quota": (
        {"proc/self/cgroup": V1, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
        8,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_quota_counts(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    files, wanted = CASES[case]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert processors(tmp_path) == wanted and has_quota(tmp_path) == (wanted < 8)


def test_nobody_else_counts_processors() -> None:
    source = Path(__file__).resolve().parents[2] / "convmix"
    asking = [
        str(f.relative_to(source)) for f in source.rglob("*.py") if "sched_getaffinity" in (text := f.read_text()) or "cpu_count" in text
    ]
    assert asking == ["system/processors.py"]


def test_torch_gets_no_more_threads_than_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(hardware.torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(hardware.torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(hardware, "processors", lambda: 3)
    for quota, told, wanted in ((False, None, []), (True, "8", []), (True, None, [3])):
        monkeypatch.setattr(hardware, "has_quota", lambda quota=quota: quota)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if told:
            monkeypatch.setenv("OMP_NUM_THREADS", told)
        hardware.keep_to_quota()
        assert set_to == wanted
