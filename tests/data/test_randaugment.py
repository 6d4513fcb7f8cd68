"""RandAugment draws and changes exactly as the libraries do that recipes name; its strings are tested with the transform."""

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision.transforms

from convmix.data.augment.randaugment import rand_augment


@pytest.mark.parametrize("num_ops", [1, 2])
@pytest.mark.parametrize("magnitude", [0, 12, 30])
def test_torchvisions_is_torchvisions(num_ops: int, magnitude: int) -> None:
    ours = rand_augment(f"torchvision-n{num_ops}-m{magnitude}", size=(32, 32), mean=(0.5,) * 3, interpolation="bicubic")
    theirs = torchvision.transforms.RandAugment(num_ops=num_ops, magnitude=magnitude)
    rng = np.random.default_rng(0)
    for seed in range(60):
        size = (32, 32) if seed % 2 else (20, 48)
        image = PIL.Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
        torch.manual_seed(seed)
        expected = np.asarray(theirs(image))
        torch.manual_seed(seed)
        assert np.array_equal(np.asarray(ours(image)), expected)
