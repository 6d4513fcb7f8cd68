"""convmix for torchrun, which notes what every process trains on: `torchrun ... -m tests.training.witness NOTES STOP train DATA ...`.

NOTES/RANK.jsonl gets a line per step: its number and the images. After step STOP, a multiple of `AGREE_EVERY` (0: never), the first process
gets SIGTERM. Nothing is dropped out, for every process draws its own.
"""

import json
import os
import signal
import sys
from pathlib import Path

from convmix.cli import main
from convmix.data.loaders import Batch
from convmix.tasks import semanticfpn
from convmix.training import loop


def watch(notes: Path, *, stop: int) -> None:
    """Training steps are noted from now on."""
    real = loop.train_step
    rank = int(os.environ.get("RANK", "0"))
    semanticfpn.DROPOUT = 0.0

    def noted(t: loop.Training, batch: Batch) -> None:
        with (notes / f"{rank}.jsonl").open("a") as file:
            file.write(json.dumps([t.position.step, batch.indices.tolist()]) + "\n")
        real(t, batch)
        if t.position.step == stop and rank == 0:
            signal.raise_signal(signal.SIGTERM)

    loop.train_step = noted


if __name__ == "__main__":
    watch(Path(sys.argv[1]), stop=int(sys.argv[2]))
    sys.argv[1:3] = []
    main()
