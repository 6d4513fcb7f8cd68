"""Measures convmix on a GPU beside timm's models (ConvMLP: the authors' code), in one command that ends within its budget.

    python benchmarks/gpu.py                                            all works, as far as nine minutes last
    python benchmarks/gpu.py --models convmixer_1536_20 --kinds training
    python benchmarks/gpu.py --check                                    the tests of the kernels alone, and compute-sanitizer's where it is
    python benchmarks/gpu.py --device cpu --rehearse                    tiny works, two rounds: whether it runs at all

First the kernels' own tests run on the card (tests/ops/gpu); a failed one stops everything and stands in the record. Then for
each work all lanes are built, checked against float32 and warmed up, and take turns: eager and torch.compile, contiguous and
channels_last, bf16 autocast, and convmix. One JSON file, written anew after every lane and every round, into $OUT or
benchmarks/results/gpu. What did not fit into the budget is named in the file. RESULTS.md shows it (gpu_tables.py).
The ConvMLP of the authors is convmix's own in PyTorch's layers: the golden tensors of tests/models/test_golden.py, made with the
authors' code, say that the two are equal.

The kernels are measured as they are (CONVMIX_KERNELS=triton), whether or not a training would trust them.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # lanes of very different sizes share the card

import torch
from gpu_lanes import KINDS, WORKS, CheckFailedError, Course, GpuWork, Lane, Running, lanes, turn
from tables import ROOT

from convmix.hardware import describe_machine

RESULTS = ROOT / "benchmarks/results/gpu"
ROUNDS = 7
PYTEST = ("-o", "addopts=", "-q", "-x", "-p", "no:cacheprovider")  # one -q alone, which leaves the last line
SANITIZED = "gpu/test_gpu_norm.py"  # every load and store checked is a hundred times slower
SIDE_BY_SIDE = 12  # processes of the kernels' tests
LANE_S = 90.0  # for building, checking and warming up one lane
RESERVE_S = 25.0  # of the budget, for the rounds of a work that has started
REHEARSED = {"convmixer_16_2_k5_p4": (32, 10, {"inference": 4, "training": 4}), "convmlp_t": (64, 10, {"inference": 2, "training": 4})}
SMI = ("name", "driver_version", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "clocks_event_reasons.active")


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    report = Report(asked)
    _prepare(asked.device)
    if not report.checked():
        print(f"failed before anything was measured: {report.content['checks']}", file=sys.stderr)
        return 1
    if asked.check:
        report.content["sanitizer"] = sanitized(asked.device, timeout_s=report.left_s())
        report.wrong |= report.content["sanitizer"].startswith("FAILED")
        report.finish()
        print(f"compute-sanitizer: {report.content['sanitizer']}", flush=True)
        return 1 if report.wrong else 0
    report.content["rates"] = ceilings(asked.device, small=asked.rehearse)
    report.write()
    for work in works(asked):
        if report.left_s() < RESERVE_S:
            report.content["left_out"].append(f"{work.model} {work.kind}")
            continue
        measure(work, report)
    report.finish()
    return 1 if report.wrong else 0


def works(asked: argparse.Namespace) -> list[GpuWork]:
    known = REHEARSED if asked.rehearse else WORKS
    models = asked.models or list(known)
    if unknown := [model for model in models if model not in known]:
        raise SystemExit(f"no work for {', '.join(unknown)}; there are {', '.join(known)}")
    return [
        GpuWork(model, kind, asked.batch_size or known[model][2][kind], known[model][0], known[model][1], asked.device)
        for model in models
        for kind in asked.kinds
    ]


class Report:
    """The file, complete at any moment."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked, self.began = asked, time.monotonic()
        folder = asked.output or Path(os.environ.get("OUT") or RESULTS)
        self.path = Path(folder) / f"{asked.name}.json"
        self.wrong = False
        device = torch.device(asked.device)
        self.content: dict[str, Any] = {
            "kind": "gpu",
            "command": "python benchmarks/gpu.py " + " ".join(asked.words),
            "date": date.today().isoformat(),
            "rehearsal": asked.rehearse,
            "machine": describe_machine(device),
            "card_before": smi(asked.device),
            "rounds": asked.rounds,
            "checks": None,
            "rates": None,
            "works": [],
            "left_out": [],
            "finished": False,
        }
        self.write()

    def left_s(self) -> float:
        return self.asked.budget - (time.monotonic() - self.began)

    def checked(self) -> bool:
        """Runs the kernels' tests; true where all pass, or where none were asked for."""
        found = (ROOT / "tests/ops/gpu").glob("test_*.py") if self.asked.device == "cuda" else (ROOT / "tests/ops").glob("test_gpu_*.py")
        tests = [] if self.asked.no_tests else sorted(str(path.relative_to(ROOT)) for path in found)
        if not tests:
            self.content["checks"] = "tests not run"
            return True
        # -W: a warning of that machine's packages is no reason to measure nothing. Compiling kernels is what takes the time.
        command = [sys.executable, "-m", "pytest", *PYTEST, "-W", "default", "-m", "not slow", *tests]
        command += ["-n", str(SIDE_BY_SIDE)] if self.asked.device == "cuda" and importlib.util.find_spec("xdist") else []
        everything = self.asked.check and self.asked.device == "cuda"
        environment = os.environ | {"CONVMIX_TEST_KERNELS": "all" if everything else "few"}
        try:
            left_s = self.left_s() if self.asked.check else self.left_s() / 2
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=left_s)
            said, passed = (done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]])[-1], done.returncode == 0
            if not passed:
                print(done.stdout[-6000:], done.stderr[-2000:], sep="\n", file=sys.stderr)
        except subprocess.TimeoutExpired:
            said, passed = "the kernels' tests took longer than the budget allows", False
        self.content["checks"] = said
        print(f"tests: {said}", flush=True)
        self.wrong |= not passed
        self.write()
        return passed

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(json.dumps(self.content, indent=1) + "\n")
        unfinished.replace(self.path)

    def finish(self) -> None:
        self.content |= {"card_after": smi(self.asked.device), "finished": True, "elapsed_s": time.monotonic() - self.began}
        self.write()
        for work in self.content["works"]:
            print(summary(work), flush=True)


