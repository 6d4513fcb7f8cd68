"""Optional packages that engines need: imported when they are used, quiet, without telemetry; OpenVINO with one core for the whole process.

The CPU plugin of every `openvino.Core` sets up a signal stack of its own and unmaps it when the core ends. Where cores end in another order
than the reverse of their beginning (NNCF makes and drops many), the last one puts back a stack that is unmapped already. Python handles
signals on that stack, so the next signal (a child process that ends, Ctrl-C) kills the process without a word. Seen with OpenVINO 2026.4.
"""

import contextlib
import ctypes
import functools
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from convmix.errors import ConvmixError


class UnavailableError(ConvmixError):
    """An engine that this machine, model or installation does not have; the message is the reason."""


def imported(name: str, *, extra: str = "speed") -> ModuleType:
    """An optional package; UnavailableError where it is not installed, naming the extra that brings it.

    OpenVINO and NNCF report their use over the network unless told otherwise, and even their opt-out command sends a message. Where the
    package `openvino_telemetry` is missing both take a stub that sends nothing, so that package is kept out.
    """
    if name in ("openvino", "nncf"):
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(f"{name} is not installed; pip install 'convmix[{extra}]'") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters and compilers warn about their own insides and draw progress bars; what matters comes back as an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@functools.cache
def openvino_core(*, extra: str = "speed") -> Any:
    """The process's `openvino.Core`, never dropped. Raises UnavailableError where OpenVINO is not installed."""
    return _core(imported("openvino", extra=extra))


@functools.cache
def _core(openvino: ModuleType) -> Any:
    return openvino.Core()


class _Stack(ctypes.Structure):
    """stack_t in signal.h of Linux."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


def signal_stack() -> tuple[int | None, int]:
    """Address and size in bytes of the stack on which this thread handles signals; None and 0 where it has none of its own."""
    stack = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack.ss_sp, stack.ss_size


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Puts the thread's signal stack back at the end, whatever cores were made and dropped meanwhile."""
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
