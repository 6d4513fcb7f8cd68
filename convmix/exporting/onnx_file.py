"""ONNX: the trace as a file for onnxruntime, the description in metadata_props."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from convmix.artifacts.runtime.description import KEY, ExportDescription
from convmix.exporting.quantised import quantise_onnx
from convmix.speed.packages import imported, quiet

FILE = "model.onnx"


class OnnxDraft:
    """A model in memory, to be written once it has its description."""

    file = FILE

    def __init__(self, program: ExportedProgram, *, outputs: tuple[str, ...], precision: str, calibration: list[np.ndarray]) -> None:
        imported("onnxruntime", extra="export")
        imported("onnxscript", extra="export")
        with quiet():
            exported = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=["images"], output_names=list(outputs), optimize=True
            )
        assert exported is not None
        self.proto: Any = exported.model_proto
        if precision == "int8":
            self.proto = quantise_onnx(self.proto, calibration)

    def write(self, folder: Path, description: ExportDescription) -> None:
        """model.onnx, with everything that the description says inside."""
        del self.proto.metadata_props[:]
        told = {KEY: description.to_json(), "task": description.task, "labels": "\n".join(description.labels)}
        for key, value in told.items():
            entry = self.proto.metadata_props.add()
            entry.key, entry.value = key, value
        (folder / FILE).write_bytes(self.proto.SerializeToString())
