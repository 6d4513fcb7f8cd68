"""A user without a home or a name can do everything; nobody else's folder is trusted."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from convmix import cache
from convmix.cache import cache_dir, expanded, private_place
from convmix.errors import ConfigError
from tests.conftest import REPO


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process whose user has no home; the temporary folder."""

    def homeless(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    for name in ("CONVMIX_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_the_cache_of_a_user_without_a_home_is_its_own(nobody: Path) -> None:
    place = cache_dir("kernels")
    assert nobody in place.parents and place.is_dir()
    assert private_place().stat().st_mode & 0o077 == 0


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users by number here")
@pytest.mark.parametrize("how", ["writable by others", "a link", "somebody else's"])
def test_a_folder_that_others_could_fill_is_not_used(nobody: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = nobody / f"convmix-{os.getuid()}"
    if how == "a link":
        (nobody / "else").mkdir()
        place.symlink_to(nobody / "else")
    else:
        place.mkdir()
        place.chmod(0o777 if how == "writable by others" else 0o700)
    if how == "somebody else's":
        mine = os.getuid()
        place.rename(nobody / f"convmix-{mine + 1}")
        monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(OSError, match="belongs to somebody else"):
        cache_dir("kernels")


def test_a_home_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CONVMIX_CACHE", raising=False)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert tmp_path / f"convmix-{os.getuid()}" in cache_dir("choices").parents
    monkeypatch.setenv("CONVMIX_CACHE", str(tmp_path / "file"))  # what was asked for by name is not replaced
    with pytest.raises(OSError, match="Not a directory"):
        cache_dir("choices")


def test_a_user_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="there is no user no-such-user with a home"):
        expanded("~no-such-user/photos")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a") == tmp_path / "a"


SETTLED = """
import getpass, os, pathlib
from convmix import cache
from convmix.cache import settle
os.setgroups([])
os.setgid(12345)
os.setuid(12345)
settle()
print(pathlib.Path.home())
print(getpass.getuser())
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="takes root to become a number without a name")
def test_a_number_without_a_name_has_a_home_for_libraries() -> None:
    bare = {k: v for k, v in os.environ.items() if k not in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")}
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        done = subprocess.run([sys.executable, "-c", SETTLED], cwd=REPO, env={**bare, "TMPDIR": place}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(Path(place) / "convmix-12345"), "user-12345"]
