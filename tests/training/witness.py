"""Training processes that say what they train on, and stop or die where a test wants it.

`torchrun ... -m tests.training.witness answer PORT`: runs one `convmix` command after the other, as `tests.two_processes.Pair` orders them.
`... -m tests.training.witness die RANK STEP,STEP ARGUMENTS`: `convmix ARGUMENTS`; that process is killed before it takes the first step in
its first life, the second one in its second.
`... -m tests.training.witness die-writing FILE TIMES ARGUMENTS`: `convmix ARGUMENTS`; the process is killed when it has written a file of
that name so often, the last time beside the one that it is to replace.
"""

import contextlib
import io
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from convmix.cli import main
from convmix.data.loaders import Batch
from convmix.tasks import semanticfpn
from convmix.training import loop
from tests.blank_pictures import pictures, save_blank

RANK = int(os.environ.get("RANK", "0"))


@contextlib.contextmanager
def watched(notes: Path | None, *, stop: int) -> Iterator[None]:
    """Within it, steps are noted; the first process gets SIGTERM after step `stop`."""
    real = loop.train_step

    def noted(t: loop.Training, batch: Batch) -> None:
        if notes is not None:
            with (notes / f"{RANK}.jsonl").open("a") as file:
                file.write(json.dumps([t.position.step, batch.indices.tolist()]) + "\n")
        real(t, batch)
        if t.position.step == stop and RANK == 0:
            signal.raise_signal(signal.SIGTERM)

    loop.train_step = noted
    try:
        yield
    finally:
        loop.train_step = real


def answer(port: int) -> None:
    """Until nobody asks any more."""
    semanticfpn.DROPOUT = 0.0  # every process draws its own, so that nothing could be compared
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rw") as talk:
        print(RANK, file=talk, flush=True)
        for line in talk:
            order = json.loads(line)
            with (
                pictures(save_blank),
                watched(Path(order["notes"]) if order["notes"] else None, stop=order["stop"]),
                mock.patch.dict(os.environ, order["environment"]),
            ):
                print(json.dumps(said(order["arguments"])), file=talk, flush=True)


def said(arguments: list[str]) -> dict[str, Any]:
    """Exit code and output of a command."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except Exception:
            traceback.print_exc()
            code = 1
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def die_at(step: int) -> None:
    """As a machine that is taken away: nothing is saved or said."""
    real = loop.train_step

    def train_step(t: loop.Training, batch: Batch) -> None:
        if t.position.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        real(t, batch)

    loop.train_step = train_step


def die_writing(name: str, times: int) -> None:
    """As by the kernel when memory is short."""
    real, written = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        if Path(target).name == name:
            written.append(name)
            if len(written) == times:
                os.kill(os.getpid(), signal.SIGKILL)
        return real(self, target)

    Path.replace = replace


if __name__ == "__main__":
    what, *more = sys.argv[1:]
    if what == "answer":
        answer(int(more[0]))
    elif what == "die-writing":
        die_writing(more[0], int(more[1]))
        main(more[2:])
    else:
        rank, steps, *arguments = more
        if int(rank) == RANK:
            die_at(int(steps.split(",")[int(os.environ["TORCHELASTIC_RESTART_COUNT"])]))
        main(arguments)
