"""What an exported model says of itself: the same JSON inside the model file and beside it, in model.json.

    onnx       metadata_props["convmix"]
    openvino   rt_info["convmix"]["description"]
    torch      extra file model.json of the .pt2

Read strictly: a description that was changed by hand, or is of another version, is refused instead of half understood.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from convmix.data.preprocessing import Preprocess
from convmix.errors import ConfigError, RunError, did_you_mean
from convmix.tasks import task_class
from convmix.tasks.label_calibration import AnyCalibration

FORMAT = 1
FILE = "model.json"
KEY = "convmix"  # under which the model file holds it
ENGINES = ("onnx", "openvino", "torch")
BAKES = ("none", "normalise", "resize")
FEATURES = "features"  # the output that holds what the classifier gets, where the run knows its training images
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class ExportDescription:
    """An exported model. Raises RunError for values that do not exist or do not go together."""

    engine: str  # of ENGINES
    file: str  # the model itself, in the same folder
    task: str
    labels: tuple[str, ...]
    preprocess: Preprocess  # of the whole way from an image; how much of it is inside says `bake`
    bake: str  # of BAKES: none: normalised N,C,h,w in; normalise: pixels N,h,w,C in; resize: whole images N,H,W,C in
    is_8bit: bool  # pixels are uint8; else float32 in 0..1
    dynamic: tuple[str, ...]  # of batch, height, width: what may differ from call to call
    outputs: tuple[str, ...]  # in the order in which the graph gives them
    precision: str  # of PRECISIONS
    calibration: AnyCalibration | None
    facts: dict[str, Any]  # of convmix.json: model, run, data, metrics, training, machine, versions
    source: str | None  # the run, as a path from the folder of this file, for `convmix benchmark`; None where there is no such path
    versions: dict[str, str]  # of the packages that made the file
    verification: dict[str, Any] | None = None  # `exporting.verification.Verification` as JSON; None while it is being made

    def __post_init__(self) -> None:
        for name, choices in (("engine", ENGINES), ("bake", BAKES), ("precision", PRECISIONS)):
            if (value := getattr(self, name)) not in choices:
                raise RunError(f"{name}: {value!r} is not one of {', '.join(choices)}{did_you_mean(str(value), choices)}")
        task_class(self.task)
        if not self.labels or not all(isinstance(label, str) for label in self.labels):
            raise RunError(f"labels: {list(self.labels)!r} are not names")
        if Path(self.file).name != self.file:
            raise RunError(f"file: {self.file!r} is not the name of a file in the same folder")

    @property
    def threshold(self) -> float | None:
        """The probability below which an answer is "not sure"."""
        return self.calibration.threshold if self.calibration else None

    @property
    def input(self) -> dict[str, Any]:
        """What the graph takes, in words for other programs."""
        h, w = self.preprocess.size
        sides = [name if name in self.dynamic else side for name, side in (("height", h), ("width", w))]
        batch = "batch" if "batch" in self.dynamic else 1
        if self.bake == "none":
            return {"name": "images", "dtype": "float32", "layout": "NCHW", "shape": [batch, self.preprocess.in_chans, *sides]}
        dtype = "uint8" if self.is_8bit else "float32"
        return {"name": "images", "dtype": dtype, "layout": "NHWC", "shape": [batch, *sides, self.preprocess.in_chans]}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {
            "preprocess": self.preprocess.to_dict(),
            "calibration": self.calibration.to_dict() if self.calibration else None,
            **{name: list(values[name]) for name in ("labels", "dynamic", "outputs")},
        }
        described = {"format": FORMAT, "kind": "convmix export", **values, "threshold": self.threshold, "input": self.input}
        plain: dict[str, Any] = json.loads(json.dumps(described))
        return plain

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> "ExportDescription":
        """The inverse of `to_json`; RunError, beginning with `where`, for anything else."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{where}: no valid JSON: {str(error)[:200]}") from None
        if not isinstance(values, dict) or values.get("kind") != "convmix export":
            raise RunError(f"{where}: does not describe an exported model; expected what `convmix export` wrote")
        if values.get("format") != FORMAT:
            raise RunError(f"{where}: format {values.get('format')}, this version of convmix reads {FORMAT}")
        try:
            described = cls._from(values)
        except (ConfigError, RunError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise RunError(f"{where}: {str(error)[:300]}") from None
        if described.to_dict() != values:
            wrong = [key for key, value in described.to_dict().items() if values.get(key) != value]
            raise RunError(f"{where}: {', '.join(wrong)} cannot be right as written there; export the model again")
        return described

    @classmethod
    def _from(cls, values: Mapping[str, Any]) -> "ExportDescription":
        derived = ("format", "kind", "threshold", "input")
        known = {f.name for f in fields(cls)}
        if unknown := [key for key in values if key not in (*known, *derived)]:
            raise RunError(f"unknown key {unknown[0]}{did_you_mean(unknown[0], known)}")
        if missing := sorted(known - values.keys()):
            raise RunError(f"has no {', '.join(missing)}; export the model again")
        read = {key: value for key, value in values.items() if key in known}
        read |= {name: tuple(values[name]) for name in ("labels", "dynamic", "outputs")}
        read["preprocess"] = Preprocess.from_dict(values["preprocess"])
        calibration, task = values["calibration"], task_class(values["task"])
        read["calibration"] = None if calibration is None else task.read_calibration(calibration)
        return cls(**read)
