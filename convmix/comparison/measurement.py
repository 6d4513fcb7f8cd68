"""Throughput and memory of trained contenders: each in a process of its own, all taking turns, so that they share the machine's moods."""

import statistics
from collections.abc import Mapping
from pathlib import Path

import torch

from convmix.artifacts.artifact import load_artifact
from convmix.benchmarking.rounds import Lane, race_models
from convmix.benchmarking.work import Work, default_precision
from convmix.comparison.pareto import Speed
from convmix.comparison.study import Study
from convmix.speed.backends import EnginePlan

BATCH = 32
ROUNDS = 7


def measure(study: Study, runs: Mapping[str, Path]) -> dict[str, Speed]:
    """Name -> speed, for the model in each of these model directories; one that cannot be run has the reason.

    Everyone runs eagerly in PyTorch, channels last, in bf16 where the machine computes in it: what `predict` does before `convmix optimize`
    has looked for something faster.
    """
    precision = default_precision(study.device)
    plan = EnginePlan(dtype="autocast" if precision == "bf16" else "fp32", layout="nhwc")
    works = [_work(run, study, precision) for run in runs.values()]
    lanes = race_models(works, plan, rounds=ROUNDS, say=lambda text: None)
    return {name: _speed(lane) for name, lane in zip(runs, lanes, strict=True)}


def _work(run: Path, study: Study, precision: str) -> Work:
    """The network as it was trained, from its directory."""
    artifact = load_artifact(run)
    height, width = artifact.preprocess.size
    return Work(
        model=str(artifact.info.get("model", run.name)), kind="inference", batch_size=BATCH, height=height, width=width,
        num_classes=len(artifact.labels), device=study.device.type, threads=torch.get_num_threads(), precision=precision, budget_s=0.0,
        in_chans=artifact.preprocess.in_chans, run=str(run),
    )  # fmt: skip


def _speed(lane: Lane) -> Speed:
    if not lane.ms:
        return Speed(failed=lane.failed or "it was not measured")
    rates = [1000 * BATCH / ms for ms in lane.ms]
    low, _, high = statistics.quantiles(rates, n=4, method="inclusive")
    return Speed(statistics.median(rates), low, high, lane.memory_mib)
