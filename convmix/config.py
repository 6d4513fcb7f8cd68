"""What a training run is: frozen dataclasses, one per subject, read strictly.

    recipe(facts) -> Run -> override(Run, {"lr": 1e-3, "optim.weight_decay": 0.05}) -> Run -> to_dict -> convmix.json

A setting's name is unique over all sections, so `lr` and `optim.lr` mean the same; the command line is generated from these fields.
"""

import dataclasses
import json
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from convmix.conversion import as_type, expected, near_choice
from convmix.documents import shown
from convmix.errors import ConfigError, did_you_mean

Size = tuple[int, int]  # height, width, in pixels
Chosen = Literal["auto", "classify", "multilabel", "detect", "instances", "segment"]
Layout = Literal[
    "auto", "folders", "table", "parquet", "shards", "voc", "yolo", "coco", "labelme", "labelstudio", "cvat", "via", "createml", "bdd100k",
    "kitti", "dota", "masks", "hub",
]  # fmt: skip


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Net:
    """How the model is built and where its weights start."""

    drop_path: float | None = _setting(None, "stochastic depth rate of the last block (None: the model's own default)")
    dropout: float = _setting(0.0, "dropout before the classifier")
    model_args: str | None = _setting(None, 'further arguments of the model as JSON, such as {"combine": "split"}')
    pretrained: Literal["auto", "yes", "no"] = _setting("auto", "start from published weights; auto: for photos, where they can be had")
    weights: str | None = _setting(None, "start from this weight file or model directory")
    grad_checkpointing: bool = _setting(False, "recompute activations in the backward pass to save memory")
    freeze: Literal["none", "statistics", "backbone"] = _setting(
        "none", "statistics: batch norms keep those of the weights; backbone: train the classifier alone (linear probe)"
    )
    whiten: bool = _setting(False, "from scratch: the first convolution begins with filters that whiten the training images' patches")
    head_first: bool = _setting(False, "fit the classifier to the features of the frozen backbone before anything else is trained")


@dataclass(frozen=True)
class Data:
    """What an image becomes before the model sees it, and how the data set is split."""

    task: Chosen = _setting("auto", "what is learned: a class or several per image, boxes, outlines, a class per pixel; auto: as labelled")
    layout: Layout = _setting("auto", "how the data is read; auto: as what lies there says, which `convmix inspect` shows")
    size: Size | None = _setting(None, "model input in pixels, N or HxW (None: chosen from the images)")
    in_chans: int = _setting(3, "channels per image: 3 RGB, 1 grey, 4 RGBA, else multi-band TIFF or .npy")
    fit: Literal["crop", "letterbox", "stretch"] = _setting("crop", "how an image is brought to the input size")
    interpolation: Literal["bicubic", "bilinear", "nearest"] = _setting("bicubic", "resampling filter")
    crop_pct: float | None = _setting(None, "centre crop as a share of the resized short side (None: by size)")
    mean: tuple[float, ...] | None = _setting(None, "per channel, of pixels in 0..1 (None: from the data or the weights)")
    std: tuple[float, ...] | None = _setting(None, "per channel, of pixels in 0..1 (None: from the data or the weights)")
    val_fraction: float = _setting(0.1, "share of the training images held out where no validation split is given")
    test_fraction: float = _setting(0.1, "share of the training images held out where no test split is given")
    split_seed: int = _setting(0, "seed of the splits made here, apart from the seed of the training")
    train_images: int | None = _setting(None, "train on so many images, every class in proportion, drawn with split_seed (None: all)")
    image_column: str | None = _setting(None, "table column with the image or its path (None: found by name)")
    label_column: str | None = _setting(None, "table column with the class (None: found by name)")
    max_pixels: int = _setting(100_000_000, "an image with more pixels counts as broken")
    value_range: tuple[float, float] | None = _setting(
        None, "darkest and brightest value of 16-bit images (None: those of the training images where they use a small part of 0,65535)"
    )
    balanced: bool = _setting(False, "draw every class equally often")
    drop_last: bool = _setting(True, "leave out what does not fill a batch; no: every image each epoch, in batches of nearly equal size")
    shuffle_shards: int = _setting(0, "read shard after shard and mix the images of so many; 0: mix all, which needs fast random access")
    workers: int | None = _setting(None, "processes that decode and augment (None: by the number of cores)")
    augment_on: Literal["auto", "workers", "device"] = _setting("auto", "where images change at random; auto: the workers")
    cache_gib: float = _setting(4.0, "GiB for decoded images, at most a quarter of the free memory; a split is kept whole or not at all")


