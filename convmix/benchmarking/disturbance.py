"""Whether other programs took part in a race, so that its ratios say nothing about the contenders.

counters before and after the rounds -> Load -> `complaints`;  quartiles of a ratio over the rounds -> `is_steady`

The rule: no ratio of a race is given where other programs took more than `MAX_OTHERS` of the processor time that the race was to have, or
the hypervisor gave more than `MAX_STOLEN` of it to other machines. A ratio whose quartiles are further apart than `MAX_SPREAD` is not given
either, whatever the counters say. Of the 40 ratios in benchmarks/results/speed 36 lie at 1.16 or less, the other four at 1.29 to 1.50.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from convmix.system.processors import allowed_processors

MAX_OTHERS = 0.10  # of the processor time of the race's threads
MAX_STOLEN = 0.02  # of the time of all processors that the race may use
MAX_SPREAD = 1.25  # third quartile / first quartile of a ratio over the rounds
MIN_S = 1.0  # the system counts in ticks of 10 ms: over a shorter time the shares say nothing


@dataclass(frozen=True)
class Counters:
    """What the system has counted so far, in seconds."""

    at_s: float
    processors: int  # that this process may run on
    busy_s: float  # of those processors, whoever used them
    stolen_s: float  # by the hypervisor, for other machines
    own_s: Mapping[int, float]  # of the race's processes, by their id


@dataclass(frozen=True)
class Load:
    """How busy the machine was with something else while the rounds ran."""

    elapsed_s: float
    others: float  # share of the race's processor time, beyond what its threads leave idle
    stolen: float  # share of the time of all processors


def read_counters(processes: Iterable[int]) -> Counters:
    """The counters now; a process that has ended is left out."""
    per_processor = psutil.cpu_times(percpu=True)
    times = [per_processor[n] for n in sorted(allowed_processors()) if n < len(per_processor)] or per_processor
    own: dict[int, float] = {}
    for pid in processes:
        try:
            used = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        own[pid] = used.user + used.system
    busy = sum(sum(getattr(one, part, 0.0) for part in ("user", "nice", "system", "irq", "softirq")) for one in times)
    return Counters(time.monotonic(), len(times), busy, sum(getattr(one, "steal", 0.0) for one in times), own)


def load_between(before: Counters, after: Counters, *, threads: int) -> Load | None:
    """The load of the time between; `threads` is what one contender computes with.

    None where it cannot be known: too short a time, a process of the race that ended, or a system that does not count.
    """
    elapsed_s = after.at_s - before.at_s
    if elapsed_s < MIN_S or before.own_s.keys() != after.own_s.keys():
        return None
    own_s = sum(after.own_s.values()) - sum(before.own_s.values())
    busy_s = after.busy_s - before.busy_s
    if busy_s < own_s / 2:  # some sandboxes show a /proc/stat of zeros
        return None
    used = min(threads, after.processors)
    idle_s = (after.processors - used) * elapsed_s  # what others may use without taking it from the race
    others = max(0.0, busy_s - own_s - idle_s) / (used * elapsed_s)
    return Load(elapsed_s, others, max(0.0, after.stolen_s - before.stolen_s) / (after.processors * elapsed_s))


def complaints(load: Load | None) -> list[str]:
    """Why no ratio of a race under this load is given, in words; empty where nothing is known against it."""
    if load is None:
        return []
    found = []
    if load.others > MAX_OTHERS:
        found.append(f"other programs took {load.others:.0%} of its processor time (more than {MAX_OTHERS:.0%})")
    if load.stolen > MAX_STOLEN:
        found.append(f"the hypervisor gave {load.stolen:.0%} of the processor time to other machines (more than {MAX_STOLEN:.0%})")
    return found


def is_steady(ratio: Mapping[str, Any]) -> bool:
    """Whether a ratio {"median", "low", "high"} is the same in most rounds."""
    return bool(ratio["high"] <= MAX_SPREAD * ratio["low"])
