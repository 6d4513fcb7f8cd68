"""Small data sets in the layouts that people bring, of pictures without meaning."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BOX = "0.5 0.5 0.4 0.4"
OUTLINE = "0.1 0.1 0.6 0.1 0.6 0.7 0.3 0.5"


def picture(path: Path, *, hue: int = 0, size: tuple[int, int] = (32, 24), **options: Any) -> Path:
    """size: width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(path.name.encode()) + hue)
    pixels = rng.random((size[1], size[0], 3)) * 110 + (np.arange(3) == hue % 3) * 120
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, **options)
    return path


def text(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(encoding))
    return path


def photos(folder: Path, names: Sequence[str] = ("0.jpg", "1.jpg", "2.jpg", "3.jpg")) -> list[Path]:
    return [picture(folder / name, hue=i) for i, name in enumerate(names)]


def classes(root: Path, names: Sequence[str] = ("cat", "dog"), n: int = 3) -> Path:
    for name in names:
        photos(root / name, [f"{i}.jpg" for i in range(n)])
    return root


def table(path: Path, rows: Sequence[Sequence[Any]], *, header: str = "image,label", encoding: str = "utf-8") -> Path:
    return text(path, "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding)


def voc_xml(label: str = "cell", *, size: tuple[int, int] = (32, 24)) -> str:
    box = "<bndbox><xmin>4</xmin><ymin>4</ymin><xmax>20</xmax><ymax>16</ymax></bndbox>"
    return (
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
        f"<object><name>{label}</name>{box}</object></annotation>"
    )


def coco(images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]] | None = None, **extra: Any) -> str:
    if annotations is None:
        annotations = [{"id": i + 1, "image_id": im["id"], "category_id": 1 + i % 2, "bbox": [4, 4, 10, 9]} for i, im in enumerate(images)]
    return json.dumps(
        {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "nut"}, {"id": 2, "name": "bolt"}], **extra}
    )


def listed(names: Sequence[str], **extra: Any) -> list[dict[str, Any]]:
    return [{"id": i + 1, "file_name": name, **extra} for i, name in enumerate(names)]


def mask(path: Path, pixels: np.ndarray | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((24, 32), np.uint8)
    values[4:16, 4:20] = 1
    Image.fromarray(values if pixels is None else pixels).save(path, **options)
    return path


def labelme(
    path: Path, label: str = "nut", kind: str = "polygon", points: Sequence[Sequence[float]] = ((4, 4), (20, 5), (18, 15)), **extra: Any
) -> Path:
    shape = {"label": label, "shape_type": kind, "points": [list(p) for p in points], "flags": {}}
    content = {"version": "5.4", "shapes": [shape], "imagePath": f"{path.stem}.jpg", "imageData": None, "imageHeight": 24, "imageWidth": 32}
    return text(path, json.dumps(content | extra))
