"""convmix's models in timm's registry, without paying for timm where nobody uses it.

timm takes seconds to import and `import convmix` must not, but after both `timm.create_model("convmlp_s")` has to work in whichever order
they come. So `install` registers at once where `timm.models` is already there; otherwise it puts a finder in front of `sys.meta_path` that
waits for `timm.models`, lets Python load it as always, registers when its own code has run, and takes itself out.
timm's own entries are never touched.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_TARGET = "timm.models"


def install() -> None:
    """Make convmix's models known to timm, now or as soon as timm is imported; calling it again changes nothing."""
    if _TARGET in sys.modules:
        register()
    elif not any(isinstance(finder, _AfterTimm) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterTimm())


def register() -> None:
    """Enter every name of `catalog.registered_names` in timm's registry."""
    from timm.models import is_model, register_model

    from convmix.models import catalog

    module = sys.modules[__name__]
    for name in catalog.registered_names():
        if not is_model(name):
            entry = _entry(name, catalog.build_for_timm)
            setattr(module, name, entry)
            register_model(entry)


class _AfterTimm(MetaPathFinder):
    """Finds `timm.models` as the other finders do, and has `register` called when it has been executed."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != _TARGET:
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((s for s in found if s is not None), None)
        if spec is not None and spec.loader is not None:
            self._register_after(spec.loader)
        return spec

    def _register_after(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            register()

        loader.exec_module = exec_module  # on this one loader object, which serves this one module


def _entry(name: str, build: Callable[..., Any]) -> Callable[..., Any]:
    def entry(pretrained: bool = False, **kwargs: Any) -> Any:  # the signature timm calls
        return build(name, pretrained, **kwargs)

    entry.__name__ = entry.__qualname__ = name
    entry.__module__ = __name__  # timm lists models by the module they come from
    return entry
