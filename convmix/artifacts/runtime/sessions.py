"""An exported graph in its engine: an array of images in, the named arrays of the graph out.

open_session(folder / "model.onnx", description) -> Session
session(images) -> {"logits": N,k, "probabilities": N,k}
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from convmix.artifacts.runtime.description import FILE, KEY, ExportDescription
from convmix.errors import ConvmixError, RunError, first_line
from convmix.speed.packages import imported, openvino_core, quiet

PACKAGE = "model.aoti.pt2"  # beside model.pt2: the same, compiled for processors like the one it was exported on
# OpenVINO's hint for a precision, and the name of the capability that a processor needs for it; every processor computes in fp32.
_HINTS = {"fp32": ("f32", "FP32"), "bf16": ("bf16", "BF16"), "fp16": ("f16", "FP16")}


class Session(Protocol):
    """A loaded graph."""

    def __call__(self, images: np.ndarray, /) -> dict[str, np.ndarray]: ...


def inside(path: Path) -> str | None:
    """The description in a model file, unread; None where it holds none. RunError where the file cannot be opened."""
    try:
        return _INSIDE[path.suffix](path)
    except ConvmixError:
        raise
    except Exception as error:  # engines raise whatever they like about a file that is not theirs
        raise RunError(f"{path} cannot be read: {first_line(error)}") from None


def open_session(path: Path, description: ExportDescription) -> Session:
    """The model file in the engine of its suffix; RunError where it cannot be opened, UnavailableError where the engine is missing."""
    opens = _package if path.name == PACKAGE else _OPEN[path.suffix]
    try:
        with quiet():
            return opens(path, description)
    except ConvmixError:
        raise
    except Exception as error:
        raise RunError(f"{path} cannot be opened: {first_line(error)}") from None


def _onnx(path: Path, description: ExportDescription) -> Session:
    ort = imported("onnxruntime", extra="export")
    session = ort.InferenceSession(str(path), _onnx_options(ort), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True))


def _onnx_options(ort: Any) -> Any:
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    return options


def _openvino(path: Path, description: ExportDescription) -> Session:
    core = openvino_core(extra="export")
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hint, needed = _HINTS.get(description.precision, (None, ""))  # int8: what the engine thinks best
    if hint is not None and (description.precision == "fp32" or needed in capabilities):
        settings["INFERENCE_PRECISION_HINT"] = hint
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    names = description.outputs

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found = compiled(images)
        return {name: np.array(found[i]) for i, name in enumerate(names)}  # copies: the buffers are reused

    return run


def _program(path: Path, description: ExportDescription) -> Session:
    with _without_pickles():
        program = torch.export.load(str(path))
    return _of_torch(program.module(), description)


def _package(path: Path, description: ExportDescription) -> Session:
    from torch._inductor import aoti_load_package

    return _of_torch(aoti_load_package(str(path)), description)


def _of_torch(graph: Callable[..., dict[str, torch.Tensor]], description: ExportDescription) -> Session:
    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode(False), torch.no_grad():
            found = graph(torch.from_numpy(np.ascontiguousarray(images)))
        return {name: found[name].numpy() for name in description.outputs}

    return run


@contextmanager
def _without_pickles() -> Iterator[None]:
    """torch.export.load falls back to full pickles for tensors that it cannot read otherwise; inside it raises instead."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _inside_onnx(path: Path) -> str | None:
    ort = imported("onnxruntime", extra="export")
    session = ort.InferenceSession(str(path), _onnx_options(ort), providers=["CPUExecutionProvider"])
    text: str | None = session.get_modelmeta().custom_metadata_map.get(KEY)
    return text


def _inside_openvino(path: Path) -> str | None:
    model = openvino_core(extra="export").read_model(path)
    return model.get_rt_info([KEY, "description"]).astype(str) if model.has_rt_info([KEY, "description"]) else None


def _inside_program(path: Path) -> str | None:
    """From the archive itself: loading the whole program costs seconds."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.endswith(f"/extra/{FILE}")]
        return archive.read(found[0]).decode() if found else None


_INSIDE: dict[str, Callable[[Path], str | None]] = {".onnx": _inside_onnx, ".xml": _inside_openvino, ".pt2": _inside_program}
_OPEN: dict[str, Callable[[Path, ExportDescription], Session]] = {".onnx": _onnx, ".xml": _openvino, ".pt2": _program}
SUFFIXES = tuple(_OPEN)