@dataclass(frozen=True)
class Augment:
    """Random changes of the training images; all off by default."""

    scale: tuple[float, float] = _setting((1.0, 1.0), "random resized crop: range of area shares; 1,1 is off")
    ratio: tuple[float, float] = _setting((1.0, 1.0), "random resized crop: range of aspect ratios")
    zoom: tuple[float, float] = _setting((1.0, 1.0), "dense tasks: range of scales, 1 is the image as it is evaluated")
    max_class_share: float = _setting(1.0, "class maps: a crop that one class fills more of is drawn again, ten times at most")
    pad: int = _setting(0, "pad by so many pixels, then crop at random")
    hflip: float = _setting(0.0, "probability of a horizontal flip")
    vflip: float = _setting(0.0, "probability of a vertical flip")
    color_jitter: float = _setting(0.0, "strength of brightness, contrast and saturation jitter")
    randaugment: str = _setting("", "RandAugment: timm's such as rand-m9-mstd0.5-inc1, or torchvision-n2-m9; empty is off")
    random_interpolation: bool = _setting(False, "draw the resampling filter at random while training")
    mixup: float = _setting(0.0, "mixup alpha; 0 is off")
    cutmix: float = _setting(0.0, "CutMix alpha; 0 is off")
    mix_prob: float = _setting(1.0, "probability that a batch is mixed")
    mix_switch_prob: float = _setting(0.5, "probability of CutMix where both are on")
    erasing: float = _setting(0.0, "probability of random erasing")
    erasing_mode: Literal["const", "rand", "pixel"] = _setting("pixel", "what erased rectangles are filled with")


@dataclass(frozen=True)
class Dense:
    """The pyramid and the heads of detection and segmentation."""

    taps: Literal["blocks", "authors"] = _setting(
        "blocks",
        "ConvMLP's features: normalised, behind the blocks of every stride; or the authors' raw ones, which their checkpoints need",
    )
    pyramid_channels: int = _setting(256, "channels of the pyramid and of the heads")
    smallest_anchor: float | None = _setting(
        None, "side of the smallest anchor box in pixels of the model's input (None: 4 times the finest stride, 8 times with outlines)"
    )


@dataclass(frozen=True)
class Optim:
    """The optimiser, the loss and what stands between gradient and step."""

    optimizer: str = _setting("adamw", "any of timm's optimisers")
    lr: float = _setting(1e-3, "peak learning rate")
    weight_decay: float = _setting(0.05, "weight decay")
    decay_norm_bias: bool = _setting(True, "apply weight decay to norms and biases too")
    eps: float = _setting(1e-8, "the optimiser's epsilon")
    momentum: float = _setting(0.9, "momentum of SGD-like optimisers")
    adamw_share: float = _setting(1.0, "Muon: learning rate of what it leaves to AdamW (all but the inner matrices) as a share of lr")
    batch_size: int = _setting(128, "images per optimiser step, over all processes")
    accumulate: int = _setting(1, "parts a batch is split into to save memory")
    clip_grad: float = _setting(0.0, "gradient norm limit; 0 is off")
    label_smoothing: float = _setting(0.0, "label smoothing")
    class_weights: Literal["none", "balanced"] = _setting("none", "balanced: weight the loss by inverse class frequency")
    label_loss: Literal["bce", "asymmetric"] = _setting("bce", "several labels: binary cross-entropy, or one that forgives easy negatives")
    gamma_positive: float = _setting(0.0, "asymmetric loss: focusing on hard positives; 0 is off")
    gamma_negative: float = _setting(4.0, "asymmetric loss: focusing on hard negatives; 0 is off")
    negative_margin: float = _setting(0.05, "asymmetric loss: a negative of a smaller probability counts as nothing")
    label_precision: float | None = _setting(None, "several labels: thresholds that keep this precision on val (None: of best F1)")
    ema_decay: float = _setting(0.0, "decay of the moving average of the weights; 0 is off")
    teacher: str | None = _setting(None, "a trained run, or a published model by name, whose answers are learned too (distillation)")
    teacher_weights: str | None = _setting(None, "weight file of a teacher that is named (None: its published weights)")
    teacher_share: float = _setting(0.7, "share of the teacher's answers in the loss; the rest is the true labels'")
    teacher_temperature: float = _setting(2.0, "what logits are divided by before the teacher's answers and the model's are compared")
    unlabelled: str | None = _setting(None, "a folder of images without labels, of which the teacher's answers are learned")
    unlabelled_share: float = _setting(0.5, "their share of the images of a step, on top of batch_size")
    layer_decay: float = _setting(1.0, "learning rate of a layer as a share of that of the layer behind it; 1 is off")


