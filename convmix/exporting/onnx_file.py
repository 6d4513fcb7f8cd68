"""ONNX: the trace as a file for onnxruntime, the description in metadata_props."""

from collections.abc import Iterator
from contextlib import contextmanager
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
                program, dynamo=True, verbose=False, input_names=["images"], output_names=list(outputs), optimize=False
            )
            assert exported is not None
            with _no_pairs_of_slices():
                exported.optimize()
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


@contextmanager
def _no_pairs_of_slices() -> Iterator[None]:
    """onnxscript's optimizer without its one rule of two outputs, which makes a split of two slices.

    For every node the rule goes through the whole graph, which takes most of a detector's time. Where another onnxscript keeps its rules
    elsewhere, all of them are used.
    """
    from onnxscript import rewriter

    rules = getattr(rewriter, "_DEFAULT_REWRITE_RULES", ())
    if not rules:
        yield
        return
    rewriter._DEFAULT_REWRITE_RULES = tuple(rule for rule in rules if rule.name != "SlicesSplit")
    try:
        yield
    finally:
        rewriter._DEFAULT_REWRITE_RULES = rules
