"""COCO's JSON: images, categories, and annotations with a box x, y, width, height and an outline as polygons or run lengths.

Microsoft COCO's own layout (annotations/instances_train2017.json + train2017/), Roboflow's (train/_annotations.coco.json among its
images), or JSON files and images anywhere in the data set. Format: https://cocodataset.org/#format-data.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from convmix.config import Data
from convmix.data import rle
from convmix.data.coco_ids import CocoIds
from convmix.data.formats import SPLIT_WORDS, printable
from convmix.data.readers.coco_fields import are_shares, in_pixels, is_crowd, key_of, segmentation_of, size_of
from convmix.data.readers.names import Ambiguous, ImageIndex
from convmix.data.readers.objectrows import Box, Fault, ObjectRows, ObjectSet, Turned, annotated_size, fit_box, left_out, numbers
from convmix.data.readers.paired import pictures_of
from convmix.data.readers.splits import Splits, by_folders, by_lists, find_lists
from convmix.data.readers.survey import Survey, some
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


def read_coco(seen: Survey, files: list[str], *, masks: bool | None, data: Data, given: bool) -> ObjectSet | None:
    """The data set that COCO JSON files describe; None where none of them holds objects.

    files: names relative to the survey. masks: whether outlines are read; None: where most objects have one. Objects without a valid
    outline are then not learned from. given: the user named the file, so its name tells no split.
    The classes are the categories of the training file by id. Raises DataError for a file that is no JSON, and where none of the images
    that it lists is there.
    """
    dropped: list[tuple[str, str]] = []
    listings = _listings(seen, files, dropped, given=given)
    if not any(True for listing in listings for _ in listing.objects):
        return None
    for listing in [x for x in listings if not any(True for _ in x.objects)]:
        listings.remove(listing)
        dropped.append((listing.name, f"its {len(listing.images)} images have no annotations"))
    objects = [a for listing in listings for a in listing.objects]
    outlines = sum(bool(segmentation_of(a)) for a in objects)
    with_masks = 3 * outlines >= 2 * len(objects) if masks is None else masks
    found = ObjectSet({}, _classes(next((x for x in listings if x.split in ("train", "all")), listings[0])), dropped)
    if 0 < outlines < len(objects) and masks is None:
        alone = "are a box without outline: they are neither learned from nor scored; --task detect reads boxes alone"
        boxes = f"{len(objects) - outlines} of {len(objects)} objects"
        found.notes.append(f"{boxes} {alone}" if with_masks else f"{boxes} have no outline: all are read as boxes")
    if any(a.get("keypoints") for a in objects):
        found.notes.append("keypoints are left out: of the objects that have them the box and the outline are read")
    image_ids: dict[str, Any] = {}
    for listing in listings:
        found.notes += _repeated(listing)
        rows = _read(listing, seen, found, with_masks=with_masks, data=data, image_ids=image_ids)
        if listing.split == "all":
            found.splits.update(_split(rows, listing, seen, found))
        else:
            found.splits[listing.split] = rows
    category_ids = {c["name"]: c["id"] for listing in reversed(listings) for c in reversed(listing.categories)}
    found.ids = CocoIds(category_ids, image_ids)
    if "all" not in found.splits and not found.origin:
        found.origin = f"files {some(listing.name for listing in listings)}"
    return found


# Files


def _listings(seen: Survey, files: list[str], dropped: list[tuple[str, str]], *, given: bool) -> list[_Listing]:
    """Per split the file that describes it; DataError where two claim one split. instances_*.json before keypoints, captions and others."""
    files = [f for f in files if f.rpartition("/")[2].startswith("instances_")] or files
    opened = [(name, content) for name in files if (content := _load(seen.path(name))) is not None]
    splits = [split_of_file(name) for name, _ in opened]
    if given or not any(splits):
        splits = ["all"] * len(opened)
    listings: dict[str, _Listing] = {}
    for (name, content), split in zip(opened, splits, strict=True):
        file = seen.path(name)
        if split is None:
            dropped.append((printable(name), "its name tells no split"))
        elif split in listings:
            what = "the images" if split == "all" else f"the {split} split"
            raise DataError(f"{listings[split].path} and {file} both describe {what}; give one of them, or keep one")
        else:
            categories = _categories(file, content)
            listings[split] = _Listing(file, printable(name), split, content["images"], content["annotations"], categories)
    return list(listings.values())


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


def split_of_file(name: str) -> str | None:
    """The split that a word of the file's name begins with or its folder's: instances_train2017.json, valid/x.json."""
    folders, _, base = name.rpartition("/")
    words = re.findall(r"[a-z]+", base.rpartition(".")[0].lower())
    return next((SPLIT_WORDS[w] for w in [*words, *reversed(folders.lower().split("/"))] if w in SPLIT_WORDS), None)


def _categories(file: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    listed = content.get("categories")
    if not isinstance(listed, list) or not all(isinstance(c, dict) and "id" in c and isinstance(c.get("name"), str) for c in listed):
        raise DataError(f'{file}: expected "categories", a list of {{"id": 1, "name": "..."}}')
    names: dict[Any, str] = {}
    for category in listed:
        if names.setdefault(key_of(category["id"]), category["name"]) != category["name"]:
            raise DataError(
                f'{file}: "categories" has the id {category["id"]} twice, {names[key_of(category["id"])]} and {category["name"]}'
            )
    return listed


def _repeated(listing: _Listing) -> list[str]:
    ids: dict[str, set[Any]] = {}
    for category in listing.categories:
        ids.setdefault(category["name"], set()).add(key_of(category["id"]))
    twice = [name for name, of_name in ids.items() if len(of_name) > 1]
    return [f"{listing.name} has {some(twice)} under several ids: they are one class"] if twice else []


def _classes(listing: _Listing) -> tuple[str, ...]:
    """Names in the order of their ids, without the unused heading over the others that Roboflow's exports list first."""
    used = {key_of(a.get("category_id")) for a in listing.objects}
    headings = {c.get("supercategory") for c in listing.categories if c.get("supercategory") != c["name"]}
    kept = [c for c in listing.categories if key_of(c["id"]) in used or c["name"] not in headings]
    kept.sort(key=lambda c: (0, key) if isinstance(key := key_of(c["id"]), int | float) else (1, str(key)))
    return tuple(dict.fromkeys(c["name"] for c in kept))


