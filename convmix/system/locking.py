"""One process at a time in a folder: a lock that the kernel lets go when its holder dies, however it dies.

It is a record lock (fcntl) on a file in the folder, which worker processes do not inherit. On NFS the server keeps it, so that it holds
between machines too where the share is mounted with locks (not with `nolock`); a server takes some seconds to notice that a machine is
gone. Where a file system knows no locks, and on Windows, nothing is refused.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from convmix.errors import RunError, TrainingError

NAME = ".convmix.lock"
_TAKEN = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_ours: set[tuple[int, int]] = set()  # folders that this process holds: its own record locks do not exclude it


@dataclass(frozen=True)
class Held:
    """A folder that is locked, known by what it is and not by its name alone."""

    folder: Path
    identity: tuple[int, int]  # device and inode

    def check(self) -> None:
        """Raises TrainingError where the folder was removed or another one has its name."""
        if _identity(self.folder) != self.identity:
            raise TrainingError(f"{self.folder} was removed or replaced by somebody else; what was written into it is lost, start again")


@contextmanager
def locked(folder: Path) -> Iterator[Held]:
    """Hold the folder, which is made where it is missing, for the block; one in which nothing was written is removed again.

    Raises RunError where another process holds it, and where it cannot be made or written.
    """
    made = _make(folder)
    identity = _identity(folder)
    assert identity is not None
    if identity in _ours:
        raise RunError(_in_use(folder, "this process itself"))
    descriptor = _open(folder)
    _ours.add(identity)
    try:
        yield Held(folder, identity)
    finally:
        _ours.discard(identity)
        if descriptor is not None:
            with suppress(OSError):
                (folder / NAME).unlink()  # while it is held, so that nobody else's is removed
            os.close(descriptor)
        if made:
            with suppress(OSError):
                folder.rmdir()  # only where it is empty


def _open(folder: Path) -> int | None:
    """The file's descriptor, locked; None where there are no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        try:
            descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise RunError(f"{folder} cannot be written: {error.strerror}") from None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 100, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                return None
            if error.errno in _TAKEN:
                raise RunError(_in_use(folder, holder or "another process")) from None
            raise RunError(f"{folder / NAME} cannot be locked: {error.strerror}") from None
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), (folder / NAME).stat()):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode("ascii", "replace"), 0)
                return descriptor
        os.close(descriptor)  # who held it has just removed it


def _in_use(folder: Path, holder: str) -> str:
    return f"{folder} is in use by {holder}; wait until it has ended, or name another folder"


def _make(folder: Path) -> bool:
    """Whether it had to be made."""
    try:
        folder.mkdir(parents=True)
        return True
    except FileExistsError:
        if not folder.is_dir():
            raise RunError(f"{folder} exists already and is not a folder; give another --out") from None
        return False
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}") from None


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
