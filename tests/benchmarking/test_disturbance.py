"""The rule that says when another program disturbed a race, on counters as systems report them."""

import os
from types import SimpleNamespace

import psutil
import pytest

from convmix.benchmarking import disturbance
from convmix.benchmarking.disturbance import Counters, Load, complaints, is_steady, load_between, read_counters

START = Counters(100.0, 2, 50.0, 1.0, {7: 3.0, 8: 4.0})


def after(*, busy_s, own_s, stolen_s=0.0, elapsed_s=10.0, pids=(7, 8)):
    """`START`, and so much later; the race's own time is process 7's."""
    own = {pid: START.own_s[pid] + (own_s if pid == 7 else 0.0) for pid in pids}
    return Counters(START.at_s + elapsed_s, START.processors, START.busy_s + busy_s, START.stolen_s + stolen_s, own)


@pytest.mark.parametrize(
    ("busy_s", "own_s", "threads", "others"),
    [
        (20.0, 20.0, 2, 0.0),  # alone
        (20.0, 15.0, 2, 0.25),  # a neighbour has a quarter
        (20.0, 10.0, 1, 0.0),  # the neighbour has the processor that one thread leaves idle
        (20.0, 7.0, 1, 0.3),  # and takes some of the other
        (20.0, 10.0, 16, 0.5),  # more threads than processors
        (18.0, 18.2, 2, 0.0),  # ticks do not add up exactly
    ],
)
def test_others_are_what_is_taken_from_the_race(busy_s, own_s, threads, others):
    load = load_between(START, after(busy_s=busy_s, own_s=own_s), threads=threads)
    assert load is not None and load.others == pytest.approx(others)


def test_stolen_time_is_a_share_of_all_processors():
    load = load_between(START, after(busy_s=19.0, own_s=19.0, stolen_s=1.0), threads=2)
    assert load is not None and load.stolen == pytest.approx(0.05)


@pytest.mark.parametrize(
    "later",
    [
        after(busy_s=1.0, own_s=0.5, elapsed_s=0.9),  # too short for the system's ticks
        after(busy_s=20.0, own_s=15.0, pids=(7,)),  # a contender died, and its time with it
        after(busy_s=0.0, own_s=15.0),  # a sandbox that counts nothing
    ],
)
def test_what_cannot_be_known_is_not_held_against_the_race(later):
    assert load_between(START, later, threads=2) is None
    assert complaints(None) == []


@pytest.mark.parametrize(
    ("others", "stolen", "words"),
    [
        (0.10, 0.02, []),  # the bounds themselves
        (0.11, 0.0, ["other programs took 11% of its processor time (more than 10%)"]),
        (0.0, 0.03, ["the hypervisor gave 3% of the processor time to other machines (more than 2%)"]),
    ],
)
def test_complaints_name_the_share_and_the_bound(others, stolen, words):
    assert complaints(Load(10.0, others, stolen)) == words


def test_both_are_said():
    assert len(complaints(Load(10.0, 0.5, 0.5))) == 2


@pytest.mark.parametrize(("low", "high", "steady"), [(2.0, 2.5, True), (2.0, 2.51, False), (3.0, 10.0, False), (1.05, 1.11, True)])
def test_a_ratio_is_steady_where_its_quartiles_are_near(low, high, steady):
    assert is_steady({"median": low, "low": low, "high": high}) is steady


def test_counters_are_those_of_the_processors_that_may_be_used(monkeypatch):
    def times(busy, steal):
        return SimpleNamespace(user=busy, nice=0.5, system=1.0, irq=0.25, softirq=0.25, steal=steal, idle=99.0, iowait=9.0)

    monkeypatch.setattr(disturbance.psutil, "cpu_times", lambda *, percpu: [times(10.0, 1.0), times(20.0, 2.0), times(40.0, 4.0)])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    counters = read_counters([os.getpid(), 2**22 + 1])  # the second is nobody's
    assert (counters.processors, counters.busy_s, counters.stolen_s) == (2, 54.0, 5.0)
    assert list(counters.own_s) == [os.getpid()] and counters.own_s[os.getpid()] > 0


def test_a_process_that_ended_is_left_out(monkeypatch):
    def gone(pid):
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr(disturbance.psutil, "Process", gone)
    assert read_counters([1, 2]).own_s == {}
