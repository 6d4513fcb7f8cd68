"""Named recipes: where each comes from and what it should reach.

A recipe is a function from facts about the data to a complete `Run`; the published ones ignore the facts.
`expect` is what the source reports for it, never a result of this project.
"""

from collections.abc import Callable
from dataclasses import replace

from convmix.config import Augment, Data, Dense, Net, Optim, Run, Schedule
from convmix.data.facts import DataFacts
from convmix.errors import ConfigError, did_you_mean

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FULL_RATIO = (3 / 4, 4 / 3)
FAST_FROM = 5_000  # training images of 17 to 64 pixels: the fewest that Muon, whitening and the linear schedule were measured on (LOG.md)
TINY, SMALL = 16, 64  # longer sides up to which images are so, pixels
SHORT_S = 0.03  # of a budget on a CPU for each training image, under which a narrower network learns more


def convmixer_imagenet(_: DataFacts) -> Run:
    return Run(
        model="convmixer_1536_20",
        source="locuslab/convmixer README and the defaults of its timm fork (batch 10 x 64, weight decay 2e-5)",
        expect="1536/20: 81.4 % ImageNet top-1 (paper, 150 epochs); 768/32: 80.2 % with --epochs 300",
        data=Data(size=(224, 224), crop_pct=0.96, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        augment=Augment(
            scale=(0.08, 1.0), ratio=FULL_RATIO, hflip=0.5, randaugment="rand-m9-mstd0.5-inc1", random_interpolation=True,
            mixup=0.5, cutmix=0.5, erasing=0.25,
        ),
        optim=Optim(lr=0.01, weight_decay=2e-5, eps=1e-3, batch_size=640, clip_grad=1.0, label_smoothing=0.1, decay_norm_bias=False),
        schedule=Schedule(schedule="triangular", epochs=150),
    )  # fmt: skip


def _convmixer_cifar10(epochs: int, expect: str, augment: Augment, optim: Optim, model: str = "convmixer_256_8") -> Run:
    return Run(
        model=model,
        source="locuslab/convmixer-cifar10, train.py and README",
        expect=expect,
        data=Data(size=(32, 32), crop_pct=1.0, mean=CIFAR_MEAN, std=CIFAR_STD),
        augment=augment,
        optim=optim,
        schedule=Schedule(schedule="triangular", epochs=epochs),
    )


def convmixer_cifar10(_: DataFacts) -> Run:
    return _convmixer_cifar10(
        25,
        "92.6 % CIFAR-10 test accuracy after 25 epochs, without random crops",
        Augment(hflip=0.5, randaugment="torchvision-n2-m12"),
        Optim(lr=0.05, weight_decay=0.005, batch_size=512),
    )


def convmixer_cifar10_100(_: DataFacts) -> Run:
    return _convmixer_cifar10(
        100,
        "more than 94 % CIFAR-10 test accuracy after 100 epochs",
        Augment(hflip=0.5, randaugment="torchvision-n2-m12", color_jitter=0.2, erasing=0.2, erasing_mode="const"),
        Optim(lr=0.05, weight_decay=0.005, batch_size=512),
    )


def convmixer_cifar10_200(_: DataFacts) -> Run:
    return _convmixer_cifar10(
        200,
        "95.89 % CIFAR-10 test accuracy with kernel 9, patch 1 (locuslab/convmixer#15; the paper says 96.03 %)",
        Augment(
            scale=(0.75, 1.0), ratio=FULL_RATIO, hflip=0.5, randaugment="rand-m9-mstd0.5-inc1", mixup=0.5, cutmix=0.5,
            erasing=0.25, random_interpolation=True,
        ),
        Optim(lr=0.01, weight_decay=0.01, eps=1e-3, batch_size=64, clip_grad=1.0, label_smoothing=0.1, decay_norm_bias=False),
        model="convmixer_256_8_k9_p1",
    )  # fmt: skip


def convmixer_cifar10_fast(facts: DataFacts) -> Run:
    """Fewer epochs than the authors' for the same accuracy: a whitened patches, Muon for the pointwise convolutions, light crops."""
    return Run(
        model=_small_model(facts),
        source="convmix: chosen one by one on held-out training images of CIFAR-10, see LOG.md",
        net=Net(whiten=True),
        data=Data(size=(32, 32), crop_pct=1.0, mean=CIFAR_MEAN, std=CIFAR_STD),
        augment=Augment(pad=2, hflip=0.5),
        optim=Optim(
            optimizer="muon", lr=0.04, adamw_share=0.25, momentum=0.95, weight_decay=0.01, eps=1e-3, batch_size=64, clip_grad=1.0,
            label_smoothing=0.1, decay_norm_bias=False,
        ),
        schedule=Schedule(schedule="linear", epochs=25),
    )  # fmt: skip


def _small_model(facts: DataFacts) -> str:
    """For images of up to 64 pixels: half as wide where a budget leaves a CPU less than `SHORT_S` for each training image.

    Two cores of a Xeon take 4 ms for an image of 32 px in a training step of ConvMixer-256/8, and 2 ms for one of 128/8.
    """
    short = facts.cpu_budget_s is not None and facts.cpu_budget_s < SHORT_S * facts.num_train
    return "convmixer_128_8_k5_p2" if short else "convmixer_256_8"


def convmlp_imagenet(_: DataFacts) -> Run:
    return Run(
        model="convmlp_s",
        source="SHI-Labs/Convolutional-MLPs, configs/classification (8 x 128 images a step, seed 42)",
        expect="ImageNet top-1: S 76.8 %, M 79.0 %, L 80.2 %",
        net=Net(drop_path=0.1),
        data=Data(size=(224, 224), crop_pct=0.9, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        augment=Augment(
            scale=(0.08, 1.0), ratio=FULL_RATIO, hflip=0.5, randaugment="rand-m9-mstd0.5-inc1", mixup=0.8, cutmix=1.0, erasing=0.25,
        ),
        optim=Optim(lr=5e-4, weight_decay=0.05, batch_size=1024, label_smoothing=0.1, ema_decay=0.99996, decay_norm_bias=False),
        schedule=Schedule(epochs=300, cooldown_epochs=10, warmup_epochs=5, min_lr=1e-5),
        seed=42,
    )  # fmt: skip


def convmlp_finetune(_: DataFacts) -> Run:
    return Run(
        model="convmlp_s",
        source="SHI-Labs/Convolutional-MLPs, configs/classification/finetuned (CIFAR settings, 8 processes)",
        expect="from ImageNet weights, CIFAR-10: S 98.0 %, M and L 98.6 %; CIFAR-100: 87.4, 89.1, 88.6 %; Flowers-102: 99.5 %",
        net=Net(drop_path=0.1, pretrained="yes"),
        data=Data(size=(224, 224), crop_pct=1.0),
        augment=Augment(
            scale=(0.8, 1.0), ratio=FULL_RATIO, hflip=0.5, randaugment="rand-m9-mstd0.5-inc1", mixup=0.8, cutmix=1.0, erasing=0.25,
        ),
        optim=Optim(lr=3e-4, weight_decay=0.05, batch_size=1024, label_smoothing=0.1, decay_norm_bias=False),
        schedule=Schedule(epochs=50, cooldown_epochs=10, warmup_epochs=10, min_lr=1e-5),
    )  # fmt: skip


def classic(facts: DataFacts) -> Run:
    base = _base(facts)
    return Run(
        model="multiscale_convmixer_t" if max(facts.height, facts.width) <= 64 else "multiscale_convmixer_s",
        source="the article on the multi-scale ConvMixer (see models/multiscale.py): Adam, steps of 20,000, early stopping",
        data=base.data,
        augment=Augment(scale=(0.5, 1.0), ratio=FULL_RATIO, hflip=0.5, color_jitter=0.4),
        optim=Optim(optimizer="adam", lr=1e-3, weight_decay=0.0, batch_size=128),
        schedule=Schedule(schedule="step", epochs=1000, step_size=20_000, step_gamma=0.1, patience=10),
    )


def default(facts: DataFacts) -> Run:
    """Adapts to the images, to how many there are and to the model.

    Many small images that no model is named for get the settings of `convmixer_cifar10_fast`, which were measured on such.
    """
    side, base = max(facts.height, facts.width), _base(facts)
    if facts.model is not None or not TINY < side <= SMALL or facts.num_train < FAST_FROM:
        return base
    fast = convmixer_cifar10_fast(facts)
    source = "convmix: the settings of the recipe convmixer_cifar10_fast, for images of that size"
    return replace(fast, source=source, data=base.data, schedule=replace(fast.schedule, epochs=base.schedule.epochs))


def _base(facts: DataFacts) -> Run:
    """For any images and model; scaling and clipping, the paper's two decisive knobs, are on.

    A ConvMixer takes the authors' large rate with a large epsilon; anything with layer norms or attention a usual AdamW rate.
    """
    side = max(facts.height, facts.width)
    tiny, small = side <= TINY, side <= SMALL
    size = round(side) if small else 128
    model = facts.model or ("convmixer_96_6_k3_p1" if tiny else "convmixer_256_8" if small else "convmixer_256_8_k7_p8")
    batch_norms = model.startswith(("convmixer", "multiscale_convmixer"))
    optim = Optim(lr=0.01, eps=1e-3, weight_decay=0.01) if batch_norms else Optim(lr=3e-4, weight_decay=0.05)
    return Run(
        model=model,
        source="convmix: AdamW, one triangular cycle, clipping and mild scaling, by the paper's CIFAR-10 ablation",
        data=Data(size=(size, size), crop_pct=1.0 if small else 0.9),
        augment=Augment(scale=(0.6, 1.0) if small else (0.35, 1.0), ratio=FULL_RATIO, hflip=0.0 if tiny else 0.5),
        optim=replace(optim, batch_size=64, clip_grad=1.0, decay_norm_bias=False),
        schedule=Schedule(schedule="triangular", epochs=max(30, min(100, round(300_000 / max(1, facts.num_train))))),
    )


def multilabel(facts: DataFacts) -> Run:
    """The default, but for objects anywhere on the image: crops that keep nearly all of it, since a label whose object is cut away is
    wrong, and a pooling through which a small object is not averaged away. Patches so that no more positions are computed than for 32 px.
    """
    base = _base(facts)
    side = max(facts.height, facts.width)
    own = facts.model is None
    return replace(
        base,
        model="convmixer_256_8_k5_p4" if own and 32 < side <= 64 else base.model,
        source="convmix: the recipe default with crops and a pooling for several objects an image",
        net=Net(model_args='{"global_pool": "avgmax"}') if own else base.net,
        augment=replace(base.augment, scale=(0.85, 1.0)),
    )


def finetune(facts: DataFacts) -> Run:
    """From weights that exist: the classifier first, to convergence on the frozen features, then all layers, the earlier the slower.

    The size is that of the weights where these say one. Batch norms keep their statistics: a batch of a few photos has poor ones.
    """
    base = _base(facts)
    return replace(
        base,
        source="convmix: LP-FT (Kumar et al. 2022, arXiv 2202.10054) with timm's layer decay",
        net=Net(head_first=True, freeze="statistics"),
        data=replace(base.data, drop_last=False),
        augment=Augment(scale=(0.5, 1.0), ratio=FULL_RATIO, hflip=0.5),
        optim=Optim(lr=2e-4, weight_decay=0.01, layer_decay=0.75, batch_size=32, clip_grad=1.0, decay_norm_bias=False),
        schedule=Schedule(
            schedule="cosine", epochs=max(2, min(12, round(6_000 / max(1, facts.num_train)))), warmup_epochs=0.5, warmup_lr=1e-6,
        ),
    )  # fmt: skip


def digits(facts: DataFacts) -> Run:
    base = _base(facts)  # its split is one that was not looked at while these settings were found (LOG.md)
    return replace(
        base,
        model="convmixer_96_6_k3_p1",
        source="convmix: scikit-learn's 8x8 digits, on a laptop in about a minute",
        data=replace(base.data, size=(8, 8), crop_pct=1.0, in_chans=1, test_fraction=0.2, split_seed=7),
        augment=Augment(pad=1),
        schedule=Schedule(schedule="triangular", epochs=30, keep="last"),
    )


def detect_1x(facts: DataFacts) -> Run:
    return Run(
        model="convmlp_s",
        source="SHI-Labs/Convolutional-MLPs, configs for COCO 2017 (RetinaNet, 8 x 2 images); images letterboxed to one size here",
        expect="COCO AP: S 37.2, M 39.4, L 40.2 %, from ImageNet weights",
        net=Net(pretrained="yes"),
        dense=Dense(taps="authors"),
        data=Data(task="detect", size=(800, 1333), fit="letterbox", interpolation="bilinear", mean=IMAGENET_MEAN, std=IMAGENET_STD),
        augment=Augment(hflip=0.5),
        optim=Optim(lr=1e-4, weight_decay=1e-4, batch_size=16),
        schedule=Schedule(
            schedule="step", epochs=12, milestones=(8, 11), warmup_epochs=_epochs_of(500, 16, facts), warmup_lr=1e-7, keep="last",
        ),
    )  # fmt: skip


def instances_1x(facts: DataFacts) -> Run:
    boxes = detect_1x(facts)
    return replace(
        boxes,
        source=boxes.source.replace("RetinaNet", "Mask R-CNN"),
        expect="COCO box AP: S 38.4, M 40.6, L 41.7 %; mask AP: 35.7, 37.2, 38.2 %, from ImageNet weights",
        data=replace(boxes.data, task="instances"),
    )


def segment_40k(facts: DataFacts) -> Run:
    return Run(
        model="convmlp_s",
        source="SHI-Labs/Convolutional-MLPs, configs for ADE20K (8 x 4 images, 40,000 steps); crops of 512x683, evaluated letterboxed here",
        expect="ADE20K mean IoU: S 35.8, M 38.6, L 40.0 %, from ImageNet weights",
        net=Net(pretrained="yes"),
        dense=Dense(taps="authors"),
        data=Data(task="segment", size=(512, 683), fit="letterbox", interpolation="bilinear", mean=IMAGENET_MEAN, std=IMAGENET_STD),
        augment=Augment(hflip=0.5, zoom=(0.5, 2.0), max_class_share=0.75, color_jitter=0.5),
        optim=Optim(lr=2e-4, weight_decay=1e-4, batch_size=32),
        schedule=Schedule(schedule="poly", epochs=max(1, round(_epochs_of(40_000, 32, facts))), keep="last"),
    )


def _epochs_of(steps: int, batch_size: int, facts: DataFacts) -> float:
    return steps / max(1, facts.num_train // batch_size)


def _dense_small(facts: DataFacts) -> Run:
    """What the dense tasks share on hundreds of images, from scratch: narrow heads, the median image with 320 pixels on its longer side."""
    return Run(
        model="convmlp_t",
        source="convmix: for sets of hundreds of images, from scratch",
        dense=Dense(pyramid_channels=96),
        data=Data(size=_size_for(facts, longer=320), fit="letterbox", interpolation="bilinear"),
        optim=Optim(lr=5e-4, weight_decay=0.05, batch_size=8, clip_grad=1.0, decay_norm_bias=False),
        schedule=Schedule(schedule="triangular", epochs=60),
    )


def detect_small(facts: DataFacts) -> Run:
    """Boxes, with anchors that begin at the data's own small objects."""
    base = _dense_small(facts)
    height, width = _size_for(facts, longer=320)
    side = 32.0 if facts.small_object is None else facts.small_object * (height * width) ** 0.5  # pixels of the input
    return replace(
        base,
        dense=replace(base.dense, smallest_anchor=float(min(max(round(side), 8), 32))),
        data=replace(base.data, task="detect"),
        augment=Augment(hflip=0.5, zoom=(0.7, 1.5), color_jitter=0.2),
    )


def instances_small(facts: DataFacts) -> Run:
    """Boxes with outlines."""
    boxes = detect_small(facts)
    return replace(boxes, data=replace(boxes.data, task="instances"))


def segment_small(facts: DataFacts) -> Run:
    """A class per pixel."""
    base = _dense_small(facts)
    return replace(
        base,
        data=replace(base.data, task="segment"),
        augment=Augment(hflip=0.5, zoom=(0.7, 2.0), color_jitter=0.3),
        schedule=replace(base.schedule, epochs=40),
    )


def _size_for(facts: DataFacts, *, longer: int) -> tuple[int, int]:
    """The median image with its longer side at most `longer`, sides rounded up to whole 16 pixels."""
    shrink = min(1.0, longer / max(facts.height, facts.width))
    height, width = (max(32, -(-round(side * shrink) // 16) * 16) for side in (facts.height, facts.width))
    return height, width


RECIPES: dict[str, Callable[[DataFacts], Run]] = {
    "default": default,
    "multilabel": multilabel,
    "finetune": finetune,
    "digits": digits,
    "classic": classic,
    "convmixer_cifar10": convmixer_cifar10,
    "convmixer_cifar10_100": convmixer_cifar10_100,
    "convmixer_cifar10_200": convmixer_cifar10_200,
    "convmixer_cifar10_fast": convmixer_cifar10_fast,
    "convmixer_imagenet": convmixer_imagenet,
    "convmlp_imagenet": convmlp_imagenet,
    "convmlp_finetune": convmlp_finetune,
    "detect_small": detect_small,
    "detect_1x": detect_1x,
    "instances_small": instances_small,
    "instances_1x": instances_1x,
    "segment_small": segment_small,
    "segment_40k": segment_40k,
}


def recipe(name: str, facts: DataFacts) -> Run:
    """The named recipe for data with these facts; ConfigError names the nearest one."""
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name}{did_you_mean(name, RECIPES)} (recipes: {', '.join(RECIPES)})")
    return replace(RECIPES[name](facts), recipe=name)
