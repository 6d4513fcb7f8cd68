"""Data sets by name: fetched where they can be, refused in one line where they cannot."""

import socket
from pathlib import Path
from typing import ClassVar

import datasets
import pytest
from huggingface_hub import HfApi
from PIL import Image
from written import NAMES, Item, content, encoded, expected, write_parquet

from convmix.config import Data
from convmix.data.sources import open_source
from convmix.errors import DataError

DATA = Data()
pytestmark = pytest.mark.usefixtures("own_cache")


def test_hub_name_goes_through_load_dataset(tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "repo", items, "img")
    load = datasets.load_dataset
    asked = []

    def local(name: str, config: str | None) -> datasets.DatasetDict:
        asked.append((name, config))
        return load(str(tmp_path / "repo"))

    monkeypatch.setattr(datasets, "load_dataset", local)
    monkeypatch.setattr("convmix.data.readers.named_sets._check_reachable", lambda name: None)
    assert content(open_source("someone/animals:small", DATA)) == expected(items)
    open_source("cifar10", DATA)
    assert asked == [("someone/animals", "small"), ("uoft-cs/cifar10", None)]


def test_unreachable_hub_is_one_line_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match=r"could not be reached .*give a folder, CSV or parquet") as caught:
        open_source("someone/animals", DATA)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        open_source("someone/animals", DATA)


def test_silent_hub_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one question, and the time that it may take."""
    real, times = HfApi.dataset_info, []

    def asked(*arguments: object, timeout: float | None = None, **options: object) -> object:
        times.append(timeout)
        return real(*arguments, timeout=timeout, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(HfApi, "dataset_info", asked)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("convmix.data.readers.named_sets.TIMEOUT_S", 0.3)
        with pytest.raises(DataError, match="could not be reached"):
            open_source("someone/animals", DATA)
    assert times == [0.3]


class FakeCIFAR:
    """What torchvision.datasets.CIFAR10 looks like from outside."""

    classes = NAMES
    rows: ClassVar[list[Item]] = []

    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        self.part = [r for r in self.rows if (r[0] == "train") == train]

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.part[i][2]), self.part[i][1]


class FakeFlowers:
    """Images as files, splits by name, like torchvision.datasets.Flowers102."""

    rows: ClassVar[list[Item]] = []

    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        if not download:
            raise RuntimeError("not downloaded")
        part = [(i, r) for i, r in enumerate(self.rows) if r[0] == split]
        self._image_files = [Path(root) / f"{i}.png" for i, _ in part]
        self._labels = [r[1] for _, r in part]
        for path, (_, r) in zip(self._image_files, part, strict=True):
            path.write_bytes(encoded(r[2]))


def test_torchvision_names(items: list[Item], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torchvision

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCIFAR)
    monkeypatch.setattr(torchvision.datasets, "Flowers102", FakeFlowers)
    monkeypatch.setattr(FakeCIFAR, "rows", [r for r in items if r[0] != "val"])
    monkeypatch.setattr(FakeFlowers, "rows", items)
    assert content(open_source("torchvision:CIFAR10", DATA)) == expected([r for r in items if r[0] != "val"])
    flowers = open_source("torchvision:Flowers102", DATA)
    assert flowers.classes == ("0", "1", "2")
    assert {s: len(e) for s, e in flowers.splits.items()} == {"train": 12, "val": 6, "test": 3}
    with pytest.raises(DataError, match=r"unknown data set, did you mean CIFAR10\?"):
        open_source("torchvision:CIFAR11", DATA)


def test_torchvision_without_network_is_a_data_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torchvision

    def refuse(*_: object, **__: object) -> None:
        raise OSError("connection refused")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets.USPS, "__init__", refuse)
    with pytest.raises(DataError, match="could not be fetched"):
        open_source("torchvision:USPS", DATA)
