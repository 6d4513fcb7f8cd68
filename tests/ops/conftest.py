"""Kernels switched off, or compiled afresh in a cache of the test's own."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from convmix.ops import act_norm, build, depthwise, winograd

# What a process remembers of its kernels.
LIBRARIES = (depthwise.library, act_norm._library, winograd._library)
MEMORIES = (build.library, build._version, build._own_directory, build._say_once, *LIBRARIES)
KernelsOff = Callable[[], AbstractContextManager[None]]


def _forget() -> None:
    if build._own_directory.cache_info().currsize:
        build._own_directory().cleanup()
    for memory in MEMORIES:
        memory.cache_clear()


@pytest.fixture
def kernels_off() -> KernelsOff:
    """A context in which PyTorch does everything."""

    @contextmanager
    def off() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CONVMIX_KERNELS", "off")
            _forget()
            yield
        _forget()

    return off


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """An empty directory of compiled kernels, and a process that has loaded none."""
    monkeypatch.setenv("CONVMIX_CACHE", str(tmp_path))
    monkeypatch.delenv("CONVMIX_KERNELS", raising=False)
    _forget()
    yield tmp_path / "kernels"
    _forget()
