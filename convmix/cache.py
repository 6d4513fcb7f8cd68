"""Where results that can be made again are kept (compiled kernels, measured choices), and the user's home, where there is one.

A container may run a program as a number that nobody has given a name or a home: `docker run --user 12345` has no entry in the table of
users, and `HOME` is unset or a folder that only root may write.
"""

import getpass
import os
import stat
import sys
import tempfile
from pathlib import Path

from convmix.errors import ConfigError


def cache_dir(kind: str) -> Path:
    """The directory for one kind of result, made where it is missing and readable by its owner alone.

    CONVMIX_CACHE names the place; without it the platform's own: ~/.cache/convmix on Linux, ~/Library/Caches/convmix on macOS,
    %LOCALAPPDATA%/convmix on Windows. Where that cannot be made, as in a container whose user has no home, it is a folder of this
    user's own below the temporary one. Raises OSError where none can be made.
    """
    place = _root() / kind
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        if os.environ.get("CONVMIX_CACHE"):
            raise
        place = private_place() / kind
        place.mkdir(exist_ok=True, mode=0o700)
    return place


def _root() -> Path:
    if told := os.environ.get("CONVMIX_CACHE"):
        return Path(told)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home()) / "convmix"
    if sys.platform == "darwin":
        return home() / "Library" / "Caches" / "convmix"
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "convmix"


def home() -> Path:
    """The home directory, or `private_place()` where the user has none."""
    try:
        return Path.home()
    except RuntimeError:
        return private_place()


def private_place() -> Path:
    """A folder of this user's alone below the temporary one; OSError where somebody else has made it, who could put programs there."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    place = Path(tempfile.gettempdir()) / f"convmix-{user}"
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022)):
        raise PermissionError(f"{place} belongs to somebody else, or others may write into it")
    return place


def expanded(place: str | Path) -> Path:
    """The path with ~ and ~USER replaced; ConfigError where there is no such user, or this one has no home."""
    try:
        return Path(place).expanduser()
    except RuntimeError:
        who = str(place).partition("/")[0]
        why = "this user has no home directory" if who == "~" else f"there is no user {who[1:]} with a home directory"
        raise ConfigError(f"{place}: {why}; give the whole path") from None


def settle() -> None:
    """For a program of its own: give the libraries that ask for a home and a name what they would fail without."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(private_place())
    try:
        getpass.getuser()
    except (KeyError, OSError):  # torch names its folder of compiled code after the user
        os.environ["USER"] = f"user-{os.getuid()}" if hasattr(os, "getuid") else "user"
