"""A weight file or model directory -> tensors by name, without ever executing what a pickle holds.

Files of every trainer wrap the state dict differently; the wrapping comes off here, the names stay as they are (`origins.py` maps them).
"""

import argparse
import re
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from convmix.documents import checked, read_object
from convmix.errors import RunError, WeightsError, first_line

Prefer = Literal["ema", "raw"]

_IN_A_DIRECTORY = ("model.safetensors", "pytorch_model.bin")
_EMA_KEYS = ("state_dict_ema", "model_ema")
_RAW_KEYS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.", "ema.", "ema_model.", "model.", "net.")


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds and what it says of itself."""

    tensors: dict[str, Tensor]  # on the CPU, names as in the file, without wrapper prefixes
    activation: str | None = None  # "relu", "gelu", ... where the file or the config.json beside it declares it


def read_checkpoint(path: str | Path, *, prefer: Prefer = "ema") -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth, .pt, .bin or .pth.tar file, or of a directory with model.safetensors.

    Of a file with both, the moving average (`state_dict_ema`, `model_ema`) is taken, as timm does; `prefer="raw"` takes the other.
    Raises WeightsError, in one line, for a file that is missing, empty, truncated, no weight file, or holds more than data.
    """
    return open_checkpoint(path, prefer=prefer).tensors


def open_checkpoint(path: str | Path, *, prefer: Prefer = "ema") -> Checkpoint:
    """`read_checkpoint` with what the file declares of itself."""
    file = _file_of(Path(path))
    with file.open("rb") as f:
        head = f.read(16)
    if not head:
        raise WeightsError(f"{file}: the file is empty, expected weights (.safetensors, .pth, .pt, .bin or .pth.tar)")
    if file.suffix == ".safetensors" or head[8:9] == b"{":
        tensors, metadata = _read_safetensors(file)
    else:
        tensors, metadata = _unwrap(file, _read_pickle(file), prefer), {}
    if not tensors:
        raise WeightsError(f"{file}: no tensors inside, expected a state dict")
    _refuse_other_numbers(file, tensors)
    return Checkpoint(_strip_prefixes(tensors), _declared_activation(file, metadata))


def read_header(path: str | Path) -> dict[str, str]:
    """What the header of a safetensors file says beside its tensors; nothing of any other file."""
    from safetensors import SafetensorError, safe_open

    file = _file_of(Path(path))
    with file.open("rb") as f:
        if file.suffix != ".safetensors" and f.read(16)[8:9] != b"{":
            return {}
    try:
        with safe_open(str(file), framework="pt", device="cpu") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError, ValueError) as e:
        raise WeightsError(f"{file}: truncated or not a safetensors file ({first_line(e, 120)})") from None


def _refuse_other_numbers(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Whole and complex numbers would be taken for weights without a word, rounded or cut."""
    for name, tensor in tensors.items():
        is_weight = name.rpartition(".")[2] in ("weight", "bias", "running_mean", "running_var")
        if tensor.is_complex() or (is_weight and not tensor.is_floating_point()):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise WeightsError(f"{file}: {name} holds numbers of type {kind}, expected floating point")


def _file_of(path: Path) -> Path:
    if path.is_dir():
        found = [path / name for name in _IN_A_DIRECTORY if (path / name).is_file()]
        if not found:
            raise WeightsError(f"{path}: no {' or '.join(_IN_A_DIRECTORY)} in this directory; expected a model directory or a weight file")
        return found[0]
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file or model directory")
    return path


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt", device="cpu") as f:
            return {name: f.get_tensor(name) for name in f.keys()}, dict(f.metadata() or {})  # noqa: SIM118 (safe_open has no __iter__)
    except (SafetensorError, OSError, ValueError) as e:
        raise WeightsError(f"{file}: truncated or not a safetensors file ({first_line(e, 120)})") from None


def _read_pickle(file: Path) -> object:
    try:
        with warnings.catch_warnings(), _harmless_globals():
            warnings.simplefilter("ignore")  # old files use storage classes that torch deprecates
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as e:  # a broken pickle can raise anything at all
        named = re.search(r"(?:GLOBAL|global:?|class) ((?:\w+\.)+\w+)", str(e))
        if "weights_only" in str(e).lower() and named:
            raise WeightsError(
                f"{file}: holds a Python object ({named[1]}) beside tensors; such files are never executed. "
                "Save model.state_dict() alone, best as .safetensors, and give that file"
            ) from None
        raise WeightsError(f"{file}: truncated or not a PyTorch weight file ({first_line(e, 120)})") from None


class _Inert:
    """Stands in for a logger's class, so that its state loads as dead attributes."""

    def __setstate__(self, state: object) -> None:
        pass


def _harmless_globals() -> AbstractContextManager[object]:
    """What published files hold beside tensors: the trainer's arguments, numpy scalars, mmengine's log buffers."""
    import numpy as np

    multiarray: Any = import_module("numpy._core.multiarray")
    allowed: list[Any] = [argparse.Namespace, np.dtype, np.ndarray]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1 and numpy 2 spell it differently
        allowed += [(multiarray.scalar, f"{module}.scalar"), (multiarray._reconstruct, f"{module}._reconstruct")]
    allowed += [type(np.dtype(t)) for t in ("float64", "float32", "int64", "int32", "bool")]
    allowed += [(_Inert, f"mmengine.logging.{name}") for name in ("history_buffer.HistoryBuffer", "message_hub.MessageHub")]
    return torch.serialization.safe_globals(allowed)


def _unwrap(file: Path, content: object, prefer: Prefer) -> dict[str, Tensor]:
    keys = (*_EMA_KEYS, *_RAW_KEYS) if prefer == "ema" else (*_RAW_KEYS, *_EMA_KEYS)
    for _ in range(4):  # {"state_dict": {"model": {...}}} is as deep as trainers go
        if not isinstance(content, Mapping):
            raise WeightsError(f"{file}: holds a {type(content).__name__}, expected tensors by name")
        inner = next((content[k] for k in keys if isinstance(content.get(k), Mapping) and content[k]), None)
        if inner is None:
            break
        content = inner
    assert isinstance(content, Mapping)
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor) and k != "n_averaged"}  # a counter of torch's EMA
    if not tensors:
        found = ", ".join(map(str, list(content)[:4])) or "nothing"
        raise WeightsError(f"{file}: no tensors inside (found {found}), expected a state dict")
    return tensors


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` without the prefixes that wrappers (DDP, torch.compile, EMA, Lightning) put before every name."""
    while prefix := next((p for p in _PREFIXES if all(k.startswith(p) for k in tensors)), None):
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return tensors


def _declared_activation(file: Path, metadata: Mapping[str, str]) -> str | None:
    """The activation from a safetensors header, or from the config.json beside a model directory's weights."""
    declared = next((metadata[k] for k in ("activation", "act_layer", "act") if k in metadata), None)
    config = file.with_name("config.json")
    if declared is None and file.name in _IN_A_DIRECTORY and config.is_file():
        declared = _activation_of_config(config)
    return declared.strip('"').lower() if declared else None


def _activation_of_config(config: Path) -> str | None:
    try:
        values = read_object(config)
        args = checked(values.get("model_args") or {}, dict[str, Any], where="model_args")
    except RunError as error:
        raise WeightsError(f"{config}: not readable as a model's config.json: {error}") from None
    name = str(values.get("architecture", ""))
    declared = next((args[k] for k in ("activation", "act_layer", "act") if isinstance(args.get(k), str)), None)
    if declared or not name.startswith("convmixer"):
        return declared
    return "relu" if name == "convmixer_768_32" or name.endswith("_relu") else "gelu"
