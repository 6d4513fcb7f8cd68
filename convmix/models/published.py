"""What others published: where the weights are, how they are fed, what their authors reported.

The accuracies are the source's, never a result of this project.
"""

from dataclasses import dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_TIMM_RERUN = "timm results-imagenet.csv (re-run of the authors' weights, ImageNet-1k validation, 224 px)"
_CONVMLP_README = "README of github.com/SHI-Labs/Convolutional-MLPs (ImageNet-1k validation, 224 px)"
_AUTHORS = "https://github.com/tmp-iclr/convmixer/releases/download/v1.0/"
_SHI = "https://shi-labs.com/projects/convmlp/checkpoints/"


@dataclass(frozen=True)
class Published:
    """One published set of ImageNet-1k weights."""

    hub_id: str | None  # Hugging Face repository with model.safetensors
    url: str  # the authors' own file; fetched where there is no hub_id
    activation: str | None  # what a ConvMixer file does not say of itself
    top1: float  # percent, as reported by `source`
    top5: float | None  # percent
    source: str
    crop_pct: float  # share of the resized short side that the centre crop keeps
    size: tuple[int, int] = (224, 224)  # height, width, in pixels
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    num_classes: int = 1000


PUBLISHED: dict[str, Published] = {
    "convmixer_1536_20": Published(
        "timm/convmixer_1536_20.in1k", _AUTHORS + "convmixer_1536_20_ks9_p7.pth.tar", "gelu", 81.382, 95.618, _TIMM_RERUN, 0.96
    ),
    "convmixer_768_32": Published(
        "timm/convmixer_768_32.in1k", _AUTHORS + "convmixer_768_32_ks7_p7_relu.pth.tar", "relu", 80.158, 95.070, _TIMM_RERUN, 0.96
    ),
    "convmixer_1024_20_ks9_p14": Published(
        "timm/convmixer_1024_20_ks9_p14.in1k", _AUTHORS + "convmixer_1024_20_ks9_p14.pth.tar", "gelu", 76.944, 93.364, _TIMM_RERUN, 0.96
    ),
    "convmlp_s": Published(None, _SHI + "convmlp_s_imagenet.pth", None, 76.8, None, _CONVMLP_README, 0.9),
    "convmlp_m": Published(None, _SHI + "convmlp_m_imagenet.pth", None, 79.0, None, _CONVMLP_README, 0.9),
    "convmlp_l": Published(None, _SHI + "convmlp_l_imagenet.pth", None, 80.2, None, _CONVMLP_README, 0.9),
}
