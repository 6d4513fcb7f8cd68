"""Multiply-accumulates are those of torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from convmix.models.catalog import create_model
from convmix.models.macs import macs_of


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", ["convmixer_16_2_k3_p4", "convmlp_t", "multiscale_convmixer_t", "resnet18", "vit_tiny_patch16_224"])
def test_the_count_is_that_of_torchs_counter(name, device):
    size = 224 if name.startswith("vit") else 64
    model, images = create_model(name, num_classes=7).eval().to(device), torch.zeros(1, 3, size, size, device=device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    assert macs_of(model, images) == counter.get_total_flops() // 2 > 0
