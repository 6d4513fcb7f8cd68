"""What is published: the package and nothing else, the same bytes every time."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


def built(checkout: Path, folder: Path, *, umask: int) -> list[Path]:
    """By the program of a checkout."""
    environment = {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"} | {"SOURCE_DATE_EPOCH": "1700000000"}
    command = [sys.executable, ".ci/distribution.py", str(folder)]
    done = subprocess.run(command, cwd=checkout, env=environment, umask=umask, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> list[list[Path]]:
    """The wheel and the sdist of this tree and of a copy in another place, made later and with other rights."""
    place = tmp_path_factory.mktemp("twice")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (REPO / name).is_file():
            (place / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPO / name, place / "copy" / name)
            (place / "copy" / name).chmod(0o600)
    (place / "copy/notes.txt").write_text("nobody else's business")
    (place / "copy/convmix/scratch.py").write_text("KEY = 'a secret'")
    for words in (("init", "-q"), ("add", *filter(lambda n: n and (place / "copy" / n).exists(), names))):
        subprocess.run(["git", *words], cwd=place / "copy", check=True)
    return [built(REPO, place / "one", umask=0o022), built(place / "copy", place / "other", umask=0o077)]


@pytest.mark.slow
def test_two_builds_of_the_same_files_are_the_same_bytes(twice: list[list[Path]]) -> None:
    one, other = twice
    assert [file.suffix for file in one] == [".whl", ".gz"] or [file.suffix for file in one] == [".gz", ".whl"]
    assert [file.name for file in one] == [file.name for file in other]
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


@pytest.mark.slow
def test_the_wheel_holds_the_tracked_files_of_the_package_and_its_metadata(twice: list[list[Path]]) -> None:
    wheel = next(file for file in twice[0] if file.suffix == ".whl")
    tracked = set(subprocess.run(["git", "ls-files", "convmix"], cwd=REPO, check=True, capture_output=True, text=True).stdout.split())
    names = set(zipfile.ZipFile(wheel).namelist())
    about = {name for name in names if ".dist-info/" in name}
    assert names - about == {name for name in tracked if (REPO / name).is_file()}
    assert {name.partition(".dist-info/")[2] for name in about} == {
        "METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE",
    }  # fmt: skip


@pytest.mark.slow
def test_the_sdist_holds_the_same_and_what_builds_it(twice: list[list[Path]]) -> None:
    sdist = next(file for file in twice[0] if file.suffix == ".gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    beside = {name for name in names if not name.startswith(("convmix/", "convmix.egg-info/"))}
    assert beside == {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO", "setup.cfg"}
    with zipfile.ZipFile(next(file for file in twice[0] if file.suffix == ".whl")) as wheel:
        assert {n for n in names if n.startswith("convmix/")} == {n for n in wheel.namelist() if n.startswith("convmix/")}
