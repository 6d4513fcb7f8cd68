"""Results that many tests read, made once for all of them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tests.blank_pictures import DRAW, pictures


@dataclass(frozen=True)
class MadeOnce:
    """Folders that are made once for all tests and all workers of a run of the suite; read only."""

    root: Path

    def __call__(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder `name`, which the first who asks fills with `make`; the others wait. No test may change it."""
        folder, done = self.root / name, self.root / f".{name}.done"
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f".{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a `make` that failed
                with pictures(DRAW):  # whoever asks first: another may look at them
                    make(folder)
                done.write_text(_listing(folder))
        return folder

    def changed(self) -> list[str]:
        """The folders that are no longer as they were made."""
        made = [(done, self.root / done.name[1 : -len(".done")]) for done in self.root.glob(".*.done")]
        return [folder.name for done, folder in made if done.read_text() != _listing(folder)]


def _listing(folder: Path) -> str:
    """Names, sizes and times of all files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "".join(f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in files)
