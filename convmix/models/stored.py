"""What a model directory says of its network, held against its weights before anything is built or fetched.

config.json: architecture, model_args  ->  Network  --fits-->  the header of model.safetensors: name -> type and shape, no tensor read
"""

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convmix.documents import checked
from convmix.errors import RunError
from convmix.models import catalog

LONGEST_NAME = 200
LARGEST = 2**17  # of any number among a network's arguments: the widest layers anybody trained have a tenth of it
MOST = 1000  # values in a list of them
_DEPTHS = ("depth", "blocks")  # of ours: as many modules with weights of their own
_FLOATS = ("F64", "F32", "F16", "BF16")
_TYPES = {"BOOL": "bool", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "C64": "complex64"}


@dataclass(frozen=True)
class Network:
    """A name of the catalog and further arguments of its constructor."""

    architecture: str
    model_args: dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """A tensor of a weight file, as its header has it."""

    dtype: str  # as safetensors spells it
    shape: tuple[int, ...]


def described_network(config: Mapping[str, Any], *, where: str) -> Network:
    """The network that a config.json names.

    Raises RunError for what is missing or no network, and for a name with a scheme, such as hf-hub: or local-dir:, which would be fetched
    or followed: a directory is all that it is.
    """
    for key in ("architecture", "model_args"):
        if key not in config:
            raise RunError(f"{where} has no {key}; expected what `convmix train` wrote")
    name = checked(config["architecture"], str, where=f"{where}: architecture")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise RunError(f"{where}: architecture: {name[:60]!r}... is not the name of a model")
    if any(sign in name for sign in ":/\\"):
        raise RunError(f"{where}: architecture: {name!r} leads out of the directory, expected the name of a model, as resnet18")
    arguments = checked(config["model_args"], dict[str, Any], where=f"{where}: model_args")
    for key, value in arguments.items():
        _check_size(value, f"{where}: model_args.{key}", depth=0)
    return Network(name, arguments)


def _check_size(value: object, where: str, *, depth: int) -> None:
    if isinstance(value, (list, tuple, dict)):
        if len(value) > MOST or depth > 3:
            raise RunError(f"{where}: {str(value)[:60]}... is not an argument of a network")
        for inner in value.values() if isinstance(value, dict) else value:
            _check_size(inner, where, depth=depth + 1)
    elif isinstance(value, (int, float)) and not abs(value) <= LARGEST:
        raise RunError(f"{where}: {value} is too large, expected at most {LARGEST}")


def header_of(file: Path) -> dict[str, Stored]:
    """Names, types and shapes of a safetensors file. FileNotFoundError where there is none, RunError where it is none."""
    from safetensors import SafetensorError, safe_open

    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise RunError(f"{file} cannot be read: not a regular file")
        with safe_open(str(file), framework="pt") as f:
            slices = {name: f.get_slice(name) for name in f.keys()}  # noqa: SIM118 (safe_open has no __iter__)
            return {name: Stored(part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise RunError(f"{file} cannot be read: {(str(error).splitlines() or [''])[0][:200]}") from None


def refuse_other_weights(
    network: Network, build: Callable[[], nn.Module], header: Mapping[str, Stored], *, weights: Path, config: Path
) -> None:
    """RunError where the file's tensors are not those of the network, which is built without memory to find out.

    A few cannot be; what they hold is then found out when they are filled.
    """
    spec = catalog.find(network.architecture)
    sizes = {**(spec.arguments if spec else {}), **network.model_args}
    for key, value in sizes.items():
        _check_size(value, f"{config}: {key} of {network.architecture}", depth=0)
        layers = sum(v for v in value if isinstance(v, int)) if isinstance(value, (list, tuple)) else value
        if spec and key in _DEPTHS and isinstance(layers, int) and layers > len(header):
            raise RunError(f"{weights} has {len(header)} tensors, too few for the {layers} layers that {config} names")
    try:
        with torch.device("meta"):
            built = build().state_dict()
    except Exception:  # a network that looks at numbers while it is built; what else is wrong is said when it is built in earnest
        return
    _compare(built, header, weights=weights, config=config)


def _compare(built: Mapping[str, torch.Tensor], header: Mapping[str, Stored], *, weights: Path, config: Path) -> None:
    if missing := [name for name in built if name not in header]:
        raise RunError(f"{weights} has no {missing[0]}{_more(missing)}, which the network that {config} names has")
    if unknown := [name for name in header if name not in built]:
        raise RunError(f"{weights} has {unknown[0]}{_more(unknown)}, which the network that {config} names has not")
    for name, tensor in built.items():
        stored = header[name]
        if stored.shape != tuple(tensor.shape):
            raise RunError(f"{weights}: {name} is {list(stored.shape)}, the network that {config} names has {list(tensor.shape)}")
        if tensor.is_floating_point() != (stored.dtype in _FLOATS) or _TYPES.get(stored.dtype) == "complex64":
            kind = _TYPES.get(stored.dtype, stored.dtype)
            raise RunError(f"{weights}: {name} is of type {kind}, expected {str(tensor.dtype).removeprefix('torch.')}")


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
