"""Data that lies in no image files: archives, arrays, databases and tables of pixels, each named with the way out."""

import re
from collections.abc import Callable

import numpy as np

from convmix.data.readers.folders import LAYOUT
from convmix.data.readers.labelled_table import refuse_pixels
from convmix.data.readers.survey import Survey, foreign_notes, some, suffix_of
from convmix.data.readers.table_files import read_rows
from convmix.data.regular import open_regular
from convmix.errors import DataError

MOST_ARRAYS = 64  # files that may hold many images each


def refuse_no_images(seen: Survey) -> DataError:
    """What to say of a folder without image files. Raises DataError itself for a table of pixels."""
    for name in seen.of("table")[:4]:
        try:
            rows = read_rows(seen.path(name))
        except DataError:
            continue
        refuse_pixels(rows)
    every = [name for names in seen.files.values() for name in names]
    for said, is_one, instead in KINDS:
        if found := [name for name in every if is_one(name.rpartition("/")[2], name)]:
            return DataError(f"{seen.root}: holds {len(found)} files of {said} (such as {found[0]}) and no images: {instead}")
    notes = f" but {'; '.join(foreign_notes(seen))}" if seen.foreign() else ""
    return DataError(f"{seen.root}: holds no images{notes}; {LAYOUT}")


def _idx(base: str, _: str) -> bool:
    return bool(re.search(r"(images|labels)[-.]idx[13][-.]ubyte(\.gz)?$", base))


def _cifar(base: str, name: str) -> bool:
    return bool(re.fullmatch(r"data_batch_\d(\.bin)?|test_batch(\.bin)?|batches\.meta(\.txt)?", base)) or "cifar-100-python/" in f"/{name}"


def _archive(base: str, _: str) -> bool:
    return suffix_of(base) in (".zip", ".tgz", ".7z", ".rar", ".gz", ".xz", ".bz2", ".zst")


Look = Callable[[str, str], bool]
KINDS: tuple[tuple[str, Look, str], ...] = (
    (
        "MNIST's IDX format", _idx,
        "type torchvision:MNIST (or FashionMNIST, KMNIST, QMNIST), or save the images as PNG into a folder per class",
    ),
    (
        "CIFAR's own format", _cifar,
        "type torchvision:CIFAR10 or torchvision:CIFAR100, for pickles run code when they are opened and are not read",
    ),
    ("archives", _archive, "unpack them and give the folder"),
)  # fmt: skip


def refuse_arrays(seen: Survey) -> None:
    """DataError for x_train.npy and the like: many images, or their labels, in one file."""
    if not seen.images or len(seen.images) > MOST_ARRAYS or any(suffix_of(name) != ".npy" for name in seen.images):
        return
    for name in seen.images:
        shape = _shape(seen, name)
        if len(shape) == 4 or len(shape) == 1:
            size = "x".join(map(str, shape))
            raise DataError(
                f"{seen.root}: {some(seen.images, 3)} are arrays of many images or labels ({name}: {size}): save every image as a "
                "file of its own "
                "(PNG, or .npy of H,W,C) into a folder per class"
            )


def _shape(seen: Survey, name: str) -> tuple[int, ...]:
    try:
        with open_regular(seen.path(name)) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return tuple(read(file)[0])
    except (OSError, ValueError):
        return ()
