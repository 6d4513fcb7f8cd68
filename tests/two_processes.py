"""Two processes on one machine, through torchrun and gloo, that train what they are told: a start costs more than most trainings."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from safetensors.torch import load_file
from torch import Tensor

from tests.command_line import Finished

REPO = Path(__file__).resolve().parents[1]
LIMIT_S = 300.0  # for a start or a training: far more than it takes beside a busy neighbour, and less than a process waits for a lost one


def options(**settings: object) -> list[str]:
    """As the command line takes them."""
    said = []
    for key, value in settings.items():
        name = key.replace("_", "-")
        said.append(f"--{'' if value else 'no-'}{name}" if isinstance(value, bool) else f"--{name}={value}")
    return said


def weights(run: Path) -> dict[str, Tensor]:
    """And statistics, as they were written."""
    return load_file(run / "model.safetensors")


class Pair:
    """Runs `tests.training.witness` in two processes, one thread each; started when it is first asked, and again after a failure."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.log: IO[bytes] | None = None
        self.talks: list[IO[str]] = []  # by rank

    def __call__(
        self,
        *arguments: object,
        second: list[object] | None = None,
        notes: Path | None = None,
        stop: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> list[Finished]:
        """What each process printed that ran `convmix ARGUMENTS --device cpu`, and its exit code.

        second: the arguments of the second process, where they differ. notes: a folder for RANK.jsonl, a line for every step with its
        number and the images. stop: the step after which the first process gets SIGTERM, a multiple of `AGREE_EVERY`; 0: none.
        environment: variables of this command alone.
        """
        if self.process is None:
            self._start()
        try:
            for talk, own in zip(self.talks, (arguments, second or arguments), strict=True):
                order = {"arguments": [*map(str, own), "--device", "cpu"], "notes": str(notes) if notes else None, "stop": stop}
                order["environment"] = dict(environment or {})
                talk.write(json.dumps(order) + "\n")
                talk.flush()
            answers: list[dict[str, Any]] = [json.loads(talk.readline()) for talk in self.talks]
        except (OSError, ValueError) as error:  # ended, or silent for too long
            said = self._said()
            self.close()
            raise AssertionError(f"the two processes were lost ({error!r}):\n{said}") from error
        return [Finished(**answer) for answer in answers]

    def _start(self) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        with socket.create_server(("127.0.0.1", 0)) as door:
            port = door.getsockname()[1]
            launch = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
                "2",
                "-m",
                "tests.training.witness",
            ]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
            self.process = subprocess.Popen(
                [*launch, "answer", str(port)], cwd=REPO, env=environment, stdout=self.log, stderr=self.log, start_new_session=True
            )
            door.settimeout(LIMIT_S)
            ranked: dict[int, IO[str]] = {}
            try:
                for _ in range(2):
                    connection, _ = door.accept()
                    with connection:
                        connection.settimeout(LIMIT_S)
                        talk = connection.makefile("rw")
                    ranked[int(talk.readline())] = talk
            except (OSError, ValueError) as error:
                said = self._said()
                self.close()
                raise AssertionError(f"two processes did not start ({error!r}):\n{said}") from error
        self.talks = [ranked[0], ranked[1]]

    def _said(self) -> str:
        assert self.log is not None
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def close(self) -> None:
        """Ends both."""
        for talk in self.talks:
            with contextlib.suppress(OSError):
                talk.close()
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=30)  # they end by themselves when nobody talks to them
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.log is not None:
            self.log.close()
        self.process, self.log, self.talks = None, None, []
