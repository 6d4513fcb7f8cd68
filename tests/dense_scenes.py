"""Small pictures of coloured shapes with exact annotations, written in the formats that people have, for the tests of the dense tasks."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"square": (220, 40, 40), "disc": (40, 90, 230)}
CLASSES = tuple(COLOURS)


def scene(seed: int, *, side: int = 64, objects: int = 2) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """H,W,3 uint8, and (class, H,W bool) for every object; they do not overlap."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), 128, np.uint8) + rng.integers(-12, 13, (side, side, 3)).astype(np.int8).astype(np.uint8)
    taken = np.zeros((side, side), bool)
    rows, columns = np.mgrid[:side, :side]
    placed: list[tuple[int, np.ndarray]] = []
    for _ in range(200):
        if len(placed) == objects:
            break
        label, size = int(rng.integers(len(CLASSES))), int(rng.integers(side // 5, side // 3))
        top, left = (int(v) for v in rng.integers(1, side - size - 1, 2))
        if label == 0:
            mask = (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)
        else:
            mask = (rows - top - size / 2 + 0.5) ** 2 + (columns - left - size / 2 + 0.5) ** 2 <= (size / 2) ** 2
        if not (taken & mask).any():
            taken |= mask
            image[mask] = COLOURS[CLASSES[label]]
            placed.append((label, mask))
    return image, placed


def write_coco(root: Path, counts: dict[str, int], *, masks: bool, side: int = 64, objects: int = 2, same: bool = False) -> Path:
    """ROOT/annotations/instances_SPLIT.json and ROOT/SPLIT/N.png; `same`: one picture again and again."""
    from faster_coco_eval import mask as codec

    (root / "annotations").mkdir(parents=True)
    for s, (split, n) in enumerate(counts.items()):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(n):
            image, placed = scene(1000 * s + (0 if same else i), side=side, objects=objects)
            Image.fromarray(image).save(root / split / f"{i}.png")
            images.append({"id": i, "file_name": f"{i}.png", "height": side, "width": side})
            for label, mask in placed:
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
                entry = {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": label + 1,
                    "bbox": box,
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                }
                if masks:
                    run = codec.encode(np.asfortranarray(mask.astype(np.uint8)))
                    entry["segmentation"] = {"size": [side, side], "counts": run["counts"].decode()}
                annotations.append(entry)
        listing = {
            "images": images, "annotations": annotations, "categories": [{"id": c + 1, "name": name} for c, name in enumerate(CLASSES)],
        }  # fmt: skip
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(listing))
    return root


def write_maps(root: Path, counts: dict[str, int], *, side: int = 64, objects: int = 2, same: bool = False) -> Path:
    """ROOT/SPLIT/N.png, ROOT/SPLITannot/N.png with 0 for the background, and ROOT/classes.json."""
    root.mkdir(parents=True)
    (root / "classes.json").write_text(json.dumps({"names": ["background", *CLASSES]}))
    for s, (split, n) in enumerate(counts.items()):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir()
        for i in range(n):
            image, placed = scene(1000 * s + (0 if same else i), side=side, objects=objects)
            classes = np.zeros((side, side), np.uint8)
            for label, mask in placed:
                classes[mask] = label + 1
            Image.fromarray(image).save(root / split / f"{i}.png")
            Image.fromarray(classes).save(root / f"{split}annot" / f"{i}.png")
    return root