@dataclass(frozen=True)
class Schedule:
    """How long, and the learning rate as a pure function of the step."""

    schedule: Literal["triangular", "linear", "cosine", "step", "poly", "constant"] = _setting("cosine", "shape of the learning rate")
    epochs: int = _setting(30, "passes over the training images")
    warmup_epochs: float = _setting(0.0, "epochs of linear warm-up (all but triangular and linear)")
    warmup_lr: float = _setting(1e-6, "learning rate at the start of the warm-up")
    min_lr: float = _setting(0.0, "learning rate at the end of the cosine")
    cooldown_epochs: int = _setting(0, "epochs at min_lr after the cosine, on top of epochs")
    step_size: int = _setting(20_000, "step schedule: optimiser steps between two drops")
    step_gamma: float = _setting(0.1, "step schedule: factor of a drop")
    milestones: tuple[float, ...] = _setting(
        (), "step schedule: epochs after which it drops, instead of step_size; they scale with a budget"
    )
    power: float = _setting(0.9, "poly schedule: exponent of the share of steps that is left")
    keep: Literal["best", "last"] = _setting("best", "weights to keep: of the best validation epoch, or of the last")
    patience: int = _setting(0, "stop after so many epochs without a better validation score; 0 is off")
    budget: str | None = _setting(None, "wall-clock limit such as 10m or 1h30m; the schedule is fitted to it")


@dataclass(frozen=True)
class Run:
    """One training run, complete."""

    model: str = _setting("convmixer_256_8", "a convmix or timm model name")
    recipe: str = ""
    source: str = ""  # where the recipe's numbers come from
    expect: str = ""  # what the source reports for it; never a result of this project
    net: Net = Net()
    dense: Dense = Dense()
    data: Data = Data()
    augment: Augment = Augment()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    seed: int = _setting(0, "seed of initialisation, order and augmentation")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = _setting("auto", "auto: bf16 where the hardware is fast at it")
    tune: Literal["auto", "never", "always"] = _setting(
        "auto", "time a few steps to choose layout, number type and compiling; auto: where the run is long enough to gain"
    )
    parallel: Literal["ddp", "fsdp"] = _setting(
        "ddp", "several processes: ddp, each with the whole model; fsdp, each with its part of weights, gradients and optimiser state"
    )
    sync_batch_norm: bool = _setting(False, "several processes: batch norms see the batch of all of them, not their own part")
    tracker: str | None = _setting(None, "tensorboard or another of accelerate's trackers")
    save_every: float = _setting(60.0, "seconds between two saves inside an epoch")

    def __post_init__(self) -> None:
        validate(self)


SECTIONS = ("net", "dense", "data", "augment", "optim", "schedule")


@dataclass(frozen=True)
class Setting:
    """One field of `Run` or of a section: what the command line and the error messages need to know of it."""

    name: str
    section: str  # "" for the fields of Run itself
    type: Any
    help: str

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name


