"""The names of timm's models without importing timm, which takes seconds: from its registry where it is imported, else from its sources."""

import importlib.util
import re
import sys
from pathlib import Path

_FILE = re.compile(r"^from \.(\w+) import \*", re.MULTILINE)
_ENTRY = re.compile(r"^@register_model\b.*\ndef (\w+)\(", re.MULTILINE)


def timm_names() -> list[str]:
    """What `timm.list_models()` returns, in its order."""
    names = set() if "timm.models" in sys.modules else _names_in_sources()
    if names:
        return sorted(names, key=_natural)
    import timm

    return timm.list_models()


def _names_in_sources() -> set[str]:
    """The functions that timm's files register; none where there are no sources to read."""
    spec = importlib.util.find_spec("timm")
    folders = spec.submodule_search_locations if spec else None
    try:
        models = Path((folders or [""])[0]) / "models"
        files = [models / f"{name}.py" for name in _FILE.findall((models / "__init__.py").read_text("utf-8"))]
        return {name for file in files for name in _ENTRY.findall(file.read_text("utf-8"))}
    except OSError:
        return set()


def _natural(name: str) -> list[int | str]:
    """resnet9 before resnet10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.lower())]
