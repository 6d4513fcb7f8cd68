"""Batch norms over several processes, as far as one process can tell; two are in test_distributed."""

import copy
from collections.abc import Iterator

import pytest
import timm
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn

from convmix.errors import ConfigError
from convmix.training.batch_norm import BatchNormOverAll, synchronised

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(5), (7, 5)),
        (nn.BatchNorm1d(5, affine=False), (2, 5, 3)),
        (nn.BatchNorm2d(5, momentum=0.3, eps=1e-3), (4, 5, 3, 2)),
        (BatchNormAct2d(5, act_layer=nn.GELU), (4, 5, 3, 2)),
    ],
)
def test_alone_it_is_the_norm_that_it_stands_for(norm: nn.Module, shape: tuple[int, ...]) -> None:
    """Outputs, gradients and statistics, in training and in evaluation."""
    torch.manual_seed(0)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x, wanted = (torch.randn(shape, dtype=torch.float64) * 3 + 100 for _ in range(2))
    found = []
    for make in (lambda model: model, lambda model: synchronised(model, CPU)):
        model = make(nn.Sequential(nn.Identity(), copy.deepcopy(norm))).double().train()
        images = x.clone().requires_grad_()
        outputs = [model(images), model.train()(images), model.eval()(images)]
        torch.stack(outputs).sub(wanted).square().sum().backward()
        found.append({
            "outputs": torch.stack(outputs), "images": images.grad, **model.state_dict(),
            **{f"{name} gradient": p.grad for name, p in model.named_parameters()},
        })  # fmt: skip
        assert type(model[1]) is (BatchNormOverAll if len(found) == 2 else type(norm))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.usefixtures("alone")
def test_half_precision_is_summed_in_float32() -> None:
    x = torch.full((64, 1, 8, 8), 300.0, dtype=torch.float16)  # their sum is beyond float16
    x[::2] = 302
    model = synchronised(nn.Sequential(nn.BatchNorm2d(1)), CPU).train()
    y = model(x)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y[:2].flatten(1).mean(1).float(), torch.tensor([1.0, -1.0]), rtol=0, atol=0.01)


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_what_stands_behind_the_norms_of_timm_stays(device: torch.device) -> None:
    """torch's own conversion would leave the activations out."""
    torch.manual_seed(0)
    model = timm.create_model("efficientnet_lite0", num_classes=3).eval()
    images = torch.randn(2, 3, 32, 32)
    before, names = model(images), list(model.state_dict())
    norms = sum(isinstance(m, BatchNormAct2d) for m in model.modules())
    model = synchronised(model, device)
    kind = BatchNormOverAll if device == CPU else nn.SyncBatchNorm
    assert sum(isinstance(m, kind) for m in model.modules()) == norms > 10
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(images), before)


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_a_norm_that_nobody_knows_is_refused(device: torch.device) -> None:
    class OwnNorm(nn.BatchNorm2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 2

    with pytest.raises(ConfigError, match="sync_batch_norm: it is not known how a OwnNorm"):
        synchronised(nn.Sequential(OwnNorm(3)), device)
