"""The errors that a user can mend, and the nearest valid name for a mistyped one.

Every message names the value, what was expected and what to do. The command line prints it on one line and exits with code 2.
"""

import difflib
import re
from collections.abc import Iterable

_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")


class ConvmixError(Exception):
    """A mistake the user can mend, said on one line; control characters, which names in somebody's files may hold, are written out."""

    def __str__(self) -> str:
        return _CONTROL.sub(lambda c: c[0].encode("unicode_escape").decode(), super().__str__())


class ConfigError(ConvmixError):
    """A setting that does not exist or has an impossible value."""


class DataError(ConvmixError):
    """A data set that cannot be read or cannot be learned from."""


class ModelError(ConvmixError):
    """A model name or model argument that does not exist."""


class WeightsError(ConvmixError):
    """A weight file that does not fit the model."""


class RunError(ConvmixError):
    """A model directory that is missing, incomplete or of another kind."""


class TrainingError(ConvmixError):
    """A training that cannot continue: a loss that is not finite, a process that is gone."""


class WriteError(ConvmixError):
    """A file that cannot be written: a full or read-only disk."""


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of what an error says, cut at `limit` characters; its type's name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:limit]


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """', did you mean X?' for the nearest of `choices`, or '' where none is near."""
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the system refused memory: to Python, to torch's allocator, to C++, or to the loader of a library."""
    words = ("can't allocate memory", "bad_alloc", "failed to map segment", "Cannot allocate memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
