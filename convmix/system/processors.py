"""How many processors this process may use: those it may run on, and no more than its container is given time for.

A container with a quota of two processors on a machine of 64 sees all 64; what starts a thread for each then waits most of its time.
"""

import math
import os
from pathlib import Path


def processors(root: Path = Path("/")) -> int:
    """Processors that may be used, at least one; part of one counts as one. root: where /proc and /sys are."""
    allowed = len(allowed_processors())
    return min([allowed, *(max(1, math.ceil(quota)) for quota in _quotas(root))])


def allowed_processors() -> set[int]:
    """The numbers of the processors that this process may run on, whatever its container's quota."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def has_quota(root: Path = Path("/")) -> bool:
    """Whether a container's quota, and not the processors there are, limits this process."""
    allowed = len(allowed_processors())
    return processors(root) < allowed


def _quotas(root: Path) -> list[float]:
    """Processors' worth of time given to this process's control group and to those that it lies in, by either version of cgroups."""
    found = []
    for folder in _groups(root, "0::", root / "sys/fs/cgroup"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        found.append((quota, period))
    for folder in _groups(root, "cpu", root / "sys/fs/cgroup/cpu"):
        found.append((_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")))
    return [int(q) / int(p) for q, p in found if q.isdigit() and p.isdigit() and int(q) and int(p)]  # "max" and -1: no quota


def _groups(root: Path, kind: str, mount: Path) -> list[Path]:
    """The folders of this process's group and of its parents; a container sees its own as the root."""
    folders = [mount]
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if line.startswith(kind) or (number != "0" and kind in controllers.split(",")):
            parts = [part for part in path.split("/") if part not in ("", "..")]
            folders += [mount.joinpath(*parts[: i + 1]) for i in range(len(parts))]
    return folders


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
