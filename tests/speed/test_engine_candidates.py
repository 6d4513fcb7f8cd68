"""What takes part in the choice of an engine, and when enough rounds were run to choose."""

import pytest
import torch

from convmix.benchmarking.work import Work, contenders
from convmix.speed.backends import EnginePlan
from convmix.speed.select import candidates, is_settled

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["exact", "bf16", "int8"])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_every_peer_of_the_benchmark_is_a_candidate(precision: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    work = Work("convmixer_768_32", "inference", 8, 224, 224, 1000, "cpu", threads, precision, 60.0)
    peers = {c.plan for c in contenders(work) if c.plan is not None}
    some = candidates(precision, batch_size=8, device=CPU)  # type: ignore[arg-type]
    assert peers <= set(some)
    assert any(plan.streams == threads > 1 for plan in some) is (threads > 1)
    slow = EnginePlan("eager", "fp32", "nchw", folded=True)
    assert all(some.index(plan) < some.index(slow) for plan in peers if plan.backend in ("native", "openvino") and plan.dtype != "fp32")


@pytest.mark.parametrize(
    ("other", "settled"),
    [
        ([10.5] * 9, True),  # slower
        ([10.1, 10.0, 10.1, 10.2, 10.1, 10.0, 10.1, 10.2, 10.1], True),
        ([10.1, 8.0, 12.0, 10.1, 8.5, 12.0, 10.1, 9.0, 11.5], False),  # may well be the faster one
    ],
)
def test_a_choice_is_settled_when_no_other_is_likely_to_be_faster(other: list[float], settled: bool) -> None:
    assert is_settled([[10.0] * 9, other]) is settled


def test_ratios_are_taken_within_a_round() -> None:
    slow_minute = [10.0, 30.0, 10.0, 10.0, 30.0, 10.0, 10.0, 30.0, 10.0]
    assert is_settled([slow_minute, [1.05 * ms for ms in slow_minute]])
    assert not is_settled([slow_minute, [10.1, 10.2, 30.0, 10.1, 10.2, 30.0, 10.1, 10.2, 30.0]])
