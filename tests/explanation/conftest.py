import pytest
from evidence import train
from torch import nn


@pytest.fixture(scope="session")
def seeing() -> nn.Module:
    """The model that was trained on the planted evidence; read only."""
    return train()
