"""The same few pictures in every form that a data set has, and what must be read back."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from convmix.data.decode import decode
from convmix.data.examples import Examples, Source

NAMES = ("cat", "dog", "emu")
Item = tuple[str, int, np.ndarray]  # split, class number, H,W,3 uint8


def make_items() -> list[Item]:
    rng = np.random.default_rng(0)
    counts = {"train": 4, "val": 2, "test": 1}
    return [(s, c, rng.integers(0, 256, (5 + c, 7, 3), np.uint8)) for s, n in counts.items() for c in range(3) for _ in range(n)]


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def pixels(examples: Examples, index: int) -> np.ndarray:
    return np.asarray(decode(examples.source(index), in_chans=3, max_pixels=10**6))


def content(source: Source) -> dict[str, list[tuple[str, bytes]]]:
    return {s: sorted((e.classes[e.labels[i]], pixels(e, i).tobytes()) for i in range(len(e))) for s, e in source.splits.items()}


def expected(items: list[Item], split: str | None = None) -> dict[str, list[tuple[str, bytes]]]:
    found: dict[str, list[tuple[str, bytes]]] = {}
    for s, c, x in items:
        found.setdefault(split or s, []).append((NAMES[c], x.tobytes()))
    return {s: sorted(rows) for s, rows in found.items()}


def write_folder(root: Path, items: list[Item], folders: dict[str, str] | None = None) -> None:
    for i, (s, c, x) in enumerate(items):
        path = root / (folders[s] if folders else "") / NAMES[c] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(x))


def write_table(root: Path, items: list[Item], delimiter: str = ",", header: str = "path,label,split") -> Path:
    root.mkdir(exist_ok=True)
    write_folder(root / "images", items)
    rows = [delimiter.join((f"images/{NAMES[c]}/{i}.png", NAMES[c], s)) for i, (s, c, _) in enumerate(items)]
    path = root / ("t.tsv" if delimiter == "\t" else "t.csv")
    path.write_text("\n".join([header.replace(",", delimiter), *rows]) + "\n")
    return path


def write_parquet(root: Path, items: list[Item], image: str = "image") -> None:
    root.mkdir(exist_ok=True)
    features = datasets.Features({image: datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    for split in ("train", "val", "test"):
        rows = [(c, x) for s, c, x in items if s == split]
        shards = 2 if split == "train" else 1
        for shard in range(shards):
            part = rows[shard::shards]
            columns = {image: [{"bytes": encoded(x), "path": None} for _, x in part], "label": [c for c, _ in part]}
            whole = datasets.Dataset.from_dict(columns, features=features)
            whole.to_parquet(root / f"{'validation' if split == 'val' else split}-{shard:05}-of-{shards:05}.parquet")


def write_shards(root: Path, items: list[Item], label: Callable[[int], tuple[str, bytes]]) -> None:
    root.mkdir(exist_ok=True)
    for split in ("train", "val", "test"):
        with tarfile.open(root / f"{split}-000000.tar", "w") as archive:
            for i, (_, c, x) in enumerate(r for r in items if r[0] == split):
                suffix, text = label(c)
                image = ("png", encoded(x)) if i % 2 else ("webp", lossless(x))
                for name, value in (image, (suffix, text)):
                    info = tarfile.TarInfo(f"dir/{i:04}.{name}")
                    info.size = len(value)
                    archive.addfile(info, io.BytesIO(value))


def lossless(x: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(x).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()