def settings() -> Iterator[Setting]:
    """Every setting a user can override."""
    for section, cls in (("", Run), *((s, type(getattr(Run, s))) for s in SECTIONS)):
        hints = typing.get_type_hints(cls)
        for f in dataclasses.fields(cls):
            if "help" in f.metadata:
                yield Setting(f.name, section, hints[f.name], f.metadata["help"])


def override(run: Run, values: Mapping[str, object]) -> Run:
    """`run` with settings replaced; keys are names (`lr`) or paths (`optim.lr`), values are checked and converted.

    Raises ConfigError for an unknown setting (naming the nearest one) and for a value of the wrong kind.
    """
    known = {s.name: s for s in settings()} | {s.path: s for s in settings()}
    changed: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        key = key.replace("-", "_")
        if key not in known:
            raise ConfigError(f"unknown setting {key}{did_you_mean(key, known)}")
        s = known[key]
        changed.setdefault(s.section, {})[s.name] = _convert(s, value)
    top = changed.pop("", {})
    sections = {name: dataclasses.replace(getattr(run, name), **values) for name, values in changed.items()}
    return dataclasses.replace(run, **top, **sections)


def to_dict(run: Run) -> dict[str, Any]:
    """Plain JSON values; `from_dict` reads them back."""
    return dataclasses.asdict(run)


def from_dict(values: Mapping[str, Any]) -> Run:
    """The inverse of `to_dict`; an unknown key is an error."""
    flat: dict[str, object] = {}
    labels = {k: values[k] for k in ("recipe", "source", "expect") if k in values}
    for key, value in values.items():
        if key in labels:
            continue
        if key in SECTIONS:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{key}: {shown(value)} is not an object of settings")
            flat |= {f"{key}.{name}": v for name, v in value.items()}
        else:
            flat[key] = value
    return override(Run(**labels), flat)


