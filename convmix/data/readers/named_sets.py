"""Data sets that are fetched by name: the Hugging Face Hub and torchvision; and scikit-learn's digits, which are embedded."""

import importlib.util
import inspect
import io
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convmix.cache import cache_dir
from convmix.data.formats import Found, Table, image_rows
from convmix.data.readers.tables import quiet_progress
from convmix.errors import DataError, did_you_mean, first_line

HUB_NAMES = {
    "cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100", "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist", "food101": "ethz/food101", "beans": "AI-Lab-Makerere/beans",
    "tiny-imagenet": "zh-plus/tiny-imagenet",
}  # fmt: skip
TORCHVISION_NAMES = (
    "CIFAR10", "CIFAR100", "Country211", "DTD", "EuroSAT", "FGVCAircraft", "FashionMNIST", "Flowers102", "Food101", "GTSRB", "Imagenette",
    "KMNIST", "MNIST", "OxfordIIITPet", "QMNIST", "RenderedSST2", "STL10", "SVHN", "USPS",
)  # fmt: skip
TIMEOUT_S = 5.0
INSTEAD = "give a folder, CSV or parquet file instead, or try again online"


def is_hub_name(spec: str) -> bool:
    """Whether `spec`, which is no local path, may be fetched: a known name, or owner/name with an optional :configuration."""
    return spec in HUB_NAMES or re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?", spec) is not None


def load_hub(spec: str) -> Any:
    """A data set of the Hugging Face Hub as `datasets` has it, a mapping of its splits, from its cache where it is there.

    Raises DataError within a few seconds where the Hub cannot be reached and the data set is not in the cache.
    """
    import datasets

    name, _, config = HUB_NAMES.get(spec, spec).partition(":")
    if not _in_cache(name):
        _check_reachable(name)
    try:
        with quiet_progress():
            return datasets.load_dataset(name, config or None)
    except Exception as error:  # a dozen kinds of half a dozen libraries
        raise DataError(f"{spec}: could not be fetched from the Hugging Face Hub ({first_line(error)}); {INSTEAD}") from None


def _in_cache(name: str) -> bool:
    import datasets

    return (Path(datasets.config.HF_DATASETS_CACHE) / name.replace("/", "___")).is_dir()


def _check_reachable(name: str) -> None:
    """One short question before `datasets` starts its long retries."""
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if datasets.config.HF_HUB_OFFLINE:
        raise DataError(f"{name}: is not in the cache and could not be fetched, because HF_HUB_OFFLINE is set; {INSTEAD}")
    try:
        HfApi(endpoint=datasets.config.HF_ENDPOINT).dataset_info(name, timeout=TIMEOUT_S)
    except GatedRepoError:
        raise DataError(f"{name}: the Hugging Face Hub asks for an account that was granted access; run `hf auth login`") from None
    except RepositoryNotFoundError:
        raise DataError(
            f"{name}: neither a local path nor a public data set of the Hugging Face Hub{did_you_mean(name, HUB_NAMES)}"
        ) from None
    except HfHubHTTPError as error:
        raise DataError(f"{name}: could not be fetched from the Hugging Face Hub ({first_line(error)}); {INSTEAD}") from None
    except Exception as error:  # connection errors of whichever HTTP library the installed version uses
        kind = type(error).__name__
        raise DataError(f"{name}: no such local path, and the Hugging Face Hub could not be reached ({kind}); {INSTEAD}") from None


