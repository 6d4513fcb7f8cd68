"""What a card says about the kernels, as one file that its owner can send: `convmix benchmark --device cuda --share`.

    {"kind": "card", "format": 1, "date", "card": {name, driver, torch, triton, kernels}, "capability", "memory_gib", "processor",
     "system", "versions", "checks": [{"key", "kernel", "trusted", "reason", "error", "bound", "ours_ms", "pytorch_ms"}, ...]}

Nothing in it names a user, a machine or a place: every value is listed here, none is copied from the environment.
"""

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from convmix.atomic import write_json
from convmix.benchmarking.record import PACKAGES, version_of
from convmix.errors import ConfigError
from convmix.hardware import describe_machine
from convmix.ops.gpu import routes
from convmix.ops.gpu.cases import Case, published
from convmix.ops.gpu.trial import Trials, trials

FORMAT = 1


def share(output: Path | None, *, device: str | None, console: Console) -> Path:
    """Checks and times every kernel on the shapes of the published models on this machine's card, and writes the record.

    output: the folder; the current one where it is None. Raises ConfigError where there is no card for the kernels.
    """
    if device not in (None, "cuda"):
        raise ConfigError(f"device: {device} has no GPU kernels; --share measures those of a CUDA card, with --device cuda")
    if not torch.cuda.is_available():
        raise ConfigError("--share measures the GPU kernels on a CUDA card, and PyTorch sees none on this machine")
    if not routes.can_run("cuda"):
        raise ConfigError(
            f"--share: the kernels need Triton and compute capability 8.0, {torch.cuda.get_device_name()} here has "
            f"{'.'.join(map(str, torch.cuda.get_device_capability()))}"
        )
    with _kernels_on():
        made = card_record(trials("cuda", torch.cuda.current_device()), published(), console=console)
    path = (output or Path()) / f"{made['card']['name'].lower().replace(' ', '-')}-{made['card']['kernels']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, made)
    good = sum(check["trusted"] for check in made["checks"])
    console.print(
        f"{path}: card, driver and versions, processor model, and {len(made['checks'])} checks ({good} equal to PyTorch and not slower); "
        "no names of users or machines, no paths. To send it back, attach it to an issue of the project",
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip
    return path


def card_record(on: Trials, cases: Iterable[Case], *, console: Console) -> dict[str, Any]:
    """The record of these checks, each made anew whatever is kept."""
    checks = []
    for case in cases:
        verdict = on.examine(case)
        times = "" if verdict.ours_ms is None else f", {verdict.ours_ms:.3g} ms; PyTorch {verdict.pytorch_ms:.3g} ms"
        console.print(f"{case.key}: {verdict.reason or 'equal and not slower'}{times}", highlight=False, markup=False, soft_wrap=True)
        checks.append({"key": case.key, "kernel": case.kernel, **asdict(verdict)})
    on_card = on.device.type == "cuda"
    return {
        "kind": "card",
        "format": FORMAT,
        "date": date.today().isoformat(),
        "card": asdict(on.card),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(on.device))) if on_card else None,
        "memory_gib": round(torch.cuda.get_device_properties(on.device).total_memory / 2**30) if on_card else None,
        "processor": describe_machine(torch.device("cpu"))["name"],
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **{name: found for name in PACKAGES if (found := version_of(name))}},
        "checks": checks,
    }


@contextmanager
def _kernels_on() -> Iterator[None]:
    """Whatever CONVMIX_KERNELS says: these are what is measured."""
    before = os.environ.get("CONVMIX_KERNELS")
    os.environ["CONVMIX_KERNELS"] = "triton"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CONVMIX_KERNELS"]
        else:
            os.environ["CONVMIX_KERNELS"] = before