# Images and objects


@dataclass(frozen=True)
class _Image:
    """One listed image whose file is there."""

    key: Any
    id: Any  # as it is written
    file: str  # relative to the survey
    size: tuple[int, int]  # height, width, upright
    orientation: int  # EXIF's, where the size is listed as before it turned the image; else 1
    objects: list[tuple[str, dict[str, Any]]]  # name for people, annotation


@dataclass(frozen=True)
class _Way:
    """How the boxes and outlines of a file are written."""

    turned: Turned
    corners: bool  # left, top, right, bottom in the place of left, top, width, height


def _read(listing: _Listing, seen: Survey, found: ObjectSet, *, with_masks: bool, data: Data, image_ids: dict[str, Any]) -> ObjectRows:
    """The images of one file; their ids are put into `image_ids`."""
    images = _located(listing, seen, found, data)
    if are_shares([a for image in images for _, a in image.objects]):
        images = [replace(image, objects=[(name, in_pixels(a, image.size)) for name, a in image.objects]) for image in images]
        found.notes.append(f"{listing.name}: the boxes are read as shares of the image, for no number is above 1")
    way = _Way(Turned(), _are_corners(images))
    for image in images:
        if image.orientation > 1:
            way.turned.see([b for _, a in image.objects if (b := _edges(a, corners=way.corners))], image.size)
    found.notes += way.turned.note()
    if way.corners:
        found.notes.append(
            f"{listing.name}: the boxes are read as left, top, right, bottom (xyxy): as width and height many leave the image"
        )
    category_names = {key_of(c["id"]): c["name"] for c in listing.categories}
    rows = ObjectRows(with_masks=with_masks)
    for image in images:
        rows.image(seen.path(image.file), image.file, image.size)
        image_ids[image.file] = image.id
        for name, annotation in image.objects:
            try:
                label = _label(annotation, category_names, found.classes)
                box, mask = _outline(annotation, image, way, with_masks=with_masks)
                if with_masks and mask is None:
                    rows.box_alone(box, label, image.size)
                    raise Fault("without an outline (segmentation)")
                rows.object(box, label, crowd=is_crowd(annotation), mask=mask)
            except Fault as fault:
                found.dropped.append((name, str(fault)))
    return rows


