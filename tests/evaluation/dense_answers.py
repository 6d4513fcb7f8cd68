"""A run, images with known objects or class maps, and answers to them that are wrong in known ways: no network, no data set."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from convmix.artifacts.artifact import Artifact
from convmix.data import rle
from convmix.data.preprocessing import Preprocess
from convmix.data.targets import Objects
from convmix.evaluation.selection import Selection
from convmix.results import Boxes, Masks

SIZE = (60, 80)  # height, width of the images


@dataclass(frozen=True)
class Pictures:
    """Image files as an evaluation reads them."""

    files: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        return [file.name for file in self.files]

    def source(self, i: int) -> str:
        return str(self.files[i])

    def __len__(self) -> int:
        return len(self.files)


def selection_of(folder: Path, n: int, *, size: tuple[int, int] = SIZE) -> Selection:
    """n noisy pictures in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i in range(n):
        files.append(folder / f"{i}<b>.png")
        Image.fromarray(np.random.default_rng(i).integers(90, 160, (*size, 3), dtype=np.uint8)).save(files[-1])
    examples: Any = Pictures(tuple(files))
    return Selection(examples, ("",) * n, "street & <yard>", "test", own=True, left_out=0, notes=())


def run_of(path: Path, labels: tuple[str, ...]) -> Artifact:
    preprocess = Preprocess(
        size=(64, 64), fit="letterbox", interpolation="bilinear", crop_pct=1.0, mean=(0.5,) * 3, std=(0.25,) * 3
    )  # fmt: skip
    path.mkdir(parents=True, exist_ok=True)
    return Artifact(path, nn.Identity(), "detect", labels, preprocess, {})


def objects(*rows: tuple[float, float, float, float, int], crowd: tuple[int, ...] = (), masks: bool = False) -> Objects:
    """Rows of left, top, right, bottom, label; `crowd` are positions."""
    values = np.array(rows, np.float32).reshape(-1, 5)
    is_crowd = np.isin(np.arange(len(values)), crowd)
    return Objects(SIZE, values[:, :4], values[:, 4].astype(np.int64), is_crowd, outlines(values[:, :4]) if masks else None)


def answers(labels: tuple[str, ...], *rows: tuple[float, float, float, float, int, float], masks: bool = False) -> Boxes:
    """Rows of left, top, right, bottom, column, score; the surest first."""
    values = torch.tensor(sorted(rows, key=lambda row: -row[5]), dtype=torch.float32).reshape(-1, 6)
    told = (values[:, :4], values[:, 5], values[:, 4].long(), labels, SIZE)
    return Masks(*told, outlines(values[:, :4].numpy())) if masks else Boxes(*told)


def outlines(boxes: np.ndarray) -> tuple[bytes, ...]:
    """The boxes as masks of whole pixels."""
    masks = np.zeros((len(boxes), *SIZE), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.round().astype(int).tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    return rle.encode(masks)


def without_outlines(truth: Objects) -> Objects:
    return replace(truth, masks=None)
