"""The first convolution of a new network, made from the training images: it reads their patches whitened.

Patches of photographs differ above all in brightness, which random filters answer to alike. Here every filter is a random direction among
the patches' principal components, each scaled to unit variance (whitening, after Coates & Ng 2012, "Learning feature representations with
K-means", section 3, and Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498, section 3.2), so that its answers
have about unit variance and mean zero. It is trained as any other layer from there on.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convmix.data.loaders import eval_batches
from convmix.errors import ConfigError
from convmix.training.setup import TrainingSetup

IMAGES = 400  # that the covariance is taken of: 100,000 patches of 2x2 at 32 px
LEAST_SHARE = 0.01  # of the largest variance, added to each: a component that is hardly ever there is not blown up
STREAM = 0x3B1E  # of the draws, apart from all others of a seed


def start_whitened(job: TrainingSetup) -> None:
    """Set the first convolution's weights from images of `job`'s training split; ConfigError where there are none to set."""
    run, first = job.run, first_convolution(job.model)
    if run.net.weights is not None or run.net.pretrained == "yes":
        raise ConfigError("net.whiten sets the first layer, which the weights bring; --no-whiten or no weights")
    if first is None:
        raise ConfigError(f"net.whiten: {run.model} has no convolution over all channels to begin with")
    train = job.splits["train"]
    rng = np.random.default_rng((run.seed, STREAM))
    chosen = train.select(np.sort(rng.permutation(len(train))[:IMAGES]))
    batches = eval_batches(chosen, job.task.preprocessing(job.preprocess), batch_size=32, workers=0)
    mean, covariance = patch_statistics((batch.images for batch in batches), first)
    filters = whitening_filters(covariance, first.out_channels, seed=int(rng.integers(2**31)))
    with torch.no_grad():
        first.weight.copy_(filters.reshape(first.weight.shape))
        if first.bias is not None:
            first.bias.copy_(-(filters @ mean))


def first_convolution(model: nn.Module) -> nn.Conv2d | None:
    """The layer that reads the pixels."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return first if first is not None and first.groups == 1 else None


def patch_statistics(batches: Iterable[Tensor], layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Mean d and covariance d,d (float64) of what `layer`'s filters see of images n,C,H,W; d is C times the kernel's area.

    Padded borders are left out. ConfigError where no image is left to look at.
    """
    count, sums, products = 0, torch.zeros(()), torch.zeros(())
    for images in batches:
        patches = F.unfold(images.double(), layer.kernel_size, stride=layer.stride)  # n,d,positions
        patches = patches.transpose(0, 1).flatten(1)  # d,m
        count, sums, products = count + patches.shape[1], sums + patches.sum(1), products + patches @ patches.T
    if not count:
        raise ConfigError("net.whiten: none of the training images that were looked at can be read any more")
    mean = sums / count
    return mean, products / count - torch.outer(mean, mean)


def whitening_filters(covariance: Tensor, count: int, *, seed: int) -> Tensor:
    """count,d filters, float64: random unit combinations of the components of covariance d,d, each scaled to unit variance."""
    variances, components = torch.linalg.eigh(covariance)
    if not bool(variances[-1] > 0):
        raise ConfigError("net.whiten: the training images have no contrast to whiten")
    scaled = components / (variances.clamp(min=0) + LEAST_SHARE * variances[-1]).sqrt()  # d,d: a component a column
    directions = torch.randn(count, len(covariance), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(directions, dim=1) @ scaled.T
