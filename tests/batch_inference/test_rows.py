"""Rows of a partition are the rows that `predict` writes, for every type of result, after a way through parquet."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from convmix.batch_inference.partitions import Tally, read_tally, write_part
from convmix.batch_inference.rows import labels_in, row, schema
from convmix.batch_inference.storage import Folder
from convmix.data import rle
from convmix.inference.dense_prediction import found_in
from convmix.inference.predictor import Answer, Result
from convmix.results import Boxes, Classes, ImageLabels, Masks, SemanticMap

LABELS = ("ant", "bee", "cat")
BOX = torch.tensor([[1.0, 2.0, 5.5, 6.25], [0.0, 0.0, 2.0, 2.0]])
SCORES, COLUMNS = torch.tensor([0.9, 0.6]), torch.tensor([1, 1])


def masks() -> Masks:
    shapes = np.zeros((2, 8, 9), np.uint8)
    shapes[0, 2:6, 1:5] = 1
    shapes[1, :2, :2] = 1
    return Masks(BOX, SCORES, COLUMNS, LABELS, (8, 9), masks=tuple(rle.encode(shapes)))


def semantic() -> SemanticMap:
    classes = torch.zeros(4, 5, dtype=torch.int64)
    classes[0] = 2
    return SemanticMap(classes, torch.full((4, 5), 0.75), LABELS)


def several() -> ImageLabels:
    return ImageLabels(torch.tensor([0.75, 0.5, 0.25]), torch.tensor([0.5, 0.6, 0.2], dtype=torch.float64), LABELS)


RESULTS: tuple[tuple[Result, dict[str, int]], ...] = (
    (Boxes(BOX, SCORES, COLUMNS, LABELS, (8, 9)), {"bee": 2}),
    (masks(), {"bee": 2}),
    (semantic(), {"ant": 1, "cat": 1}),
    (several(), {"ant": 1, "cat": 1}),
)


@pytest.mark.parametrize(("result", "counts"), RESULTS, ids=lambda value: type(value).__name__)
def test_a_dense_row_is_what_found_says(result: Boxes | SemanticMap | ImageLabels, counts: dict[str, int], tmp_path: Path) -> None:
    kind, good, bad = type(result), Answer(result), Answer(None, "truncated")
    rows = [row(kind, "a.png", good, top=1), row(kind, "b.png", bad, top=1)]
    write_part(Folder(tmp_path), "part-00000.parquet", schema(kind, LABELS), [rows], Tally("job", rows=2, bad=1))
    read = pq.read_table(tmp_path / "part-00000.parquet").to_pylist()
    assert read[0] == found_in("a.png", good).to_dict()
    assert {k: v for k, v in read[1].items() if v is not None} == {"name": "b.png", "error": "truncated"}
    assert labels_in(good) == Counter(counts) and labels_in(bad) == Counter()


def test_the_footer_tells_what_a_partition_holds(tmp_path: Path) -> None:
    tally = Tally("job", rows=0, bad=0, labels=Counter(ant=3), elapsed_s=1.5, worker="here/1")
    write_part(Folder(tmp_path), "part-00000.parquet", schema(Classes, LABELS), [], tally)
    assert read_tally(Folder(tmp_path), "part-00000.parquet") == tally
    (tmp_path / "part-00001.parquet").write_bytes((tmp_path / "part-00000.parquet").read_bytes()[:-9])
    assert read_tally(Folder(tmp_path), "part-00001.parquet") is None


def test_a_partition_whose_rows_fail_does_not_appear(tmp_path: Path) -> None:
    def rows():  # type: ignore[no-untyped-def]
        yield [row(Classes, "a.png", Answer(None, "x"), top=1)]
        raise OSError("the network is gone")

    for place in (str(tmp_path), "memory://parts/out"):
        with pytest.raises(OSError, match="network"):
            write_part(Folder(place), "part-00000.parquet", schema(Classes, LABELS), rows(), Tally("job"))
        assert not Folder(place).names()
