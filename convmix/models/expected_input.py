"""The images that weights were made for, as the weights themselves say it: never taken from the data that they are to learn next.

    convmix.json or config.json beside the weights     what a training or the Hub wrote
    else the header of a safetensors file              pretrained_cfg as JSON, or mean, std, input_size, ... each as JSON
    else what is published under the model's name      `published.PUBLISHED`, or timm's configuration of that name
    else ImageNet's mean and std                       and the line for the user says that nothing was known

Read only: the files belong to whoever wrote them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from convmix.errors import WeightsError
from convmix.models.catalog import find
from convmix.models.checkpoint import read_header
from convmix.models.published import IMAGENET_MEAN, IMAGENET_STD, PUBLISHED

Fit = Literal["crop", "letterbox", "stretch"]
Interpolation = Literal["bicubic", "bilinear", "nearest"]

_KEYS = ("input_size", "mean", "std", "crop_pct", "interpolation", "crop_mode")
_FITS: dict[str, Fit] = {"center": "crop", "border": "letterbox", "squash": "stretch"}  # timm's crop_mode


@dataclass(frozen=True)
class ExpectedInput:
    """What is known of the images that weights were made for; None where nothing is said."""

    origin: str  # who says so, for people
    mean: tuple[float, ...]  # per channel, of pixels in 0..1
    std: tuple[float, ...]
    size: tuple[int, int] | None = None  # height, width, in pixels
    crop_pct: float | None = None
    interpolation: Interpolation | None = None
    fit: Fit | None = None

    def for_channels(self, channels: int) -> "ExpectedInput":
        """The same for images of another number of channels, as the stem is adapted: one channel is the mean of three, more repeat them."""
        if channels == len(self.mean):
            return self
        if channels == 1:
            return replace(self, mean=(sum(self.mean) / len(self.mean),), std=(sum(self.std) / len(self.std),))
        mean, std = (tuple(values[i % len(values)] for i in range(channels)) for values in (self.mean, self.std))
        return replace(self, mean=mean, std=std)


def expected_input(name: str, weights: str | Path | None) -> ExpectedInput:
    """The images for which the weights of the model `name` were made; `weights`: a file or model directory, None for published ones.

    Raises WeightsError where a description lies beside the weights and cannot be read.
    """
    if weights is not None:
        path = Path(weights)
        folder = path if path.is_dir() else path.parent
        beside = path.is_dir() or path.name in ("model.safetensors", "pytorch_model.bin")
        trained = _json(folder / "convmix.json") if beside and (folder / "convmix.json").is_file() else {}
        if "preprocess" in trained:
            return _from_convmix(trained["preprocess"], origin=str(folder / "convmix.json"))
        if beside and (folder / "config.json").is_file():
            described = _json(folder / "config.json")
            if found := _from_timm(described.get("pretrained_cfg") or described, origin=str(folder / "config.json")):
                return found
        if path.is_file() and (found := _from_timm(_of_header(path), origin=f"the header of {path.name}")):
            return found
    if found := _published(name):
        return found
    return ExpectedInput(f"ImageNet's, for lack of any other: nothing is written down for {name}", IMAGENET_MEAN, IMAGENET_STD)


def _published(name: str) -> ExpectedInput | None:
    if name in PUBLISHED:
        p = PUBLISHED[name]
        return ExpectedInput(f"as published for {name}", p.mean, p.std, p.size, p.crop_pct, _interpolation(p.interpolation), "crop")
    source, _, place = name.partition(":")
    if find(name) is not None:
        return None
    from timm.models import get_pretrained_cfg
    from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

    try:
        if source == "local-dir":
            values = load_model_config_from_path(place)[0]
        elif source == "hf-hub":
            values = load_model_config_from_hf(place)[0]
        else:
            registered = get_pretrained_cfg(name)
            values = registered.to_dict() if registered else {}
    except Exception:  # an unknown tag, a folder that is missing, no network: building the model says which
        return None
    return _from_timm(values, origin=f"timm's for {name}" if not place else name)


def _from_timm(values: Mapping[str, Any], *, origin: str) -> ExpectedInput | None:
    """timm's pretrained_cfg; None where it holds neither mean nor std."""
    try:
        mean, std = (tuple(float(v) for v in values.get(key) or ()) for key in ("mean", "std"))
        if not mean or len(mean) != len(std):
            return None
        size = values.get("input_size")
        return ExpectedInput(
            origin, mean, std,
            size=(int(size[1]), int(size[2])) if size else None,
            crop_pct=float(values["crop_pct"]) if values.get("crop_pct") else None,
            interpolation=_interpolation(values.get("interpolation")),
            fit=_FITS.get(values.get("crop_mode") or "center"),
        )  # fmt: skip
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise WeightsError(f"{origin} does not describe a model's input: {error}; give --size, --mean and --std") from None


def _from_convmix(values: Mapping[str, Any], *, origin: str) -> ExpectedInput:
    try:
        mean, std, size = (tuple(values[key]) for key in ("mean", "std", "size"))
        return ExpectedInput(origin, mean, std, cast(Any, size), float(values["crop_pct"]), values["interpolation"], values["fit"])
    except (TypeError, ValueError, KeyError) as error:
        raise WeightsError(f"{origin} does not describe a model's input: {error}; give --size, --mean and --std") from None


def _interpolation(value: object) -> Interpolation | None:
    """timm's word for it; another filter, or chance, is none of ours."""
    return cast(Interpolation, value) if value in ("bicubic", "bilinear", "nearest") else None


def _of_header(path: Path) -> dict[str, Any]:
    header = read_header(path)
    try:
        if "pretrained_cfg" in header:
            return dict(json.loads(header["pretrained_cfg"]))
        return {key: _value(header[key]) for key in _KEYS if key in header}
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its header does not describe a model's input: {error}; give --size, --mean and --std") from None


def _value(text: str) -> Any:
    """JSON, or a bare word such as bicubic."""
    return text if text.isalpha() else json.loads(text)


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise WeightsError(f"{path} is not valid JSON") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds a {type(values).__name__}, expected an object that describes a model")
    return values
