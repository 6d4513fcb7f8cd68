"""The model that is explained stays as it was found, also when something fails; its copy can be hooked, differentiated and shuffled."""

import pytest
import torch
from evidence import noise
from torch import nn

from convmix.explanation.hooked_copy import images_per_pass, randomised, seeded, specimen
from convmix.models.catalog import create_model

CPU = torch.device("cpu")
CONVMLP = {"blocks": [1, 1, 1], "dims": [8, 12, 16], "mlp_ratios": [2, 2, 2], "channels": 4}


def test_the_copy_overwrites_nothing_and_the_model_still_does():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Dropout(inplace=True)).train()
    copied = specimen(model, CPU)
    assert [getattr(m, "inplace", None) for m in copied] == [None, False, False]
    assert [getattr(m, "inplace", None) for m in model] == [None, True, True] and model.training and model[0].weight.requires_grad
    assert not any(m.training for m in copied.modules()) and not any(p.requires_grad for p in copied.parameters())


def test_checkpointing_is_off_in_the_copy_alone():
    model = create_model("convmixer_8_2_k3_p4")
    model.set_grad_checkpointing(True)
    assert not specimen(model, CPU).grad_checkpointing and model.grad_checkpointing


@pytest.mark.parametrize(("name", "arguments"), [("convmixer_8_2_k3_p4", {}), ("convmlp", CONVMLP)])
def test_shuffled_weights_keep_their_values_and_lose_their_places(name, arguments):
    torch.manual_seed(0)
    model = specimen(create_model(name, num_classes=2, model_args=arguments), CPU)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    images = torch.randn(1, 3, 32, 32)
    other = randomised(model, images, seed=0)
    for (key, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours.flatten().sort().values, theirs.flatten().sort().values), key
        assert ours.unique().numel() < 3 or not torch.equal(ours, theirs), key
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    assert other(images).isfinite().all() and not any(m.training for m in other.modules())
    assert not torch.equal(other(images), randomised(model, images, seed=1)(images))


def test_the_shuffled_models_statistics_are_its_own(seeing):
    """Else activations of a deep net run off: the trained statistics fit the trained weights alone."""
    images, _ = noise(4, seed=3)
    other = randomised(specimen(seeing, CPU), images, seed=0)
    outputs = []
    for norm in (m for m in other.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.register_forward_hook(lambda m, args, y: outputs.append(((y - m.bias[:, None, None]) / m.weight[:, None, None]).std()))
    other(images)
    assert len(outputs) == 5 and all(0.8 < float(s) < 1.25 for s in outputs)


def test_random_numbers_go_on_as_if_none_had_been_drawn():
    torch.manual_seed(1)
    expected = [torch.rand(3), torch.rand(3)]
    torch.manual_seed(1)
    first = torch.rand(3)
    with pytest.raises(KeyError), seeded(CPU, 7):
        torch.rand(100)
        raise KeyError
    assert torch.equal(first, expected[0]) and torch.equal(torch.rand(3), expected[1])


def test_passes_are_bounded_by_the_pixels():
    assert images_per_pass(32, 32) == 64 and images_per_pass(224, 224) == 3 and images_per_pass(4000, 4000) == 1
