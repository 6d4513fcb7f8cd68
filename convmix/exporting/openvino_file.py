"""OpenVINO: the trace as model.xml and model.bin, the description in rt_info."""

from pathlib import Path
from typing import Any

import numpy as np
from torch.export import ExportedProgram

from convmix.artifacts.runtime.description import KEY, ExportDescription
from convmix.exporting.quantised import quantise_openvino
from convmix.speed.packages import imported, quiet

FILE = "model.xml"


class OpenvinoDraft:
    """A model in memory, to be written once it has its description.

    fp16: weights are stored in half precision. bf16: stored as they are and computed in bf16, which the description asks of the engine.
    """

    file = FILE

    def __init__(self, program: ExportedProgram, *, outputs: tuple[str, ...], precision: str, calibration: list[np.ndarray]) -> None:
        self.ov = imported("openvino", extra="export")
        with quiet():
            self.model: Any = self.ov.convert_model(program)
        self.model.inputs[0].set_names({"images"})
        for output, name in zip(self.model.outputs, outputs, strict=True):
            output.set_names({name})
        if precision == "int8":
            self.model = quantise_openvino(self.model, calibration)
        self.compressed = precision == "fp16"

    def write(self, folder: Path, description: ExportDescription) -> None:
        """model.xml and model.bin, with everything that the description says inside."""
        told = {"description": description.to_json(), "task": description.task, "labels": "\n".join(description.labels)}
        for key, value in told.items():
            self.model.set_rt_info(value, [KEY, key])
        self.ov.save_model(self.model, folder / FILE, compress_to_fp16=self.compressed)
