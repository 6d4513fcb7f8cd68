"""Annotated data sets: whichever layout a folder or file has -> `Source` of rows with objects or class maps.

COCO JSON | Pascal VOC | YOLO -> ObjectSet        image and map folders -> MapSet or ObjectSet
"""

from pathlib import Path

from convmix.config import Data
from convmix.data.coco import read_coco
from convmix.data.examples import Examples, Source
from convmix.data.mapfolders import MapSet, read_class_maps, read_object_maps
from convmix.data.objectrows import ObjectSet, image_labels
from convmix.data.voc import read_voc
from convmix.data.yolo import read_yolo
from convmix.errors import DataError

LAYOUTS = {
    "detect": "COCO (annotations/instances_train.json + train/), Pascal VOC (Annotations/ + JPEGImages/, or XML beside the images) or YOLO "
    "(images/train/ + labels/train/ + data.yaml)",
    "instances": "COCO with outlines, YOLO with polygons, or images beside object maps (train/ + train_masks/, every value one object)",
    "segment": "images/ + masks/, images/train/ + annotations/train/, train/images/ + train/masks/ or train/ + trainannot/, maps of the "
    "images' names that hold one class number a pixel, with classes.json or the like",
}


def open_annotated(path: Path, *, task: str, data: Data | None = None) -> Source | None:
    """The annotated data set in a folder, or that a COCO JSON or YOLO's data.yaml describes.

    task: "detect", "instances" or "segment": DataError where the data is not for it. "auto": what the annotations are plainly for, outlines
    before boxes; None where there are none, as with class folders.
    What cannot be used is listed in `Source.dropped` by file and line or id, such as ("annotations/train.json: annotation 17", reason).
    """
    data, path = data or Data(), path.absolute()
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        path = path.parent
    try:
        found = _read(path, task, data)
    except PermissionError as error:
        if task == "auto":
            return None  # the reader of class folders meets it too, and lists it
        raise DataError(f"{error.filename or path}: may not be read: {error.strerror}") from None
    if found is None and task != "auto":
        raise DataError(f"{path}: no data for the task {task}; expected {LAYOUTS[task]}")
    return _of_maps(found, path) if isinstance(found, MapSet) else _of_objects(found, path) if found else None


def _read(path: Path, task: str, data: Data) -> ObjectSet | MapSet | None:
    if not path.is_dir():
        return _objects(path, task, data) if path.suffix.lower() == ".json" and task != "segment" else None
    found = _objects(path, task, data) if task != "segment" else None
    return read_class_maps(path, data=data, plainly=task == "auto") if found is None and task in ("auto", "segment") else found


def _objects(path: Path, task: str, data: Data) -> ObjectSet | None:
    masks = None if task == "auto" else task == "instances"
    found = read_coco(path, masks=masks, data=data)
    if found is None and path.is_dir() and task != "instances":
        found = read_voc(path, data=data)
    if found is None and path.is_dir():
        found = read_yolo(path, masks=masks, data=data)
    return read_object_maps(path, data=data) if found is None and path.is_dir() and task == "instances" else found


def _of_objects(found: ObjectSet, path: Path) -> Source:
    if not any(len(rows.labels) for rows in found.splits.values()):
        raise DataError(f"{path}: no object can be used{_reasons(found.dropped)}")
    labels = image_labels(found.splits, len(found.classes))
    task = "instances" if any(rows.with_masks for rows in found.splits.values()) else "detect"
    splits = {split: Examples(rows.rows(labels[split]), found.classes, split) for split, rows in found.splits.items() if len(rows)}
    return _source(splits, list(found.splits), found.classes, found.dropped, task)


def _of_maps(found: MapSet, path: Path) -> Source:
    if not any(rows.paths for rows in found.splits.values()):
        raise DataError(f"{path}: no image can be used{_reasons(found.dropped)}")
    table, palette, classes = found.meaning.values, found.meaning.palette, found.meaning.classes
    splits = {
        split: Examples(rows.rows(), classes, split, values=table, palette=palette) for split, rows in found.splits.items() if rows.paths
    }
    return _source(splits, list(found.splits), classes, found.dropped, "segment")


def _source(splits: dict[str, Examples], found: list[str], classes: tuple[str, ...], dropped: list[tuple[str, str]], task: str) -> Source:
    splits = {split: splits[split] for split in ("train", "val", "test", "all") if split in splits}
    empty = [(split, "none of its images can be used") for split in found if split not in splits]
    return Source(splits, classes, dict.fromkeys(splits, "given"), dropped + empty, task)


def _reasons(dropped: list[tuple[str, str]]) -> str:
    listed = "; ".join(f"{name}: {reason}" for name, reason in dropped[:3])
    return f": {listed}" if listed else ""
