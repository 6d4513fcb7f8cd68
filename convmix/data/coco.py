"""COCO's JSON: images, categories, and annotations with a box x, y, width, height and an outline as polygons or run lengths.

Microsoft COCO's own layout (annotations/instances_train2017.json + train2017/), Roboflow's (train/_annotations.coco.json among its
images), or a JSON beside its images. Format: https://cocodataset.org/#format-data.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmix.config import Data
from convmix.data import rle
from convmix.data.formats import SPLIT_WORDS, printable
from convmix.data.objectrows import Box, Fault, ObjectRows, ObjectSet, fit_box, image_size, left_out, numbers
from convmix.errors import DataError, did_you_mean


@dataclass(frozen=True)
class _Listing:
    """One JSON file."""

    path: Path
    name: str  # relative to the data set
    split: str  # "all" where the data is not split
    images: list[Any]
    annotations: list[Any]
    categories: list[dict[str, Any]]  # each with id and name

    @property
    def objects(self) -> Iterator[dict[str, Any]]:
        return (a for a in self.annotations if isinstance(a, dict) and ("bbox" in a or "segmentation" in a))


def read_coco(path: Path, *, masks: bool | None, data: Data) -> ObjectSet | None:
    """The data set that a COCO JSON, or a folder with such files, describes; None where there is no such file.

    masks: whether outlines are read; None: where every object has one. Objects without a valid outline are then dropped.
    The classes are the categories of the training file by id. Raises DataError for a file that is no JSON, and where none of the images
    that it lists is there.
    """
    root = _root(path)
    dropped: list[tuple[str, str]] = []
    listings = _listings(path, root, dropped)
    if not any(True for listing in listings for _ in listing.objects):
        return None
    with_masks = all(a.get("segmentation") for listing in listings for a in listing.objects) if masks is None else masks
    found = ObjectSet({}, _classes(next((x for x in listings if x.split in ("train", "all")), listings[0])), dropped)
    for listing in listings:
        found.splits[listing.split] = _read(listing, root, found, with_masks=with_masks, data=data)
    return found


# Files


def _root(path: Path) -> Path:
    """What names are relative to, and below which images are looked for."""
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name.lower() == "annotations" else path.parent


def _listings(path: Path, root: Path, dropped: list[tuple[str, str]]) -> list[_Listing]:
    """Per split the file that describes it; DataError where two claim one split."""
    opened = [(file, content) for file in _json_files(path) if (content := _load(file)) is not None]
    splits = [_split_of(file, root) for file, _ in opened]
    if path.is_file() or not any(splits):
        splits = ["all"] * len(opened)
    listings: dict[str, _Listing] = {}
    for (file, content), split in zip(opened, splits, strict=True):
        name = printable(os.path.relpath(file, root))
        if split is None:
            dropped.append((name, "its name tells no split"))
        elif split in listings:
            what = "the images" if split == "all" else f"the {split} split"
            raise DataError(f"{listings[split].path} and {file} both describe {what}; give one of them, or keep one")
        else:
            listings[split] = _Listing(file, name, split, content["images"], content["annotations"], _categories(file, content))
    return list(listings.values())


def _json_files(path: Path) -> list[Path]:
    """At the top, in annotations/ or in the folder of a split; instances_*.json before keypoints, captions and others."""
    if path.is_file():
        return [path]
    folders = [path, *sorted(p for p in path.iterdir() if p.is_dir() and p.name.lower() in {"annotations", *SPLIT_WORDS})]
    files = [f for folder in folders for f in sorted(folder.glob("*.json")) if f.is_file()]
    return [f for f in files if f.name.startswith("instances_")] or files


def _load(file: Path) -> dict[str, Any] | None:
    """The content of a COCO file, None for other JSON."""
    try:
        text = file.read_bytes()
        if b'"images"' not in text or b'"annotations"' not in text:
            return None
        content = json.loads(text)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{file}:{error.lineno}: is broken JSON: {error.msg}") from None
    except (UnicodeDecodeError, RecursionError):
        raise DataError(f"{file}: is no JSON: not text in UTF-8, or nested too deeply") from None
    is_coco = isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))
    return content if is_coco else None


def _split_of(file: Path, root: Path) -> str | None:
    """The split that a word of the file's name begins with or, below `root`, its folder's: instances_train2017.json, valid/x.json."""
    words = re.findall(r"[a-z]+", file.stem.lower())
    folder = file.parent.name.lower() if file.parent != root else ""
    return next((SPLIT_WORDS[w] for w in [*words, folder] if w in SPLIT_WORDS), None)


def _categories(file: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    listed = content.get("categories")
    if not isinstance(listed, list) or not all(isinstance(c, dict) and "id" in c and isinstance(c.get("name"), str) for c in listed):
        raise DataError(f'{file}: expected "categories", a list of {{"id": 1, "name": "..."}}')
    return listed


def _classes(listing: _Listing) -> tuple[str, ...]:
    """Names in the order of their ids, without the unused heading over the others that Roboflow's exports list first."""
    used = {_key(a.get("category_id")) for a in listing.objects}
    headings = {c.get("supercategory") for c in listing.categories if c.get("supercategory") != c["name"]}
    kept = [c for c in listing.categories if _key(c["id"]) in used or c["name"] not in headings]
    kept.sort(key=lambda c: (0, c["id"]) if isinstance(c["id"], int | float) else (1, str(c["id"])))
    return tuple(dict.fromkeys(c["name"] for c in kept))