def parse_duration(text: str) -> float:
    """Seconds in '90', '90s', '10m', '1h30m'; raises ConfigError for anything else or for nothing at all."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    parts = match.groups() if match else (None, None, None)
    seconds = sum(float(p) * units[u] for p, u in zip(parts, "hms", strict=True) if p)
    if seconds <= 0:
        raise ConfigError(f"budget: {text!r} is not a duration; expected a form like 90s, 10m or 1h30m")
    return seconds


def model_arguments(net: Net) -> dict[str, object]:
    """`net.model_args` as a dictionary; ConfigError where it is no JSON object."""
    try:
        arguments = json.loads(net.model_args or "{}")
    except ValueError as error:
        raise ConfigError(f"net.model_args: {net.model_args!r} is no JSON ({error})") from None
    if not isinstance(arguments, dict):
        raise ConfigError(f'net.model_args: {net.model_args!r} is no JSON object; expected a form like {{"combine": "split"}}')
    return arguments


def _convert(setting: Setting, value: object) -> Any:
    """`value`, perhaps text from a command line or a list from JSON, as the setting's type."""
    try:
        return as_type(setting.type, value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{setting.path}: {shown(value)} is not {expected(setting.type)}{near_choice(setting.type, value)}") from None


def validate(run: Run) -> None:
    """Raises ConfigError where a value is outside its range, naming the setting and the range."""
    at_least: dict[str, float] = {
        "optim.batch_size": 1, "optim.accumulate": 1, "schedule.epochs": 1, "data.in_chans": 1, "schedule.step_size": 1, "optim.lr": 0,
        "optim.weight_decay": 0, "optim.clip_grad": 0, "optim.gamma_positive": 0, "optim.gamma_negative": 0, "augment.mixup": 0,
        "augment.cutmix": 0, "augment.pad": 0, "augment.color_jitter": 0, "schedule.patience": 0, "schedule.warmup_epochs": 0,
        "schedule.min_lr": 0, "schedule.cooldown_epochs": 0, "data.max_pixels": 1, "seed": 0, "data.split_seed": 0, "save_every": 0,
        "data.workers": 0, "data.cache_gib": 0, "data.train_images": 1, "data.shuffle_shards": 0, "dense.pyramid_channels": 8,
        "schedule.power": 0, "optim.teacher_temperature": 0.1, "optim.adamw_share": 0,
    }  # fmt: skip
    shares = (
        "augment.hflip", "augment.vflip", "augment.mix_prob", "augment.mix_switch_prob", "augment.erasing", "net.dropout",
        "optim.label_smoothing", "net.drop_path", "optim.ema_decay", "data.val_fraction", "data.test_fraction", "optim.negative_margin",
        "optim.label_precision", "optim.layer_decay", "optim.teacher_share", "optim.unlabelled_share",
    )  # fmt: skip
    for path, low in at_least.items():
        value = _value(run, path)
        if value is not None and not value >= low:
            raise ConfigError(f"{path}: {value} is too small, expected at least {low:g}")
    for path in shares:
        value = _value(run, path)
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"{path}: {value} is outside 0..1")
    below_one = ("data.test_fraction", "data.val_fraction", "net.drop_path", "net.dropout", "optim.ema_decay", "optim.label_smoothing")
    for path in (*below_one, "optim.negative_margin", "optim.unlabelled_share"):
        if _value(run, path) == 1:
            raise ConfigError(f"{path}: 1 is too large, expected less than 1")
    if run.data.val_fraction + run.data.test_fraction >= 1:
        raise ConfigError("data.val_fraction + data.test_fraction leave nothing to train on; their sum must be below 1")
    if run.data.crop_pct is not None and not 0 < run.data.crop_pct <= 1:
        raise ConfigError(f"data.crop_pct: {run.data.crop_pct} is outside 0..1")
    if run.data.value_range is not None and not 0 <= run.data.value_range[0] < run.data.value_range[1] <= 65535:
        raise ConfigError(f"data.value_range: {run.data.value_range} is not a range inside 0..65535, darkest first")
    low, high = run.augment.scale
    if not 0 < low <= high <= 1:
        raise ConfigError(f"augment.scale: {low},{high} is not a range inside 0..1, smaller first")
    low, high = run.augment.zoom
    if not 0 < low <= high:
        raise ConfigError(f"augment.zoom: {low},{high} is not a range of positive numbers, smaller first")
    if not 0 < run.augment.max_class_share <= 1:
        raise ConfigError(f"augment.max_class_share: {run.augment.max_class_share} is outside 0..1")
    if run.dense.smallest_anchor is not None and not run.dense.smallest_anchor > 0:
        raise ConfigError(f"dense.smallest_anchor: {run.dense.smallest_anchor} must be positive")
    if run.dense.pyramid_channels % 2:
        raise ConfigError(f"dense.pyramid_channels: {run.dense.pyramid_channels} is odd, expected an even number")
    if list(run.schedule.milestones) != sorted(run.schedule.milestones) or min(run.schedule.milestones, default=1) <= 0:
        raise ConfigError(f"schedule.milestones: {run.schedule.milestones} must be positive epochs, the earliest first")
    if run.data.size is not None and min(run.data.size) < 1:
        raise ConfigError(f"data.size: {run.data.size} must be positive")
    if run.optim.batch_size % run.optim.accumulate:
        raise ConfigError(f"optim.accumulate: {run.optim.accumulate} does not divide the batch of {run.optim.batch_size}")
    if run.data.shuffle_shards and run.data.balanced:
        raise ConfigError("data.shuffle_shards and data.balanced exclude each other: rare images would be fetched from every shard")
    if run.parallel == "fsdp" and run.precision == "fp16":
        raise ConfigError("parallel: fsdp trains in bf16 or fp32, not in fp16, whose loss scale would have to be agreed on")
    model_arguments(run.net)
    if run.net.pretrained == "yes" and run.net.weights is not None:
        raise ConfigError("net.pretrained and net.weights exclude each other; a weight file is loaded instead of the published weights")
    if run.schedule.budget is not None:
        parse_duration(run.schedule.budget)


def _value(run: Run, path: str) -> Any:
    value: Any = run
    for part in path.split("."):
        value = getattr(value, part)
    return value
