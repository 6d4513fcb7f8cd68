"""What the tests of the data forms share."""

from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from served import Web, make_shards, serving
from written import Item, make_items

from convmix.data.remote import shard_cache, stores


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of `datasets` in a folder of the test, not in the home directory."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))


@pytest.fixture(scope="session")
def items() -> list[Item]:
    return make_items()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of copied shards, empty at first; nobody waits long for a server."""
    monkeypatch.setenv("CONVMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(shard_cache.LIMIT, raising=False)
    for waits in ("LONG", "BRIEFLY"):
        monkeypatch.setattr(stores, waits, (0.01, 0.01))
    return tmp_path / "cache" / "shards"


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards of about 30 kB, eight images each."""
    return make_shards(tmp_path_factory.mktemp("many"))


@pytest.fixture
def web(many: Path) -> Iterator[Web]:
    with serving(many) as server:
        yield server
