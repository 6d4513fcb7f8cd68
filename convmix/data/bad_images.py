"""An image that cannot be used, and why."""

from collections.abc import Iterator
from contextlib import contextmanager

from convmix.errors import is_out_of_memory


class BadImage(Exception):  # noqa: N818 - caught, counted and listed by the callers; a user never sees it raised
    """An image that cannot be used; `reason` is short, for people, and holds no path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@contextmanager
def fits_in_memory() -> Iterator[None]:
    """An image for which no memory is left is a bad one, and costs no other its answer."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise BadImage("too large for the memory") from None