def measure(work: GpuWork, report: Report) -> None:
    """All lanes of one work, then the rounds."""
    made: dict[str, Any] = {"work": asdict(work), "smi_before": smi(work.device), "lanes": []}
    report.content["works"].append(made)
    failed: list[dict[str, Any]] = []
    try:
        course = Course(work)
    except (RuntimeError, CheckFailedError) as error:  # no memory for the reference, say
        made["failed"] = _first_line(error)
        report.write()
        return
    for lane in lanes(work.kind, work.device):
        if report.asked.lanes and lane.name not in report.asked.lanes:
            continue
        failed += _start(course, lane, report)
        made["lanes"] = [*(_lane(r, work) for r in course.running), *failed]
        report.write()
    for _ in range(report.asked.rounds):
        if report.left_s() < 0:
            break
        for running in course.running:
            course.turn(running)
        made["lanes"] = [*(_lane(r, work) for r in course.running), *failed]
        report.write()
    made["smi_after"] = smi(work.device)
    del course
    _empty(work.device)


def _start(course: Course, lane: Lane, report: Report) -> list[dict[str, Any]]:
    """Nothing, or why the lane does not run."""
    row = {"name": lane.name, "role": lane.role, "plan": str(lane.plan)}
    seconds = min(report.asked.lane_seconds, report.left_s() - RESERVE_S)
    if seconds <= 1:
        return [row | {"failed": "not started: no time was left"}]
    try:
        running = course.start(lane, seconds=seconds)
    except CheckFailedError as error:
        report.wrong = True
        reason = f"WRONG: {error}"
    except Exception as error:  # an engine, a compiler or a lack of memory may raise anything; the others go on
        reason = f"{type(error).__name__}: {_first_line(error)}"
    else:
        print(
            f"{course.work.model} {course.work.kind}: {lane.name} started in {running.start_s:.1f} s, error {running.error:.1e}", flush=True
        )
        return []
    print(f"{course.work.model} {course.work.kind}: {lane.name}: {reason}", flush=True)
    _empty(course.work.device)
    return [row | {"failed": reason}]