def _located(listing: _Listing, seen: Survey, found: ObjectSet, data: Data) -> list[_Image]:
    """The listed images that can be read, in the order of the file."""
    images = _images(listing, found.dropped)
    objects = _objects(listing, images, found.dropped)
    index = ImageIndex(seen.root, pictures_of(seen)[0])
    first: dict[str, Any] = {}  # file -> the id of the image that has it
    located, near = [], 0
    for key, image in images.items():
        mine = objects.pop(key)
        written = image["file_name"]
        try:
            try:
                file = index.find(written, base=listing.name.rpartition("/")[0], hint=listing.name)
            except Ambiguous as several:
                raise Fault(f"{several}; its file_name {written} tells no folder") from None
            if file is None:
                raise Fault(f"no such file: {written}")
            if first.setdefault(file, key) != key:
                raise Fault(f"the same file as image {first[file]}")
            near += written.replace("\\", "/").rpartition("/")[2] != file.rpartition("/")[2]
            located.append(_Image(key, image["id"], file, *annotated_size(seen.path(file), data, size_of(image)), mine))
        except Fault as fault:
            found.dropped.append((f"{listing.name}: image {key}", left_out(str(fault), len(mine))))
    if images and not first:
        raise DataError(
            f"{listing.path}: none of its {len(images)} images is in {_folders(seen)}; put them there, or give a folder that holds both"
        )
    if near:
        found.notes.append(
            f"{listing.name}: {near} file names were matched to images of nearly the same name (suffix, letter case, encoding)"
        )
    return located


def _folders(seen: Survey) -> str:
    return some((f"{seen.root / folder}/" for folder in seen.by_folder), 4) or f"{seen.root}/"


def _split(rows: ObjectRows, listing: _Listing, seen: Survey, found: ObjectSet) -> dict[str, ObjectRows]:
    """One file for all images: split by lists beside it, or by the images' folders, where these tell a split."""
    lists = find_lists(seen, index := ImageIndex(seen.root, pictures_of(seen)[0]))
    splits: Splits = by_lists(seen, index, lists, among=rows.names) if lists else by_folders(rows.names)
    if list(splits.images) == ["all"] or "train" not in splits.images:
        return {"all": rows}
    found.origin = splits.origin
    found.dropped += splits.dropped
    found.notes += splits.notes
    position = {name: i for i, name in enumerate(rows.names)}
    return {split: rows.select([position[name] for name in names]) for split, names in splits.images.items()}


