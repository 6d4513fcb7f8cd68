"""What a program finds around it and does not choose: a console that cannot show every letter, a user's script that may not be run twice,
a folder that may not be written.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convmix.errors import RunError


def show_every_letter() -> None:
    """Have letters that the console's encoding lacks written out (caf\\xe9) instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
        if encoding != "utf8" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def without_main() -> Iterator[None]:
    """Processes that are started inside do not run the user's script again.

    Where processes are not forked, Python has a new one import the main script, and a script without `if __name__ == "__main__"` would
    train once more in each. What ours do is importable from here, so they need not know the script.
    """
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: main.__dict__[name] for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__dict__.pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(hidden)


def refuse_unwritable(folder: Path, *, option: str) -> None:
    """RunError where nothing can be written into `folder`, which need not exist yet, before hours are spent on what belongs there."""
    there = folder
    while not there.exists() and there.parent != there:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there if there.is_dir() else there.parent):
            pass
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({there}: {error.strerror}); name another folder with {option}") from None


def quiet_libraries() -> None:
    """What libraries say of a home that cannot be written: they find another place for their caches by themselves."""
    if not os.access(os.path.expanduser("~"), os.W_OK):  # noqa: PTH111 - Path raises for a user without a home
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