def _lane(running: Running, work: GpuWork) -> dict[str, Any]:
    row = {
        "name": running.lane.name, "role": running.lane.role, "plan": str(running.lane.plan), "failed": None, "error": running.error,
        "start_s": running.start_s, "memory_mib": running.memory_mib, "ms": running.ms,
    }  # fmt: skip
    if not running.ms:
        return row
    median = statistics.median(running.ms)
    low, _, high = statistics.quantiles(running.ms, n=4, method="inclusive") if len(running.ms) > 1 else [median] * 3
    return row | {
        "median_ms": median,
        "quartiles_ms": [low, high],
        "images_per_s": 1000 * work.batch_size / median,
    }


def sanitized(device: str, *, timeout_s: float) -> str:
    """What compute-sanitizer says of the quickest of the kernels' tests; that there is none where it is not installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return "not installed"
    tests = ROOT / "tests/ops" / (SANITIZED if device == "cuda" else "test_gpu_interpreted.py")
    command = [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-m", "pytest", *PYTEST]
    try:
        done = subprocess.run(
            [*command, "-W", "default", "-m", "not slow", str(tests)], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {timeout_s:.0f} s without an answer"
    said = (done.stdout.strip().splitlines() or ["it says nothing"])[-1]
    return said if done.returncode == 0 else f"FAILED with status {done.returncode}: {said}"


def ceilings(device: str, *, small: bool) -> dict[str, float]:
    """This card's own rates, of random data: bf16 products of square matrices, and a copy (bytes read plus written)."""
    side, copied = (256, 2**20) if small else (8192, 2**32)
    a, b = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    source = torch.randint(0, 256, (copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product_ms = statistics.median(_turns(lambda _: a @ b, device))
    copy_ms = statistics.median(_turns(lambda _: target.copy_(source), device))
    _empty(device)
    return {"matrix": 2 * side**3 / (product_ms / 1000), "memory": 2 * copied / (copy_ms / 1000)}


def _turns(step: Any, device: str) -> list[float]:
    return [turn(step, 5, device) for _ in range(6)][1:]


def smi(device: str) -> dict[str, str]:
    """Clocks, temperature and power as nvidia-smi reads them; nothing is ever set."""
    if device != "cuda":
        return {}
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(zip(SMI, (cell.strip() for cell in done.stdout.strip().split(",")), strict=False))


def summary(made: Mapping[str, Any]) -> str:
    """The short table that ends the output."""
    work = made["work"]
    lines = [f"\n{work['model']} {work['kind']}, {work['batch_size']} x {work['side']} px"]
    for lane in sorted(made["lanes"], key=lambda lane: lane.get("median_ms", float("inf"))):
        if "median_ms" not in lane:
            lines.append(f"  {lane['name']:30} {lane['failed'] or 'not timed'}")
            continue
        memory = f"{lane['memory_mib']:8.0f} MiB" if lane["memory_mib"] is not None else ""
        lines.append(f"  {lane['name']:30} {lane['median_ms']:9.3f} ms {lane['images_per_s']:10.0f} images/s {memory}")
    return "\n".join(lines)


def _prepare(device: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # the reference is float32
    torch.backends.cudnn.benchmark = device == "cuda"  # for all alike
    torch._dynamo.config.recompile_limit = 256  # lanes of one class are many


def _empty(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _parser() -> argparse.ArgumentParser:
    parser = _Keeping(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[], help="of " + ", ".join(WORKS))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--lanes", nargs="*", default=[], help="only the lanes of these names")
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--budget", type=float, default=540.0, help="seconds; what has not started by then is left out")
    parser.add_argument("--lane-seconds", type=float, default=LANE_S, help="for building one lane, compiling included")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--name", default="gpu", help="of the file")
    parser.add_argument("--output", type=Path, default=None, help="folder of the file (default: $OUT, else benchmarks/results/gpu)")
    parser.add_argument("--check", action="store_true", help="run the kernels' tests and stop")
    parser.add_argument("--no-tests", action="store_true", help="do not run the kernels' tests first")
    parser.add_argument("--rehearse", action="store_true", help="tiny models")
    return parser


class _Keeping(argparse.ArgumentParser):
    """Keeps the words of the command line for the record."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        asked = super().parse_args(args, namespace)
        asked.words = list(sys.argv[1:] if args is None else args)
        return asked


if __name__ == "__main__":
    os.environ["CONVMIX_KERNELS"] = "triton"
    sys.exit(main())