# Images and objects


def _read(listing: _Listing, root: Path, found: ObjectSet, *, with_masks: bool, data: Data) -> ObjectRows:
    images = _images(listing, found.dropped)
    objects = _objects(listing, images, found.dropped)
    folders = _Folders(listing.path, root, [image["file_name"] for image in images.values()])
    category_names = {_key(c["id"]): c["name"] for c in listing.categories}
    rows = ObjectRows(with_masks=with_masks)
    first: dict[Path, Any] = {}  # file -> the id of the image that has it
    for key, image in images.items():
        mine = objects.pop(key)
        try:
            file = folders.find(image["file_name"])
            if file is None:
                raise Fault(f"no such file: {image['file_name']}")
            if first.setdefault(file, key) != key:
                raise Fault(f"the same file as image {first[file]}")
            size = image_size(file, data, annotated=_size(image))
        except Fault as fault:
            found.dropped.append((f"{listing.name}: image {key}", left_out(str(fault), len(mine))))
            continue
        rows.image(file, os.path.relpath(file, root), size)
        for name, annotation in mine:
            try:
                label = _label(annotation, category_names, found.classes)
                box, mask = _outline(annotation, size, with_masks=with_masks)
                rows.object(box, label, crowd=bool(annotation.get("iscrowd")), mask=mask)
            except Fault as fault:
                found.dropped.append((name, str(fault)))
    if images and not first:
        raise DataError(f"{listing.path}: none of its {len(images)} images is in {folders.described()}; put them there")
    return rows


def _images(listing: _Listing, dropped: list[tuple[str, str]]) -> dict[Any, dict[str, Any]]:
    """The listed images by id."""
    images: dict[Any, dict[str, Any]] = {}
    for i, image in enumerate(listing.images):
        if not isinstance(image, dict) or "id" not in image or not isinstance(image.get("file_name"), str) or not image["file_name"]:
            dropped.append((f"{listing.name}: image at index {i}", "without id or file_name"))
        elif _key(image["id"]) in images:
            dropped.append((f"{listing.name}: image at index {i}", f"another image with the id {image['id']}"))
        else:
            images[_key(image["id"])] = image
    return images


