"""convmix's models in timm's registry, without paying for timm where nobody uses it.

timm takes seconds to import and `import convmix` must not, but after both `timm.create_model("convmlp_s")` has to work in whichever order
they come. timm's own entries are never touched.
"""

import sys
from collections.abc import Callable
from typing import Any

from convmix.ops.after_import import after_import


def install() -> None:
    """Make convmix's models known to timm, now or as soon as timm is imported; calling it again changes nothing."""
    after_import("timm.models", register)


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


def _entry(name: str, build: Callable[..., Any]) -> Callable[..., Any]:
    def entry(pretrained: bool = False, **kwargs: Any) -> Any:  # the signature timm calls
        return build(name, pretrained, **kwargs)

    entry.__name__ = entry.__qualname__ = name
    entry.__module__ = __name__  # timm lists models by the module they come from
    return entry
