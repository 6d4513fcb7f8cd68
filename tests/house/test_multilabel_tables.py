"""The benchmark of several labels: its pictures are what their labels say, and its row of RESULTS.md says what the record does."""

import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "benchmarks"))
import multilabel  # noqa: E402
import multilabel_tables  # noqa: E402
import tables  # noqa: E402

RECORD: dict[str, Any] = {
    "name": "toy", "command": "convmix train toy --budget 10m", "data": {"name": "toy"}, "model": "convmixer_256_8", "parameters": 594_000,
    "train_elapsed_s": 570.0, "epochs_done": 4.25, "map_by_chance": 0.343,
    "machine": {"name": "a processor", "cores": 2, "precision": "bf16"},
    "test": {
        "n": 2500, "map": 0.81, "map_interval": [0.8, 0.82], "micro_f1": 0.7, "micro_f1_interval": [0.69, 0.71], "macro_f1": 0.69,
        "macro_f1_interval": [0.68, 0.7], "subset_accuracy": 0.3, "subset_accuracy_interval": [0.28, 0.32],
    },
}  # fmt: skip


def write_photos(folder: Path, split: str, n: int) -> None:
    """Photos of one grey value each, ten times their class."""
    rows = []
    for i in range(n):
        out = io.BytesIO()
        Image.fromarray(np.full((32, 32, 3), 10 * (i % 10), np.uint8)).save(out, "PNG")
        rows.append({"image": {"bytes": out.getvalue(), "path": None}, "label": i % 10})
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")


def test_the_labels_of_a_picture_are_the_classes_of_its_tiles(tmp_path: Path) -> None:
    for split, n in (("train", 43), ("test", 20)):
        write_photos(tmp_path / "photos", split, n)
    built = multilabel.build(tmp_path / "tiled", tmp_path / "photos")
    with (built / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["train"] * 10 + ["test"] * 5  # a photo is used once, what is left over not at all
    for row in rows:
        pixels = np.asarray(Image.open(built / "images" / row["image"]))
        tiles = {int(pixels[y, x, 0]) // 10 for y in (8, 40) for x in (8, 40)}
        assert {i for i, name in enumerate(multilabel.CLASSES) if row[name] == "1"} == tiles and pixels.shape == (64, 64, 3)
    share = np.mean([[int(row[name]) for name in multilabel.CLASSES] for row in rows if row["split"] == "test"])
    assert multilabel.by_chance(built) == share


def test_a_row_says_scores_intervals_and_what_chance_gives() -> None:
    text = multilabel_tables.section([RECORD], tables.table)
    assert "| toy | `convmixer_256_8` | 0.59 M | 10 min, 4.2 epochs | 81.0 % (80.0 to 82.0) |" in text
    assert "| 34.3 % | 2,500 |" in text and RECORD["command"] in text and "a processor, 2 cores, bf16" in text
    assert multilabel_tables.section([], tables.table) == ""