def read_torchvision(name: str) -> Found:
    """A classification data set of torchvision, downloaded to the cache, ~/.cache/convmix/torchvision on Linux.

    Images that torchvision keeps as files stay files; arrays become PNG in memory, which is lossless.
    """
    import torchvision

    if name not in TORCHVISION_NAMES:
        listed = ", ".join(TORCHVISION_NAMES)
        raise DataError(f"torchvision:{name}: unknown data set{did_you_mean(name, TORCHVISION_NAMES)}; known: {listed}")
    kind = getattr(torchvision.datasets, name)
    root = cache_dir("torchvision")
    tables: dict[str, Table] = {}
    classes: Sequence[str] | None = None
    for split, arguments in _torchvision_splits(kind).items():
        part = _open_torchvision(kind, name, root, arguments)
        if part is None:
            continue
        classes = classes or [_class_name(c) for c in getattr(part, "classes", None) or getattr(part, "categories", None) or ()] or None
        tables[split] = _torchvision_table(part, split)
    return Found(tables, root=str(root), names=tuple(classes) if classes else None)


def _torchvision_splits(kind: type) -> dict[str, dict[str, Any]]:
    """The constructor's arguments for every split the class may have."""
    parameters = inspect.signature(kind).parameters
    if "train" in parameters:
        return {"train": {"train": True}, "test": {"train": False}}
    if "split" in parameters:
        first = parameters["split"].default
        return {"train": {"split": first if first == "trainval" else "train"}, "val": {"split": "val"}, "test": {"split": "test"}}
    return {"all": {}}


def _open_torchvision(kind: Any, name: str, root: Path, arguments: dict[str, Any]) -> Any:
    """The data set, or None where it has no such split."""
    root.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)  # torchvision's own download waits for ever
    try:
        if "download" not in inspect.signature(kind).parameters:
            return kind(str(root), **arguments)
        if name == "Imagenette" and (root / "imagenette2").is_dir():  # refuses to download twice
            return kind(str(root), **arguments)
        return kind(str(root), **arguments, download=True)
    except ValueError as error:
        if "split" in str(error):
            return None
        raise DataError(f"torchvision:{name}: {first_line(error)}") from None
    except (OSError, RuntimeError) as error:
        raise DataError(f"torchvision:{name}: could not be fetched ({first_line(error)}); {INSTEAD}") from None
    finally:
        socket.setdefaulttimeout(before)


def _torchvision_table(part: Any, split: str) -> Table:
    pairs = getattr(part, "samples", None) or getattr(part, "_samples", None)
    if pairs is None and hasattr(part, "_image_files") and hasattr(part, "_labels"):
        pairs = list(zip(part._image_files, part._labels, strict=True))
    if pairs:
        paths = [str(Path(p).absolute()) for p, _ in pairs]
        return Table(image_rows(paths), [int(label) for _, label in pairs], [Path(p).name for p in paths])
    encoded, labels = [], []
    for i in range(len(part)):
        image, label = part[i]
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        encoded.append(buffer.getvalue())
        labels.append(int(label))
    return Table(image_rows(encoded=encoded), labels, [f"{split}[{i}]" for i in range(len(labels))])


def _class_name(value: object) -> str:
    return str(value[0]) if isinstance(value, (tuple, list)) else str(value)  # Imagenette: ("tench", "Tinca tinca")


def read_digits() -> Found:
    """scikit-learn's digits: 1,797 scans, 8x8 pixels, grey values 0..16 stretched to 0..255, as PNG; classes "0" to "9"."""
    import numpy as np
    from PIL import Image

    images, targets = _digits()
    pixels = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # n,8,8
    encoded = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    names = [f"digits[{i}]" for i in range(len(encoded))]
    return Found({"all": Table(image_rows(encoded=encoded), [int(t) for t in targets], names)}, names=tuple("0123456789"))


def _digits() -> tuple[Any, Any]:
    """n,64 grey values and n classes: from scikit-learn's file, for importing it takes as long as importing torch; else from itself."""
    import numpy as np

    spec = importlib.util.find_spec("sklearn")
    folders = (spec.submodule_search_locations if spec else None) or ["/nowhere"]
    try:
        rows = np.loadtxt(Path(folders[0]) / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    except OSError:
        from sklearn.datasets import load_digits

        return load_digits(return_X_y=True)
    return rows[:, :-1], rows[:, -1].astype(np.int64)
