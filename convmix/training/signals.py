"""Ctrl-C and SIGTERM ask a training to stop after the step it is in; a second one stops it at once, a third ends the process."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from convmix.errors import ConvmixError


class Interrupted(ConvmixError):  # noqa: N818 (it is no error)
    """The training was stopped by the signal `number` after saving its state in the model directory `out`."""

    def __init__(self, message: str, *, number: int, out: Path) -> None:
        super().__init__(message)
        self.number, self.out = number, out


class StopRequests:
    """Remembers the first SIGINT or SIGTERM while the block runs; does nothing outside the main thread."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received = 0
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequests":
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self._remember) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            for again in self.SIGNALS:
                signal.signal(again, signal.SIG_DFL)  # a third ends what not even this does
            raise KeyboardInterrupt
        self.received = number
