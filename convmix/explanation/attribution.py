"""Where in an image the evidence for a class lies, by four methods of captum: images N,C,H,W, classes N -> maps N,H,W.

    saliency              the input gradient, averaged over noisy copies, squared (SmoothGrad: Smilkov et al. 2017, arXiv 1706.03825)
    integrated_gradients  the gradient along the way from a grey image, times the difference (Sundararajan et al. 2017, arXiv 1703.01365)
    gradcam               the channels of a late map, weighted by their mean gradient (Selvaraju et al. 2017, arXiv 1610.02391)
    occlusion             how far the class's output falls where a grey window covers the image (Zeiler & Fergus 2014, arXiv 1311.2901)

Grey is 0 after normalisation, the mean colour of the data. All explain the raw output, before the softmax, since a probability near 1 has
no slope.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convmix.errors import ConfigError, did_you_mean
from convmix.explanation.hooked_copy import images_per_pass, seeded
from convmix.explanation.stages import Layer, as_nchw

NOISY_COPIES = 12
NOISE = 0.15  # standard deviation of the noise over the image's range; the paper finds 0.1 to 0.2 good
PATH_STEPS = 16
WINDOWS = 8  # positions of the occluding window per side, at most
OVERLAP = 2  # windows over every pixel, per direction


def saliency(model: nn.Module, image: Tensor, target: int, layer: Layer | None) -> Tensor:
    """1,C,H,W -> H,W, not negative.

    Averaged first and squared then: the mean of sizes keeps what the noise itself brings in, and shows edges whatever the weights (LOG.md).
    """
    from captum.attr import NoiseTunnel, Saliency

    spread = float(image.max() - image.min())
    with seeded(image.device):
        gradients = NoiseTunnel(Saliency(model)).attribute(
            image.requires_grad_(),
            nt_type="smoothgrad",
            nt_samples=NOISY_COPIES,
            nt_samples_batch_size=_per_pass(image),
            stdevs=max(NOISE * spread, 1e-6),
            target=target,
            abs=False,
        )
    return gradients.square().sum(1)[0]  # 1,C,H,W -> H,W


def integrated_gradients(model: nn.Module, image: Tensor, target: int, layer: Layer | None) -> Tensor:
    """1,C,H,W -> H,W, negative where a pixel speaks against the class; the sum is the output minus that of a grey image."""
    from captum.attr import IntegratedGradients

    parts = IntegratedGradients(model).attribute(
        image.requires_grad_(),
        baselines=torch.zeros_like(image),
        target=target,
        n_steps=PATH_STEPS,
        internal_batch_size=_per_pass(image),
    )
    return parts.sum(1)[0]  # 1,C,H,W -> H,W


def gradcam(model: nn.Module, image: Tensor, target: int, layer: Layer | None) -> Tensor:
    """1,C,H,W -> H,W, not negative, as coarse as the layer."""
    from captum.attr import LayerAttribution, LayerGradCam

    assert layer is not None, "the caller leaves Grad-CAM out where there is no layer for it"
    with as_nchw(model, layer) as passage:
        coarse = LayerGradCam(model, passage).attribute(image.requires_grad_(), target=target, relu_attributions=True)  # 1,1,h,w
    return LayerAttribution.interpolate(coarse, tuple(image.shape[2:]), interpolate_mode="bilinear")[0, 0].detach()


def occlusion(model: nn.Module, image: Tensor, target: int, layer: Layer | None) -> Tensor:
    """1,C,H,W -> H,W, negative where covering helps the class."""
    from captum.attr import Occlusion

    channels, height, width = image.shape[1:]
    strides = [max(1, -(-side // WINDOWS)) for side in (height, width)]
    windows = [min(side, OVERLAP * stride) for side, stride in zip((height, width), strides, strict=True)]
    with torch.no_grad():
        falls = Occlusion(model).attribute(
            image,
            sliding_window_shapes=(channels, *windows),
            strides=(channels, *strides),
            baselines=0,
            target=target,
            perturbations_per_eval=_per_pass(image),
        )
    return falls[0, 0]  # the same for every channel


METHODS: dict[str, Callable[[nn.Module, Tensor, int, Layer | None], Tensor]] = {
    "saliency": saliency,
    "integrated_gradients": integrated_gradients,
    "gradcam": gradcam,
    "occlusion": occlusion,
}


def attribute(model: nn.Module, images: Tensor, targets: Sequence[int], *, method: str, layer: Layer | None) -> Tensor:
    """Maps N,H,W on the CPU: how much each pixel of images N,C,H,W speaks for the output `targets` (N) of a specimen.

    One image at a time, so that a map does not depend on its neighbours. layer: where Grad-CAM reads, of `layers.map_layer`.
    """
    run = METHODS[method]
    maps = [run(model, image.detach().clone()[None], int(target), layer) for image, target in zip(images, targets, strict=True)]
    return torch.stack([m.detach().float().cpu() for m in maps])


def check_methods(methods: Sequence[str]) -> tuple[str, ...]:
    """The methods asked for, each once; ConfigError for one that does not exist, and where captum is missing."""
    wanted = dict.fromkeys([methods] if isinstance(methods, str) else methods)
    for name in wanted:
        if name not in METHODS:
            raise ConfigError(f"methods: {name} is not one of {', '.join(METHODS)}{did_you_mean(name, METHODS)}")
    if wanted:
        _import_captum()
    return tuple(wanted)


def _import_captum() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries that captum loads
            import captum.attr
    except ImportError:
        raise ConfigError("captum is not installed, and maps of an image are made by it; pip install 'convmix[explain]'") from None
    return captum.attr


def _per_pass(image: Tensor) -> int:
    return images_per_pass(*image.shape[2:])
