"""convmix's models in timm's registry, without paying for timm where nobody uses it.

timm takes seconds to import and `import convmix` must not, but after both `timm.create_model("convmlp_s")` has to work in whichever order
they come. timm's own entries are never touched.

    name -> entry point, description, and where there are published weights their tag, as in `convmlp_s.shi_in1k`
"""

import sys
from collections.abc import Callable
from typing import Any

from convmix.ops.after_import import after_import

# A family's own name is an architecture of any size, for configurations that hold the sizes. timm builds every name it lists without being
# told any: then these of the size named here.
_WITHOUT_SIZES = {
    "convmixer": ("convmixer_256_8", ("dim", "depth")),
    "convmlp": ("convmlp_s", ("blocks", "dims", "mlp_ratios")),
    "multiscale_convmixer": ("multiscale_convmixer_t", ("dim", "depth")),
}


def install() -> None:
    """Make convmix's models known to timm, now or as soon as timm is imported; calling it again changes nothing."""
    after_import("timm.models", register)


def register() -> None:
    """Enter every name of `catalog.registered_names` in timm's registry, with what is known of its weights."""
    from timm.models import is_model, register_model

    from convmix.models import catalog, timm_configs

    module: Any = sys.modules[__name__]
    sizes = {name: _sizes(name) for name in catalog.registered_names()}
    described = [(name, family, catalog.describe_for_timm(name, catalog.Spec(family, args))) for name, (family, args) in sizes.items()]
    module.default_cfgs = timm_configs.default_cfgs(described)  # where timm looks when a name is entered
    for name in sizes:
        if not is_model(name):
            entry = _entry(name, catalog.build_for_timm)
            setattr(module, name, entry)
            register_model(entry)


def _sizes(name: str) -> tuple[str, dict[str, Any]]:
    """The family of a registered name, and the arguments it is built with where nobody gives others."""
    from convmix.models.catalog import NAMED

    if name not in _WITHOUT_SIZES:
        return NAMED[name].family, dict(NAMED[name].arguments)
    like, required = _WITHOUT_SIZES[name]
    return name, {key: NAMED[like].arguments[key] for key in required}


def _entry(name: str, build: Callable[..., Any]) -> Callable[..., Any]:
    def entry(pretrained: bool = False, **kwargs: Any) -> Any:  # the signature timm calls
        sizes = _sizes(name)[1] if name in _WITHOUT_SIZES else {}
        return build(name, pretrained, **({} if kwargs.keys() & sizes.keys() else sizes), **kwargs)

    entry.__name__ = entry.__qualname__ = name
    entry.__module__ = __name__  # timm lists models by the module they come from
    return entry