def _objects(listing: _Listing, images: dict[Any, Any], dropped: list[tuple[str, str]]) -> dict[Any, list[tuple[str, dict[str, Any]]]]:
    """Per image id its annotations, each with its name for people."""
    objects: dict[Any, list[tuple[str, dict[str, Any]]]] = {key: [] for key in images}
    for i, annotation in enumerate(listing.annotations):
        known = isinstance(annotation, dict)
        name = f"{listing.name}: annotation {annotation['id'] if known and 'id' in annotation else f'at index {i}'}"
        if not known or "image_id" not in annotation:
            dropped.append((name, "without image_id"))
        elif _key(annotation["image_id"]) not in objects:
            dropped.append((name, f"of image {annotation['image_id']}, which is not listed"))
        else:
            objects[_key(annotation["image_id"])].append((name, annotation))
    return objects


def _key(identifier: Any) -> Any:
    return identifier if isinstance(identifier, int | float | str) else repr(identifier)


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    size = image.get("height"), image.get("width")
    return (size[0], size[1]) if all(isinstance(side, int) and side > 0 for side in size) else None  # type: ignore[return-value]


def _label(annotation: dict[str, Any], category_names: dict[Any, str], classes: tuple[str, ...]) -> int:
    if "category_id" not in annotation:
        raise Fault("without category_id")
    name = category_names.get(_key(annotation["category_id"]))
    if name is None:
        raise Fault(f"of category {annotation['category_id']}, which is not listed")
    if name not in classes:
        raise Fault(f"of category {name!r}, which the training images do not have{did_you_mean(name, classes)}")
    return classes.index(name)


def _outline(annotation: dict[str, Any], size: tuple[int, int], *, with_masks: bool) -> tuple[Box, bytes | None]:
    """The box, and the mask where it is wanted; an annotation without a box gets the one around its mask."""
    bbox, segmentation = annotation.get("bbox"), annotation.get("segmentation")
    mask = _mask(segmentation, size) if with_masks or bbox is None else None
    if bbox is None and mask is not None:
        left, top, right, bottom = rle.boxes([mask], size)[0].tolist()
        return fit_box(left, top, right, bottom, size), mask
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise Fault(f"a box of {str(bbox)[:60]}, expected x, y, width, height")
    left, top, width, height = numbers(bbox)
    return fit_box(left, top, left + width, top + height, size), mask


def _mask(segmentation: Any, size: tuple[int, int]) -> bytes:
    if not segmentation:
        raise Fault("without an outline (segmentation)")
    try:
        is_rle = isinstance(segmentation, dict)
        counts = (
            rle.from_runs(segmentation.get("counts"), segmentation.get("size"), size) if is_rle else rle.from_polygons(segmentation, size)
        )
    except ValueError as error:
        raise Fault(str(error)) from None
    if not rle.areas([counts], size)[0]:
        raise Fault("an outline without area inside the image")
    return counts


class _Folders:
    """Where the images of a JSON lie: beside it, or in a folder called after its split, or under images/."""

    def __init__(self, listing: Path, root: Path, file_names: list[str]) -> None:
        words = [w for w in re.findall(r"[A-Za-z]+\d*", listing.stem) if re.sub(r"\d", "", w.lower()) in SPLIT_WORDS]
        beside = [listing.parent, root]
        usual = [folder / inner for folder in beside for inner in (*words, *(f"images/{w}" for w in words), "images", ".", *SPLIT_WORDS)]
        folders = [f for f in dict.fromkeys(Path(os.path.normpath(f)) for f in usual) if f.is_dir()]
        sample = file_names[:50]
        self._folders = sorted(folders, key=lambda f: -sum(_is_file(f / _plain(name)) for name in sample))

    def find(self, file_name: str) -> Path | None:
        """The file, by its path as listed or else by its name alone: exporters like to write paths of another machine."""
        plain = _plain(file_name)
        names = [name for name in dict.fromkeys((plain, Path(plain).name)) if name]
        return next((path for name in names for folder in self._folders if _is_file(path := folder / name)), None)

    def described(self) -> str:
        return ", ".join(f"{f}/" for f in self._folders)


def _plain(file_name: str) -> str:
    """A path below one of the folders; an absolute path is one of another machine, as good as its last name."""
    path = file_name.replace("\\", "/")
    return path.rsplit("/", 1)[-1] if path.startswith("/") or path[1:2] == ":" else path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # an impossible name
        return False
