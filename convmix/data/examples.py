"""A data set as everything after the readers sees it: splits of examples, the images still encoded, what is known of each beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from convmix.data.coco_ids import CocoIds
from convmix.data.formats import plain_path
from convmix.data.order import shards_at_once
from convmix.data.remote.shard_images import RemoteShards
from convmix.data.targets import UNKNOWN, Annotation, Objects, Regions

if TYPE_CHECKING:
    import datasets


RUN = 1000  # images that count as a shard where there are none
_DENSE_COLUMNS = {"boxes", "object_labels", "crowd", "masks", "height", "width", "mask"}


@dataclass(frozen=True)
class Examples:
    """One split. Picklable, so that worker processes can have it."""

    # columns image {bytes, path} (not decoded), label, name; for shards also offset, size; for several labels per image labels and known;
    # for dense tasks those of objectrows, or mask
    rows: "datasets.Dataset"
    classes: tuple[str, ...]
    split: str
    root: str = ""  # what relative image paths are relative to
    values: tuple[int, ...] = ()  # of class maps, 256: value in the file -> class, as in `Regions.classes`
    palette: tuple[tuple[int, int, int], ...] | None = None  # of class maps in colours, as in `Regions.palette`
    remote: RemoteShards | None = None  # where the images are in shards that lie elsewhere, whose URLs are then the paths

    def __len__(self) -> int:
        return len(self.rows)

    def source(self, index: int) -> bytes | str:
        """The encoded image, or the path of its file (absolute). An image that is no more there is b"".

        Raises DataError where a shard elsewhere can no longer be had.
        """
        row = self.rows[int(index)]
        if self.remote is not None:
            return self.remote.read(row["image"]["path"], row["offset"], row["size"])
        image = row["image"] or {"bytes": None, "path": None}
        if image["bytes"] is not None:
            return bytes(image["bytes"])
        path = str(Path(self.root, plain_path(image["path"]))) if image["path"] else ""
        if "offset" not in row or not path:
            return path or b""
        try:
            with Path(path).open("rb") as shard:
                shard.seek(row["offset"])
                return shard.read(row["size"])
        except OSError:
            return b""

    def annotation(self, index: int) -> Annotation:
        """What is known of the image: its class, its labels, its objects, or where the class of every pixel is written."""
        if self.label_matrix is not None:
            return torch.from_numpy(self.label_matrix[int(index)])
        if self._known is None:
            return int(self.labels[index])
        row = self._known[int(index)]
        if "boxes" in row:
            return Objects(
                (row["height"], row["width"]),
                np.array(row["boxes"], np.float32).reshape(-1, 4),
                np.array(row["object_labels"], np.int64),
                np.array(row["crowd"], bool),
                tuple(row["masks"]) if "masks" in row else None,
            )
        return Regions(plain_path(row["mask"]), self.values, self.palette)

    @cached_property
    def _known(self) -> "datasets.Dataset | None":
        """The rows without the images, for dense tasks; None where the label is all that is known."""
        columns = set(self.rows.column_names) & _DENSE_COLUMNS
        return self.rows.select_columns(sorted(columns)) if columns else None

    def name(self, index: int) -> str:
        """The image's name in the data set as given: a relative path, or 'train[12]'."""
        return str(self.rows[int(index)]["name"])

    @cached_property
    def names(self) -> list[str]:
        return [str(n) for n in _column(self.rows, "name")]

    @cached_property
    def labels(self) -> np.ndarray:
        """n int64, indices of `classes`."""
        return np.asarray(_column(self.rows, "label"), dtype=np.int64)

    @cached_property
    def label_matrix(self) -> np.ndarray | None:
        """Of images with several labels n,k int8: 1 where an image has it, 0 where not, UNKNOWN where nobody said; else None."""
        if not {"labels", "known"} <= set(self.rows.column_names):
            return None
        import pyarrow.compute as pc

        n, k = len(self), len(self.classes)
        table = self.rows.select_columns(["labels", "known"]).with_format("arrow")[:] if n else None
        if table is None:
            return np.zeros((0, k), np.int8)
        known = pc.list_flatten(table["known"]).to_numpy().reshape(n, k)
        matrix = np.where(known, 0, UNKNOWN).astype(np.int8)
        of_image = np.repeat(np.arange(n), pc.list_value_length(table["labels"]).to_numpy())
        matrix[of_image, pc.list_flatten(table["labels"]).to_numpy()] = 1
        return matrix

    @property
    def targets(self) -> np.ndarray:
        """What is learned of whole images: `labels`, or `label_matrix` where an image may have several."""
        return self.labels if self.label_matrix is None else self.label_matrix

    @property
    def shards(self) -> np.ndarray:
        """n integers: the shard that holds the image; of tables and folders, runs of images that stand together."""
        if "offset" not in self.rows.column_names:
            return np.arange(len(self)) // RUN
        return np.asarray(self._shard_paths.indices)

    @property
    def _shard_paths(self) -> Any:
        """Of every image the path of its shard, dictionary-encoded."""
        import pyarrow as pa

        paths = pa.chunked_array([c.field("path") for c in self.rows.select_columns(["image"]).with_format("arrow")[:]["image"].chunks])
        return paths.combine_chunks().dictionary_encode()

    def in_order(self) -> "Examples":
        """The same, fetched as suits reading from the first to the last: held-out images may be a few of every shard."""
        if self.remote is None:
            return self
        return replace(self, remote=self.remote.in_order(self._shard_paths.dictionary.to_pylist(), len(self)))

    def mixing(self, *, window: int, batch_size: int, hosts: int) -> tuple["Examples", list[str]]:
        """The same, fetched as suits the order of a training, and notes for people; only shards elsewhere are fetched in several ways."""
        if self.remote is None:
            return self, []
        names = self._shard_paths.dictionary.to_pylist()
        at_once = shards_at_once(len(names), batch_size=batch_size, window=window, hosts=hosts)
        remote, notes = self.remote.mixing(names, at_once)
        return replace(self, remote=remote), notes

    def select(self, indices: Sequence[int] | np.ndarray) -> "Examples":
        return replace(self, rows=self.rows.select(np.asarray(indices, dtype=np.int64)))


@dataclass(frozen=True)
class Source:
    """A data set: its splits as far as they exist, and where each comes from."""

    splits: dict[str, Examples]  # "train", "val", "test"; "all" where the data is not split yet
    classes: tuple[str, ...]
    origin: dict[str, str]  # split -> "given", or how it was made
    dropped: list[tuple[str, str]] = field(default_factory=list)  # name, reason: what was never an example
    task: str = "classify"  # what its annotations are for: classify, multilabel, detect, instances or segment
    layout: str = ""  # how it was read, a Layout of the settings: folders, table, voc, yolo, coco, ...
    root: str = ""  # the folder that names are relative to, "" where there is none
    split_origin: str = ""  # where given splits come from, for people
    notes: tuple[str, ...] = ()  # what was understood that another reader might not expect, a line each
    ids: CocoIds | None = None  # of images and categories, where the data set has some


def _column(rows: "datasets.Dataset", name: str) -> list[Any]:
    return list(rows.select_columns([name]).with_format("arrow")[:][name].to_pylist()) if len(rows) else []
