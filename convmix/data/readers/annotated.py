"""Annotated data sets: whichever layout a folder or file has -> `Source` of rows with objects or class maps.

path -> survey -> forms of the annotation files there (readers/evidence.py) -> the reader of one form, with the pairs of image and
annotation and the splits that `readers/` found -> ObjectSet or MapSet -> Source
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from convmix.config import Data
from convmix.data.examples import Examples, Source
from convmix.data.formats import printable
from convmix.data.readers.box_table import TABLES, find_box_tables, is_box_table, read_box_tables
from convmix.data.readers.coco import read_coco
from convmix.data.readers.containers import refuse_arrays
from convmix.data.readers.cvat import read_cvat
from convmix.data.readers.evidence import PANOPTIC, READ_FORMS, forms
from convmix.data.readers.json_boxes import read_bdd100k, read_createml
from convmix.data.readers.labelme import read_labelme
from convmix.data.readers.labelstudio import read_labelstudio
from convmix.data.readers.line_boxes import read_dota, read_kitti
from convmix.data.readers.mapfolders import MapSet, read_class_maps, read_object_maps, why_no_class_map
from convmix.data.readers.maps import MapFiles, find_maps
from convmix.data.readers.names import plain
from convmix.data.readers.object_folders import read_object_folders
from convmix.data.readers.objectrows import ObjectSet, image_labels
from convmix.data.readers.paired import PairedSplits, Wording, paired_splits
from convmix.data.readers.pairing import pair
from convmix.data.readers.splits import Splits
from convmix.data.readers.survey import Survey, folder_of, foreign_notes, some, spread, stem_of, survey, survey_around
from convmix.data.readers.via import read_via
from convmix.data.readers.voc import read_voc, written_name
from convmix.data.readers.yaml_splits import DataYaml, load_data_yaml, yaml_splits
from convmix.data.readers.yolo import NAME_FILES, read_names, read_yolo
from convmix.errors import DataError

LAYOUTS = {
    "detect": "COCO (annotations/instances_train.json + train/), Pascal VOC (Annotations/ + JPEGImages/, or XML beside the images), YOLO "
    "(images/train/ + labels/train/ + data.yaml), LabelMe, Label Studio or CVAT",
    "instances": "COCO with outlines, YOLO with polygons, LabelMe, or images beside object maps (train/ + train_masks/, every value one "
    "object)",
    "segment": "images/ + masks/, images/train/ + annotations/train/, train/images/ + train/masks/ or train/ + trainannot/, maps of the "
    "images' names that hold one class number a pixel, with classes.json or the like",
}
TASKS = {
    "voc": ("detect",),
    "createml": ("detect",),
    "bdd100k": ("detect",),
    "kitti": ("detect",),
    "masks": ("segment", "instances"),
}  # layouts that are not for every task with objects
OBJECT_TASKS = ("detect", "instances")
CALLED = {
    "coco": "COCO",
    "labelme": "LabelMe",
    "labelstudio": "Label Studio",
    "cvat": "CVAT",
    "voc": "VOC",
    "yolo": "YOLO",
    "via": "VIA",
    "createml": "CreateML",
    "bdd100k": "BDD100K",
    "kitti": "KITTI",
    "dota": "DOTA",
    "masks": "mask",
    "table": "a table",
}


@dataclass
class Place:
    """What a path is for the readers of annotations."""

    path: Path  # as given
    seen: Survey
    forms: dict[str, list[str]]  # form -> its files
    given: str = ""  # the annotation file that the user named
    yaml: DataYaml | None = None
    splits: Splits | None = None  # those of the YAML
    notes: list[str] = field(default_factory=list)

    def homes(self, *names: list[str]) -> list[Path]:
        """The folders that may hold a file of class names: the root, those that lead to these files, and theirs."""
        folders = dict.fromkeys([""])
        for some_names in names:
            for name in some_names[:1]:
                parts = folder_of(name).split("/")
                folders.update(dict.fromkeys("/".join(parts[: i + 1]) for i in range(len(parts))))
        return [self.seen.path(folder) if folder else self.seen.root for folder in folders]


def open_annotated(path: Path, *, task: str, data: Data | None = None) -> Source | None:
    """The annotated data set in a folder, or that a COCO or Label Studio JSON, CVAT's XML or YOLO's data.yaml describes.

    task: "detect", "instances" or "segment": DataError where the data is not for it. "auto": what the annotations are plainly for, outlines
    before boxes; None where there are none, as with class folders.
    What cannot be used is listed in `Source.dropped` by file and line or id, such as ("annotations/train.json: annotation 17", reason).
    """
    data, path = data or Data(), path.absolute()
    try:
        place = _place(path)
        chosen = _choose(place, task, data) if place else None
    except PermissionError as error:
        if task == "auto":
            return None  # the reader of class folders meets it too, and lists it
        raise DataError(f"{error.filename or path}: may not be read: {error.strerror}") from None
    if chosen is None and task != "auto":
        raise DataError(f"{path}: no data for the task {task}; expected {LAYOUTS[task]}")
    if chosen is None or place is None:
        return None
    layout, found = chosen
    source = _of_maps(found, place, layout) if isinstance(found, MapSet) else _of_objects(found, place, layout)
    if data.layout == "auto" and task == "auto" and not place.given:
        _refuse_left_over(place, source)
    return source


def _place(path: Path) -> Place | None:
    suffix = path.suffix.lower()
    if path.is_dir():
        seen = survey(path)
        if not seen.images:
            seen = survey_around(path / "any")  # the images of annotations/ lie beside it
        refuse_arrays(seen)
        place = Place(path, seen, forms(seen))
        return _with_yaml(place) if "yolo" in place.forms else place
    if suffix in (".yaml", ".yml"):
        described = load_data_yaml(path)
        if not described.entries:
            seen = survey(path.parent)
            return Place(path, seen, forms(seen), yaml=described)
        seen, splits, notes = yaml_splits(described)
        return Place(path, seen, forms(seen), yaml=described, splits=splits, notes=notes)
    if suffix in (".json", ".xml") or (suffix in TABLES and is_box_table(path)):
        seen = survey_around(path)
        name = path.relative_to(seen.root).as_posix()
        single = {form: [name] for form, names in forms(seen).items() if name in names}
        return Place(path, seen, single, given=name)
    return None


def _with_yaml(place: Place) -> Place:
    """With the splits of a data.yaml in the folder, where it has some that are there."""
    for name in place.seen.of("yaml"):
        if folder_of(name).count("/") > 1:
            continue
        try:
            described = load_data_yaml(place.seen.path(name))
        except DataError:
            if place.seen.path(name).name in NAME_FILES:
                raise
            continue
        place.yaml = described
        if not described.entries:
            continue
        try:
            seen, splits, notes = yaml_splits(described, within=place.path)
        except DataError as error:
            place.notes.append(f"{error}; the folders tell the splits instead")
            continue
        if seen.root == place.seen.root or place.seen.root in seen.root.parents:
            return Place(place.path, seen, forms(seen), yaml=described, splits=splits, notes=[*place.notes, *notes])
    return place


# Which layout


def _choose(place: Place, task: str, data: Data) -> tuple[str, ObjectSet | MapSet] | None:
    """The layout that is read, with what its reader found."""
    for layout in READ_FORMS:
        if layout not in place.forms or data.layout not in ("auto", layout):
            continue
        if task == "segment" or task not in ("auto", *TASKS.get(layout, OBJECT_TASKS)):
            continue
        if (found := READERS[layout](place, task, data)) is not None:
            return layout, found
    if data.layout in ("auto", "table") and task in ("auto", "detect") and (found := _boxes(place, data)) is not None:
        return "table", found
    if data.layout not in ("auto", "masks") or task == "detect" or place.given or place.splits is not None:
        return None
    if PANOPTIC in place.forms and data.layout == "auto":
        raise DataError(
            f"{place.path}: {place.forms[PANOPTIC][0]} is a panoptic COCO file, whose PNG files hold numbers of segments and no "
            "classes: convert it "
            "to COCO JSON with outlines or to class maps (panopticapi does both)"
        )
    if task != "segment" and (found := read_object_folders(place.seen, data)) is not None:
        return "masks", found
    files = find_maps(place.seen, objects=task == "instances")
    if files is None:
        return None
    if task == "auto" and data.layout == "auto" and not _are_maps(files, place, data):
        return None
    return "masks", _read_maps(files, place, objects=task == "instances", data=data)


def _masks(task: str) -> bool | None:
    return None if task == "auto" else task == "instances"


def _coco(place: Place, task: str, data: Data) -> ObjectSet | None:
    return read_coco(place.seen, place.forms["coco"], masks=_masks(task), data=data, given=bool(place.given))


def _voc(place: Place, task: str, data: Data) -> ObjectSet | None:
    files = place.forms["voc"]
    if not place.seen.images:
        raise DataError(f"{_beside(place, files)}: holds no images for the {len(files)} files in {folder_of(files[0]) or place.path.name}/")
    wording = Wording("XML", "no image {stem}.jpg or of another suffix")
    pairs = paired_splits(place.seen, files, wording=wording, keep_without=False, written=lambda name: written_name(place.seen.head(name)))
    return read_voc(pairs, data=data) if any(pairs.splits.values()) else None


def _beside(place: Place, files: list[str]) -> Path:
    """Where the images of annotations were expected."""
    folder = folder_of(files[0])
    return place.seen.path(folder).parent / "JPEGImages" if folder.endswith("Annotations") else place.path


def _yolo(place: Place, task: str, data: Data) -> ObjectSet | None:
    files = place.forms["yolo"]
    pairs = paired_splits(place.seen, files, wording=Wording("text file", "no image of this name"), keep_without=True, given=place.splits)
    if not any(label for of_split in pairs.splits.values() for _, label in of_split):
        return None
    pairs.notes += place.notes
    names = place.yaml.names if place.yaml else None
    homes = place.homes(files, place.seen.images)
    names = names or next((found for home in homes if (found := read_names(home))), None) or _loose_names(place.seen)
    return read_yolo(pairs, masks=_masks(task), data=data, names=names, keypoints=place.yaml.keypoints if place.yaml else 0)


def _loose_names(seen: Survey) -> tuple[str, ...] | None:
    """The lines of the one file NAME.names, wherever it lies."""
    files = seen.of("names")
    if len(files) != 1:
        return None
    return tuple(line.strip() for line in seen.head(files[0], 1 << 20).decode("utf-8-sig", "replace").splitlines() if line.strip()) or None


def _of_shapes(form: str, read: Callable[..., ObjectSet | None]) -> Callable[[Place, str, Data], ObjectSet | None]:
    return lambda place, task, data: read(place.seen, place.forms[form], masks=_masks(task), data=data)


SHAPES = {
    "labelme": read_labelme, "labelstudio": read_labelstudio, "cvat": read_cvat, "via": read_via, "createml": read_createml,
    "bdd100k": read_bdd100k, "kitti": read_kitti, "dota": read_dota,
}  # fmt: skip
READERS: dict[str, Callable[[Place, str, Data], ObjectSet | None]] = {
    "coco": _coco, "voc": _voc, "yolo": _yolo, **{form: _of_shapes(form, read) for form, read in SHAPES.items()},
}  # fmt: skip


def _boxes(place: Place, data: Data) -> ObjectSet | None:
    named = [place.given] if place.given and is_box_table(place.path) else []
    names = named if place.given else find_box_tables(place.seen)
    return read_box_tables(place.seen, names, data=data) if names else None


# Maps


def _pairs_of_maps(files: MapFiles, place: Place) -> PairedSplits:
    wording = Wording("map", "a map without image")
    maps = [name for name in files.maps if files.affix.strip(plain(stem_of(name))) is not None]
    rivals = pair(files.images, maps, affix=files.affix, own=files.own)
    second = [(name, reason) for name, reason in rivals.ambiguous if reason.endswith("already")]
    if len(second) > len(rivals.annotation_of) / 2:
        name, reason = second[0]
        raise DataError(
            f"{place.path}: most images have several maps (such as {printable(name)}: {reason}), and one is read: join them into "
            "one map with a "
            "value for every class"
        )
    pairs = paired_splits(
        place.seen, maps, wording=wording, keep_without=False, affix=files.affix, own=files.own, images=files.images, prefer="segmentation"
    )
    pairs.dropped += [(printable(name), "a map of another kind than those that are read") for name in sorted({*files.maps} - {*maps})]
    return pairs


def _are_maps(files: MapFiles, place: Place, data: Data) -> bool:
    """Whether files called like maps are some; DataError for what can be nothing else and yet is none."""
    if files.lossy and not files.maps and files.plainly:
        raise DataError(
            f"{place.path}: the masks in {files.described()} are JPEG files (such as {printable(files.lossy[0])}), and JPEG changes their "
            "values: save them as PNG, or read both folders as classes with --layout folders"
        )
    matched = pair(files.images, files.maps, affix=files.affix, own=files.own).annotation_of
    sample = spread(list(matched), 5)
    coloured = any((home / name).is_file() for home in place.homes(files.maps, files.images) for name in ("class_dict.csv", "labelmap.txt"))
    reasons = [
        reason
        for image in sample
        if (reason := why_no_class_map(place.seen.path(image), place.seen.path(matched[image]), data, coloured=coloured))
    ]
    if reasons and len(reasons) == len(sample) and files.plainly:
        raise DataError(
            f"{place.path}: {files.described()} mirror the images but hold no class maps: {reasons[0]}; mend them, or read the folders as "
            "classes with --layout folders"
        )
    return bool(sample) and len(reasons) < len(sample)


def _read_maps(files: MapFiles, place: Place, *, objects: bool, data: Data) -> MapSet | ObjectSet:
    if files.lossy and not files.maps:
        raise DataError(f"{place.path}: the masks in {files.described()} are JPEG files, and JPEG changes their values: save them as PNG")
    pairs, homes = _pairs_of_maps(files, place), place.homes(files.maps, files.images)
    pairs.dropped += [(printable(name), "a mask as JPEG, which changes its values") for name in files.lossy]
    return read_object_maps(pairs, homes=homes, data=data) if objects else read_class_maps(pairs, homes=homes, data=data)


# What is left over


def _refuse_left_over(place: Place, source: Source) -> None:
    """DataError where annotations of another layout belong to images that this reading does not use."""
    used = {name for examples in source.splits.values() for name in examples.names}
    for layout in ("labelme", "voc", "yolo"):
        if layout == source.layout or layout not in place.forms:
            continue
        others = [image for image in pair(place.seen.images, place.forms[layout]).annotation_of if printable(image) not in used]
        if others:
            raise DataError(
                f"{place.path}: read as {CALLED[source.layout]}, {len(others)} images with {CALLED[layout]} annotations are left out (such "
                f"as {printable(others[0])}); choose with --layout {source.layout} or --layout {layout}"
            )


# Sources


def _of_objects(found: ObjectSet, place: Place, layout: str) -> Source:
    labels = [rows.labels for rows in found.splits.values()]
    if not any(map(len, labels)):
        raise DataError(f"{place.path}: no object can be used{_reasons(found.dropped)}")
    if all(rows.crowd.all() for rows in found.splits.values()):
        raise DataError(
            f"{place.path}: all {sum(map(len, labels))} objects are marked as crowds or difficult, which are neither learned from nor "
            "scored; clear the mark of those that should be"
        )
    one_per_image = image_labels(found.splits, len(found.classes))
    task = "instances" if any(rows.with_masks for rows in found.splits.values()) else "detect"
    splits = {split: Examples(rows.rows(one_per_image[split]), found.classes, split) for split, rows in found.splits.items() if len(rows)}
    return _source(splits, found, found.classes, task, place, layout)


def _of_maps(found: MapSet, place: Place, layout: str) -> Source:
    if not any(rows.paths for rows in found.splits.values()):
        raise DataError(f"{place.path}: no image can be used{_reasons(found.dropped)}")
    table, palette, classes = found.meaning.values, found.meaning.palette, found.meaning.classes
    splits = {
        split: Examples(rows.rows(), classes, split, values=table, palette=palette) for split, rows in found.splits.items() if rows.paths
    }
    return _source(splits, found, classes, "segment", place, layout)


def _source(
    splits: dict[str, Examples], found: ObjectSet | MapSet, classes: tuple[str, ...], task: str, place: Place, layout: str
) -> Source:
    splits = {split: splits[split] for split in ("train", "val", "test", "all") if split in splits}
    empty = [(split, "none of its images can be used") for split in found.splits if split not in splits]
    return Source(
        splits, classes, dict.fromkeys(splits, "given"), found.dropped + empty, task,
        layout=layout, root=str(place.seen.root), split_origin=found.origin, ids=getattr(found, "ids", None),
        notes=(*found.notes, *_other_forms(place, layout), *foreign_notes(place.seen)),
    )  # fmt: skip


def _other_forms(place: Place, layout: str) -> list[str]:
    others = [form for form in place.forms if form != layout]
    return [f"{len(place.forms[form])} files of {CALLED.get(form, form)} annotations are not read{_option(form)}" for form in others]


def _option(form: str) -> str:
    return f"; --layout {form} reads them" if form in READ_FORMS else f" (such as {some([form])})"


def _reasons(dropped: list[tuple[str, str]]) -> str:
    listed = "; ".join(f"{name}: {reason}" for name, reason in dropped[:3])
    return f": {listed}" if listed else ""
