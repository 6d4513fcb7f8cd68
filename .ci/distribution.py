"""Builds the wheel and the sdist into dist/, the same bytes from the same commit wherever and whenever.

    python .ci/distribution.py [FOLDER]

Both hold the package, its metadata and nothing else. Times in them are SOURCE_DATE_EPOCH, else that of the last commit; owners and rights
of the files on this machine are left out. Needs setuptools and git, no network.
"""

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("pyproject.toml", "README.md", "LICENSE")
_BUILD = (
    "from setuptools import build_meta as b; import sys; to = sys.argv[1]; b.build_wheel(to); b.build_sdist(to)"  # which changes sys.argv
)


def build(folder: Path, *, root: Path = ROOT) -> list[Path]:
    """The files, in `folder`; whatever else lies there stays."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _git(root, "log", "-1", "--format=%ct"))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        tree, made = Path(place, "tree"), Path(place, "made")
        for name in sorted({*BESIDE, *_git(root, "ls-files", "convmix").splitlines()}):
            if (root / name).is_file():
                _copy(root / name, tree / name)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            [sys.executable, "-c", _BUILD, str(made)], cwd=tree, env=environment, umask=0o022, capture_output=True, text=True
        )
        if done.returncode != 0:
            sys.exit(f"the build fails: {done.stderr.strip()[-2000:]}")
        for archive in made.glob("*.tar.gz"):
            archive.write_bytes(_settled(archive, epoch))
        return [Path(shutil.copy(file, folder)) for file in sorted(made.iterdir())]


def _settled(archive: Path, epoch: int) -> bytes:
    """The same files without times, owners and their order on this disk."""
    out = io.BytesIO()
    with (
        tarfile.open(archive) as old,
        gzip.GzipFile(fileobj=out, mode="wb", mtime=epoch, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda m: m.name):
            clean = tarfile.TarInfo(member.name)
            clean.type, clean.size, clean.mtime, clean.mode = member.type, member.size, epoch, 0o755 if member.isdir() else 0o644
            new.addfile(clean, old.extractfile(member) if member.isfile() else None)
    return out.getvalue()


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(file.read_bytes())
    to.chmod(0o644)


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    for file in build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"):
        print(file)
