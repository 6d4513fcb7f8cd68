"""The folder of an experiment: what it was begun with, so that it can go on with nothing else, and its results.

    KIND.json   settings, data, results
    trials/     a model directory per training

Which contenders and how many seeds there are may change from call to call: a training that is done stays valid whoever stands beside it.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from convmix.atomic import write_json
from convmix.comparison.study import Study, plain
from convmix.errors import RunError
from convmix.hardware import describe_machine

FORMAT = 1


class ExperimentLog:
    """An experiment's folder; `values` is what its JSON file holds."""

    def __init__(self, out: Path, kind: str, *, begun_with: Mapping[str, Any], study: Study) -> None:
        """Begin a folder, or go on with one; RunError, naming the difference, where it was begun with other settings or other data."""
        self.out, self.file = out, out / f"{kind}.json"
        self.values: dict[str, Any] = {
            "format": FORMAT,
            "kind": kind,
            "begun_with": plain({"data": study.data, "recipe": study.recipe, **begun_with, "settings": dict(study.settings)}),
            "data": {"name": Path(study.data).name, "fingerprint": study.fingerprint, **study.counts},
        }
        if self.file.exists():
            self._go_on(study)
        elif out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunError(f"{out} exists already and holds no {kind}; give another --out")
        self.save({"seeds": list(study.seeds)})

    def save(self, values: Mapping[str, Any]) -> None:
        """Write the file with these further values, and with when and where."""
        stamp = {
            "date": datetime.now(UTC).date().isoformat(),
            "versions": {name: version(name) for name in ("convmix", "torch", "timm")},
        }
        self.values |= {**stamp, **plain(dict(values))}
        write_json(self.file, self.values)

    def _go_on(self, study: Study) -> None:
        try:
            saved = json.loads(self.file.read_bytes())
            if saved["format"] != FORMAT:
                raise RunError(f"{self.file}: format {saved['format']}, this version of convmix reads {FORMAT}; give another --out")
            then, now = _flat(saved["begun_with"]), _flat(self.values["begun_with"])
            fingerprint = saved["data"]["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.file} cannot be read ({type(error).__name__}: {error}); give another --out") from None
        for key in sorted(then.keys() | now.keys()):
            old, new = then.get(key), now.get(key)
            if old != new and not (key == "data" and Path(str(old)).resolve() == Path(str(new)).resolve()):
                raise RunError(f"{self.out} was begun with {key} {_said(old)}, not {_said(new)}; give the same, or another --out")
        if fingerprint != study.fingerprint:
            raise RunError(f"{study.data} has changed since {self.out} was begun; bring the old data back, or give another --out")
        self.values = saved


def machine(study: Study) -> dict[str, Any]:
    """What the record says about where it was measured."""
    return describe_machine(study.device)


def _flat(begun_with: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in begun_with.items() if key != "settings"}, **begun_with["settings"]}


def _said(value: Any) -> str:
    return "left out" if value is None else str(value)
