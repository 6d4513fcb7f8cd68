"""Small pictures that several labels are true of, or none, with a one-hot table: what is to be learned is known beforehand."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

LABELS = ("bar", "red", "spot")  # a white bar below, a red ground, a dark spot above


def write_labels(root: Path, n: int = 120, *, side: int = 24, unknown: int = 8, seed: int = 0) -> Path:
    """`n` pictures and labels.csv: one of eight has no label, and of the first `unknown` nobody says whether there is a spot."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    rows = []
    for i in range(n):
        bar, red, spot = (bool(i >> bit & 1) for bit in range(3))
        pixels = rng.integers(70, 110, (side, side, 3))
        if red:
            pixels[..., 0] += 110
        if bar:
            pixels[side - 7 : side - 3, 3 : side - 3] = 245
        if spot:
            left = int(rng.integers(2, side - 10))
            pixels[3:10, left : left + 7] = 10
        name = f"{i:03d}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / name)
        rows.append((name, int(bar), int(red), "" if i < unknown else int(spot)))
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", *LABELS), *rows])
    return root
