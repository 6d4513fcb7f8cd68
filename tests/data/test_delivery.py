"""Batches come through without shared memory too, and a worker that dies, stops or hangs ends the wait in words."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from convmix.data import delivery
from convmix.data.delivery import Parcel, Pulse, delivered
from convmix.errors import DataError
from tests.patience import PATIENCE_S


class Tensors(Dataset[Parcel]):
    """Item i is a MiB of the number i, in a parcel; at `ends` the worker does to itself what `how` says."""

    def __init__(self, n: int, pulse: Pulse, *, ends: int = -1, how: int = 0) -> None:
        self.n, self.pulse, self.ends, self.how = n, pulse, ends, how

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Parcel:
        if i == self.ends:
            os.kill(os.getpid(), self.how)
        self.pulse.beat()
        return Parcel(torch.full((2**20,), i, dtype=torch.uint8))


def items(n: int, **what: int) -> Iterator[torch.Tensor]:
    pulse = Pulse(2)
    loader = DataLoader(Tensors(n, pulse, **what), batch_size=None, num_workers=2, multiprocessing_context="fork")
    return delivered(loader, pulse)


linux = pytest.mark.skipif(sys.platform != "linux", reason="forked workers")


@pytest.mark.slow
@linux
def test_a_killed_worker_ends_the_wait_in_words() -> None:
    with pytest.raises(DataError, match=r"was ended by SIGKILL.*fewer --workers"):
        list(items(20, ends=7, how=signal.SIGKILL))


@pytest.mark.slow
@linux
def test_a_stopped_worker_ends_the_wait_and_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "SILENT_S", 1.0)
    monkeypatch.setattr(delivery, "LOOK_S", 0.2)
    taken = items(20, ends=7, how=signal.SIGSTOP)
    workers: list[int] = []
    with pytest.raises(DataError, match="not finished one for 1 s"):
        for _ in taken:
            workers = workers or [child.pid for child in torch.multiprocessing.active_children()]
    assert len(workers) == 2
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.slow
@linux
def test_no_worker_is_left_where_the_caller_stops_in_the_middle() -> None:
    taken = items(20)
    next(taken)
    workers = [child.pid for child in torch.multiprocessing.active_children()]
    os.kill(workers[0], signal.SIGSTOP)  # it will not hear that it is over
    taken.close()  # type: ignore[attr-defined]
    assert not torch.multiprocessing.active_children()


@pytest.mark.parametrize("error", [RuntimeError("unable to allocate shared memory"), OSError(24, "Too many open files")])
def test_without_shared_memory_a_parcel_holds_its_bytes(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(item: object) -> bytes:
        raise error

    monkeypatch.setattr(delivery.ForkingPickler, "dumps", refuse)
    assert torch.equal(Parcel(torch.arange(9)).open(), torch.arange(9))


SMALL = """
import torch
from torch.utils.data import DataLoader
from convmix.data.delivery import Pulse, delivered
from tests.data.test_delivery import Tensors

pulse = Pulse(2)
loader = DataLoader(Tensors(12, pulse), batch_size=None, num_workers=2, multiprocessing_context="fork")
print([int(x[-1]) for x in delivered(loader, pulse)])
"""


@pytest.mark.slow
@linux
def test_batches_come_through_a_dev_shm_that_holds_none(tmp_path: Path) -> None:
    script = tmp_path / "small.py"
    script.write_text(textwrap.dedent(SMALL))
    mounted = 'mount -t tmpfs -o size=512k none /dev/shm && exec "$0" "$@"'
    unshare = ["unshare", "-m", *([] if os.getuid() == 0 else ["-r"]), "sh", "-c", mounted]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*unshare, sys.executable, script], capture_output=True, text=True, env=environment, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(list(range(12)))
