"""On the card where there is one, through Triton's interpreter where test_gpu_interpreted.py asks for it; else not at all."""

import os

import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and os.environ.get("CONVMIX_KERNELS") == "triton"
collect_ignore_glob = [] if INTERPRETED or torch.cuda.is_available() else ["test_*.py"]


@pytest.fixture
def device() -> torch.device:
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allocated without being filled holds NaN, so that nothing unwritten stays unseen, and no choice is read from a disk."""
    monkeypatch.setenv("CONVMIX_TUNING", "off")
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, _filled(getattr(torch, name)))
    monkeypatch.setattr(Tensor, "new_empty", _filled(Tensor.new_empty))


def _filled(allocate):
    def poisonous(*args, **kwargs):
        made = allocate(*args, **kwargs)
        return made.fill_(float("nan")) if made.is_floating_point() and made.device.type != "meta" else made

    return poisonous


@pytest.fixture(autouse=True)
def seed() -> None:
    """Other numbers in every run; the seed that gave them is shown where a test fails, and CONVMIX_TEST_SEED asks for it again."""
    chosen = int(os.environ.get("CONVMIX_TEST_SEED", torch.seed() % 2**32))
    print(f"CONVMIX_TEST_SEED={chosen}")
    torch.manual_seed(chosen)


@pytest.fixture
def close():
    """Asserts that a tensor has its exact value but for `tolerance`, as a share of its norm, or of `scale`, which is the norm of the terms
    it is the sum of, where they may cancel; NaN never passes."""

    def check(actual: Tensor, exact: Tensor, tolerance: float, what: str = "", *, scale: float = 1e-6) -> None:
        assert actual.shape == exact.shape
        actual, exact = actual.detach().double().cpu(), exact.detach().double().cpu()
        error = (actual - exact).norm() / exact.norm().clamp(min=scale)
        assert error.item() <= tolerance, f"{what}: {error.item():.3g} > {tolerance}"

    return check
