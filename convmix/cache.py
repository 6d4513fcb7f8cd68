"""Where results that can be made again are kept: compiled kernels, measured choices."""

import os
import sys
from pathlib import Path


def cache_dir(kind: str) -> Path:
    """The directory for one kind of result, made where it is missing and readable by its owner alone.

    CONVMIX_CACHE names the place; without it the platform's own: ~/.cache/convmix on Linux, ~/Library/Caches/convmix on macOS,
    %LOCALAPPDATA%/convmix on Windows. Raises OSError where it cannot be made.
    """
    place = _root() / kind
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    return place


def _root() -> Path:
    if told := os.environ.get("CONVMIX_CACHE"):
        return Path(told)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "convmix"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "convmix"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "convmix"
