"""The work of a rehearsal, in its worker processes; light, so that they start at once."""

import hashlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convmix.serving.messages import ImageMessage
from convmix.serving.problem import Problem


def make_obedient(closed: Path | None = None) -> Callable[[Sequence[Any]], list[Any]]:
    """Runs in the worker, which does not come up while there is a file `closed`."""
    while closed is not None and closed.exists():
        time.sleep(0.01)
    return obey


def obey(orders: Sequence[ImageMessage]) -> list[Any]:
    """`die` ends the worker, `sleep N` takes N seconds, `raise` is a bug, `bad` a bad image; anything else is labelled by its digest.

    `hold PATH` says by a file PATH.begun that it has begun, and ends when there is a file PATH.
    """
    replies: list[Any] = []
    for order in orders:
        said, _, rest = order.data.decode("latin-1").partition(" ")
        if said == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if said == "sleep":
            time.sleep(float(rest))
        if said == "hold":
            Path(rest + ".begun").touch()
            while not Path(rest).exists():
                time.sleep(0.01)
        if said == "raise":
            raise RuntimeError("a bug")
        replies.append(Problem("unreadable_image", "bad") if said == "bad" else row(order))
    return replies


def row(order: ImageMessage) -> dict[str, Any]:
    label = digest(order.data)
    return {
        "name": order.name, "label": label, "probability": 0.5, "sure": True, "alternatives": [], "error": None, "width": 1, "height": 1,
    }  # fmt: skip


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
