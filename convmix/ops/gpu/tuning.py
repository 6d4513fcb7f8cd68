"""Which launch of a kernel is the fastest for a shape: measured on the card once, kept in memory and on disk.

    choose("convolve", shape, candidates, run, on=x) -> one of the candidates

One JSON file in the cache folder per card, Triton version and text of the kernels: {"convolve 9 1536 32 32 bfloat16 64": {"rows": 8, ...}}.
Through the interpreter, with CONVMIX_TUNING=off, and while a CUDA graph is captured, nothing is measured and the first candidate is taken.
Every candidate computes the same; a launch alone never changes between two calls, so a tuned shape gives the same bits on every call.
"""

import functools
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convmix.cache import cache_dir

MEASURE_MS, WARM_UP_MS = 30, 10
log = logging.getLogger("convmix")


class Launch(NamedTuple):
    """How one program of a kernel is cut: a tile of rows x columns x channels; what the axes are is the kernel's own."""

    rows: int
    columns: int
    channels: int
    warps: int = 4
    steps: int = 1  # tiles that one program goes through
    taps: int = 1  # rows of a convolution's kernel for which it does so at once
    way: str = "direct"  # a kernel that computes the same in another manner: "direct", or "cublas" for a product

    def options(self) -> dict[str, int]:
        """What Triton's compiler is told. Products and sums are fused, which Triton 3.10 does on request only: half the instructions."""
        return {"num_warps": self.warps, "enable_fp_fusion": True}


def choose(kernel: str, shape: Sequence[object], candidates: Sequence[Launch], run: Callable[[Launch], object], *, on: Tensor) -> Launch:
    """The fastest of `candidates` for `run`, which may be called many times and must write its results anew each time.

    shape: what the choice depends on, the batch as `bucket(batch)`. Candidates that the card cannot launch are passed over.
    """
    if not on.is_cuda or len(candidates) == 1 or os.environ.get("CONVMIX_TUNING", "on") == "off":
        return candidates[0]
    key = " ".join(str(part).removeprefix("torch.") for part in (kernel, *shape))
    known = _known(on.device.index)
    if known.get(key) not in candidates:
        if torch.cuda.is_current_stream_capturing():
            return candidates[0]
        known[key] = _fastest(key, candidates, run)
        _keep(on.device.index, key, known[key])
    return known[key]


def bucket(count: int) -> int:
    """The power of two at or above a batch size: batches of one bucket share a choice."""
    return 1 << (count - 1).bit_length()


def _fastest(key: str, candidates: Sequence[Launch], run: Callable[[Launch], object]) -> Launch:
    from triton.testing import do_bench

    times_ms: dict[Launch, float] = {}
    for launch in candidates:
        try:
            times_ms[launch] = do_bench(functools.partial(run, launch), warmup=WARM_UP_MS, rep=MEASURE_MS, return_mode="median")
        except Exception as error:  # too many registers, too much shared memory, a compiler's own failure: others are left
            log.debug("%s: %s cannot be launched: %s", key, launch, error)
    if not times_ms:
        raise RuntimeError(f"no launch of {key} runs on this card")
    best = min(times_ms, key=times_ms.__getitem__)
    log.debug("%s: %s of %s ms", key, best, {tuple(launch): round(t, 4) for launch, t in times_ms.items()})
    return best


@functools.cache
def _known(device: int | None) -> dict[str, Launch]:
    """The choices of this process for one card, those on disk first."""
    try:
        return {key: Launch(**launch) for key, launch in _read(_place(device)).items()}
    except (OSError, TypeError):
        return {}


def _keep(device: int | None, key: str, launch: Launch) -> None:
    """Adds one choice to the file, which another process may have extended meanwhile. A cache that cannot be written is no error."""
    try:
        place = _place(device)
        content = json.dumps(_read(place) | {key: launch._asdict()}, indent=0, sort_keys=True)
        handle, unfinished = tempfile.mkstemp(dir=place.parent, suffix=".json")
        with os.fdopen(handle, "w") as file:
            file.write(content)
        Path(unfinished).replace(place)  # whole or not at all
    except OSError as error:
        log.debug("the choice for %s is not kept: %s", key, error)


def _read(place: Path) -> dict[str, Any]:
    try:
        found = json.loads(place.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@functools.cache
def _place(device: int | None) -> Path:
    import triton

    texts = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    card = torch.cuda.get_device_name(device)
    identity = [card.encode(), triton.__version__.encode(), torch.__version__.encode(), *texts]
    name = "".join(c if c.isalnum() else "-" for c in card.lower())
    digest = hashlib.sha256(b"\0".join(identity)).hexdigest()[:16]
    return cache_dir("triton") / f"{name}-{digest}.json"
