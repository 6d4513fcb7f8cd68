"""What is done when a module is imported, by whoever imports it.

No sooner, for the import takes long.

A finder in front of `sys.meta_path` waits for the module, lets Python load it as always, acts when its own code has run, and takes itself
out when there is nothing left to wait for.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_waiting: dict[str, list[Callable[[], None]]] = {}


def after_import(module: str, action: Callable[[], None]) -> None:
    """Call `action` now where the module is imported, else as soon as it is; giving the same action again changes nothing."""
    if module in sys.modules:
        action()
        return
    actions = _waiting.setdefault(module, [])
    if action not in actions:
        actions.append(action)
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport(MetaPathFinder):
    """Finds what is waited for as the other finders do, and has it acted upon when it has been executed."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in _waiting:
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((s for s in found if s is not None), None)
        if spec is not None and spec.loader is not None:
            self._act_after(spec.loader, fullname)
        return spec

    def _act_after(self, loader: Any, fullname: str) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            actions = _waiting.pop(fullname, [])
            if not _waiting and self in sys.meta_path:
                sys.meta_path.remove(self)
            for action in actions:
                action()

        loader.exec_module = exec_module  # on this one loader object, which serves this one module
