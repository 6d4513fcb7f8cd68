"""Which device computes, in which precision, with how much free memory, on what machine."""

import contextlib
import ctypes
import os
import platform
from pathlib import Path
from typing import Any

import torch

from convmix.system.instructions import processor_model
from convmix.system.processors import has_quota, processors


def default_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 arithmetic is done in hardware: Ampere and later, or a CPU with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in checks)
    return False


def resolve_precision(precision: str, device: torch.device) -> str:
    """'auto' becomes 'bf16' or 'fp32'; anything else stays as it is."""
    if precision != "auto":
        return precision
    return "bf16" if fast_bf16(device) else "fp32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision for a forward pass; nothing for fp32."""
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in dtypes:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtypes[precision])


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that may still be taken: of the machine, and of the container where that has a limit; 0 where no /proc tells (Linux has it).

    root: where /proc and /sys are.
    """
    amounts = _numbers(root / "proc/meminfo")
    free = amounts.get("MemAvailable", 0) * 1024
    for folder, limit, used, reclaimable in (
        ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            of_container = int((root / folder / limit).read_text()) - int((root / folder / used).read_text())
        except (OSError, ValueError):  # not this version of cgroups, or "max": no limit
            continue
        free = min(free, max(0, of_container + _numbers(root / folder / "memory.stat").get(reclaimable, 0)))
    return free


def _numbers(table: Path) -> dict[str, int]:
    """The first number on each line of a table of the kernel, by the line's name; empty where there is no such table."""
    try:
        lines = [line.replace(":", " ").split() for line in table.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def keep_to_quota() -> None:
    """As many threads for PyTorch as a container's quota has processors, unless OMP_NUM_THREADS says how many."""
    if "OMP_NUM_THREADS" not in os.environ and has_quota():
        torch.set_num_threads(min(torch.get_num_threads(), processors()))


def keep_freed_memory() -> None:
    """Lets the process keep the memory of freed tensors for the next ones, where the C library is glibc.

    A training step frees and takes the same hundreds of MiB again. glibc gives large blocks back to the system each time, and the system
    clears every page anew: 15 to 20 % of a training step on the CPU where this was measured (LOG.md).
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_max = -1, -4  # of malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Gives freed memory back, before a process is forked; where the C library is glibc.

    After a fork every page is shared until one of the two writes to it, and is then copied; a training step writes to all that it takes.
    New pages cost half as much (LOG.md).
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What a run record says about where it was measured."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_model()
    return {
        "device": device.type,
        "name": name,
        "cores": processors(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
