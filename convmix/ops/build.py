"""C kernels, compiled for this processor when first used and kept for the next process.

kernels/*.c + -D definitions -> the machine's own compiler -> a shared library in the cache -> ctypes
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from convmix.cache import cache_dir
from convmix.ops import switch

KERNELS = Path(__file__).parent / "kernels"
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-ffp-contract=fast", "-std=gnu11", "-fPIC", "-shared")
TIMEOUT_S = 300
log = logging.getLogger("convmix")
_announced: list[str] = []  # not empty once `said` has said that there is no compiler: the log need not repeat it


@functools.cache
def library(source: str, *definitions: str) -> ctypes.CDLL | None:
    """The kernels of `source`, such as "depthwise", compiled with -D of each definition; None where there is no working compiler.

    A missing compiler or a failure is said once in the log, and the callers take PyTorch's own kernels. CONVMIX_KERNELS=off asks for that
    (`switch`).
    PyTorch must have been loaded before: its OpenMP runtime, already in the process, is the one that the kernels find and share.
    """
    if switch.kernels() == "off":
        return None
    compiler = find_compiler()
    if compiler is None:
        if not _announced:
            _say_once("no C compiler found (gcc or clang): the depthwise convolutions train with PyTorch's own slower kernels")
        return None
    try:
        return ctypes.CDLL(str(_compiled(compiler, source, definitions)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        first = next(iter(reason.strip().splitlines()), "it says nothing")
        _say_once(f"{' '.join(compiler)} cannot compile {source}.c ({first}): PyTorch's own slower kernels are used")
        return None


def said(device_type: str) -> str | None:
    """The line about these kernels at the start of a training or a benchmark; None where they are used, or were not asked for."""
    if device_type != "cpu" or switch.kernels() == "off" or find_compiler() is not None:
        return None
    _announced.append(device_type)
    return (
        "C kernels: not used, for no C compiler was found. Training these models with PyTorch's own kernels takes several times as long. "
        "Install gcc or clang (apt install gcc, dnf install gcc, apk add build-base, xcode-select --install) or name one in CC; "
        "CONVMIX_KERNELS=off does without and leaves this line out"
    )


def find_compiler() -> tuple[str, ...] | None:
    """The C compiler's command: $CC, which may be several words, else gcc, clang or cc; None where there is none."""
    for command in (shlex.split(os.environ.get("CC", "")), ["gcc"], ["clang"], ["cc"]):
        if command and (found := shutil.which(command[0])):
            return found, *command[1:]
    return None


def _compiled(compiler: tuple[str, ...], source: str, definitions: tuple[str, ...]) -> Path:
    texts = [path.read_bytes() for path in sorted(KERNELS.iterdir()) if path.suffix in (".c", ".h")]
    identity = (*FLAGS, *definitions, *compiler, _version(compiler), _processor())
    name = f"{source}-" + _digest(b"\0".join([*texts, *(part.encode() for part in identity)]))
    try:
        place = cache_dir("kernels")
        return _find(place, name) or _compile(compiler, source, definitions, place, name)
    except OSError:  # a read-only home or a full disk: compiled again by every process, into a directory of its own
        return _compile(compiler, source, definitions, Path(_own_directory().name), name)


def _find(place: Path, name: str) -> Path | None:
    """The finished library NAME-DIGEST.so whose content has that digest: loading one that was cut short would kill the process."""
    return next((path for path in place.glob(f"{name}-*.so") if path.stem == f"{name}-{_digest(path.read_bytes())}"), None)


def _compile(compiler: tuple[str, ...], source: str, definitions: tuple[str, ...], place: Path, name: str) -> Path:
    handle, unfinished = tempfile.mkstemp(dir=place, suffix=".so")
    os.close(handle)
    command = [*compiler, *FLAGS, *(f"-D{d}" for d in definitions), str(KERNELS / f"{source}.c"), "-o", unfinished, "-lm"]
    try:
        with_openmp = subprocess.run([*command, "-fopenmp"], capture_output=True, text=True, timeout=TIMEOUT_S)
        if with_openmp.returncode:  # Apple's clang has none; the kernels then run on one thread
            subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        finished = place / f"{name}-{_digest(Path(unfinished).read_bytes())}.so"
        return Path(unfinished).replace(finished)  # whole or not at all, also when two processes compile at once
    finally:
        Path(unfinished).unlink(missing_ok=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@functools.cache
def _version(compiler: tuple[str, ...]) -> str:
    return subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout


@functools.cache
def _processor() -> str:
    """What -march=native depends on: a cache on a shared home must not hand one machine's code to another."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = {line for line in info.read_text().splitlines() if line.startswith(("flags", "Features", "model name"))}
        return "\n".join(sorted(lines))
    return f"{platform.machine()} {platform.processor()}"


@functools.cache
def _own_directory() -> "tempfile.TemporaryDirectory[str]":
    """Kept by the cache, so removed at the end of the process."""
    return tempfile.TemporaryDirectory(prefix="convmix-kernels-")


@functools.cache
def _say_once(message: str) -> None:
    log.warning(message)