def _edges(annotation: dict[str, Any], *, corners: bool) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom as written; None where that is no box."""
    try:
        left, top, width, height = numbers(annotation.get("bbox") or ())
    except (Fault, TypeError, ValueError):
        return None
    return (left, top, width, height) if corners else (left, top, left + width, top + height)


def _are_corners(images: list[_Image]) -> bool:
    """Whether of boxes, many of which leave the image, all lie inside as two corners."""
    count = over = 0
    for image in images:
        height, width = image.size if image.orientation == 1 else (max(image.size), max(image.size))
        for _, annotation in image.objects:
            if (edges := _edges(annotation, corners=True)) is None:
                continue
            left, top, right, bottom = edges
            if not (0 <= left < right <= width + 1 and 0 <= top < bottom <= height + 1):
                return False
            count += 1
            over += left + right > width + 1 or top + bottom > height + 1
    return count >= 5 and 5 * over >= count


def _images(listing: _Listing, dropped: list[tuple[str, str]]) -> dict[Any, dict[str, Any]]:
    """The listed images by id."""
    images: dict[Any, dict[str, Any]] = {}
    for i, image in enumerate(listing.images):
        if isinstance(image, dict) and not image.get("file_name") and isinstance(image.get("coco_url"), str):  # LVIS
            image = {**image, "file_name": image["coco_url"].partition("://")[2].partition("/")[2]}
        if not isinstance(image, dict) or image.get("id") is None or not isinstance(image.get("file_name"), str) or not image["file_name"]:
            dropped.append((f"{listing.name}: image at index {i}", "without id or file_name"))
        elif key_of(image["id"]) in images:
            dropped.append((f"{listing.name}: image at index {i}", f"another image with the id {image['id']}"))
        else:
            images[key_of(image["id"])] = image
    return images


def _objects(listing: _Listing, images: dict[Any, Any], dropped: list[tuple[str, str]]) -> dict[Any, list[tuple[str, dict[str, Any]]]]:
    """Per image id its annotations, each with its name for people."""
    objects: dict[Any, list[tuple[str, dict[str, Any]]]] = {key: [] for key in images}
    for i, annotation in enumerate(listing.annotations):
        known = isinstance(annotation, dict)
        name = f"{listing.name}: annotation {annotation['id'] if known and 'id' in annotation else f'at index {i}'}"
        if not known or "image_id" not in annotation:
            dropped.append((name, "without image_id"))
        elif key_of(annotation["image_id"]) not in objects:
            dropped.append((name, f"of image {annotation['image_id']}, which is not listed"))
        else:
            objects[key_of(annotation["image_id"])].append((name, annotation))
    return objects


def _label(annotation: dict[str, Any], category_names: dict[Any, str], classes: tuple[str, ...]) -> int:
    if "category_id" not in annotation:
        raise Fault("without category_id")
    name = category_names.get(key_of(annotation["category_id"]))
    if name is None:
        raise Fault(f"of category {annotation['category_id']}, which is not listed")
    if name not in classes:
        raise Fault(f"of category {name!r}, which the training images do not have{did_you_mean(name, classes)}")
    return classes.index(name)


def _outline(annotation: dict[str, Any], image: _Image, way: _Way, *, with_masks: bool) -> tuple[Box, bytes | None]:
    """The box, and the mask where it is wanted and known; an annotation without a box gets the one around its mask."""
    bbox, segmentation, size = annotation.get("bbox") or None, segmentation_of(annotation), image.size
    wanted = with_masks and (segmentation or bbox is None)
    mask = _mask(segmentation, image, way.turned) if wanted or bbox is None else None
    if bbox is None and mask is not None:
        left, top, right, bottom = rle.boxes([mask], size)[0].tolist()
        return fit_box(left, top, right, bottom, size), mask
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise Fault(f"a box of {str(bbox)[:60]}, expected x, y, width, height")
    left, top, width, height = numbers(bbox)
    edges = (left, top, width, height) if way.corners else (left, top, left + width, top + height)
    return fit_box(*way.turned.box(edges, size, image.orientation), size), mask


def _mask(segmentation: Any, image: _Image, turned: Turned) -> bytes:
    if not segmentation:
        raise Fault("without an outline (segmentation)")
    size = image.size
    try:
        if isinstance(segmentation, dict):
            counts = _runs(segmentation, image)
        elif image.orientation > 1 and turned.stored:
            counts = rle.from_polygons([_turned(polygon, image, turned) for polygon in segmentation], size)
        else:
            counts = rle.from_polygons(segmentation, size)
    except (ValueError, TypeError) as error:
        raise Fault(str(error)) from None
    if not rle.areas([counts], size)[0]:
        raise Fault("an outline without area inside the image")
    return counts


def _runs(segmentation: dict[str, Any], image: _Image) -> bytes:
    """Run lengths over the image as stored are turned with it. Raises ValueError."""
    counts, at, size = segmentation.get("counts"), segmentation.get("size"), image.size
    if image.orientation < 5 or at != [*size[::-1]]:
        return rle.from_runs(counts, at, size)
    stored = rle.decode([rle.from_runs(counts, at, size[::-1])], size[::-1])[0]
    upright = {5: stored.T, 6: np.rot90(stored, -1), 7: np.rot90(stored, 2).T, 8: np.rot90(stored)}[image.orientation]
    return rle.encode(upright[None])[0]


def _turned(polygon: list[Any], image: _Image, turned: Turned) -> list[float]:
    points = zip(polygon[0::2], polygon[1::2], strict=False)
    return [v for x, y in points for v in turned.point(x, y, image.size, image.orientation)]
