"""SHA256SUMS in an exported folder: that its files are those that were verified, as `sha256sum -c SHA256SUMS` says too.

It finds what was changed by accident, or by somebody who does not know of it: a list beside the files is no signature.
"""

import hashlib
import os
import re
from pathlib import Path

from convmix.errors import RunError

SUMS = "SHA256SUMS"
SKIP_VARIABLE = "CONVMIX_NO_VERIFY"  # set to anything: digests are not looked at, in worker processes neither
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\\0]+)")


def skip() -> None:
    """From now on, in this process and those that it starts."""
    os.environ[SKIP_VARIABLE] = "1"


def write_digests(folder: Path) -> bytes:
    """The list of all files in the folder, as text."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    return "".join(f"{_digest(file)}  {file.name}\n" for file in files).encode()


def check_digests(folder: Path, needed: Path) -> None:
    """RunError where a listed file that is there was changed, or where `needed` is not listed. An export of older versions has no list."""
    if os.environ.get(SKIP_VARIABLE) or not (folder / SUMS).is_file():
        return
    listed = _read(folder / SUMS)
    if needed.name not in listed:
        raise RunError(f"{needed} is not in {folder / SUMS}: it is not part of what was exported; export the model again, or --no-verify")
    for name, digest in listed.items():
        file = folder / name
        if _is_read(name, needed) and file.is_file() and _digest(file) != digest:
            raise RunError(
                f"{file} was changed since it was exported: its digest is not that of {SUMS}; export the model again, or --no-verify"
            )


def _is_read(name: str, needed: Path) -> bool:
    """Whether the file decides what the model answers: not the script and the pages beside it, nor another engine's file."""
    return name == needed.name or Path(name).suffix in (".json", ".bin", ".data")


def _read(sums: Path) -> dict[str, str]:
    try:
        lines = sums.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{sums} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    matches = [_LINE.fullmatch(line) for line in lines if line.strip()]
    if not all(matches):
        raise RunError(f"{sums} is not a list of digests; export the model again, or --no-verify")
    return {match[2]: match[1] for match in matches if match}


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
