"""A folder per image with a file per object: ID/images/ID.png beside ID/masks/*.png, as in the Data Science Bowl of 2018 -> ObjectSet.

Every mask is one object, where it is not 0; all are of the one class "object".
"""

import numpy as np

from convmix.config import Data
from convmix.data import rle
from convmix.data.decode import BadImage
from convmix.data.formats import printable
from convmix.data.readers.maps import LOSSLESS
from convmix.data.readers.objectrows import Fault, ObjectRows, ObjectSet, fit_box, image_size
from convmix.data.readers.paired import is_map_folder
from convmix.data.readers.pixelmaps import read_values
from convmix.data.readers.splits import by_folders
from convmix.data.readers.survey import Survey, folder_of, suffix_of


def read_object_folders(seen: Survey, data: Data) -> ObjectSet | None:
    """None where most images do not have a folder of their own with a folder of masks in it."""
    masks_of: dict[str, list[str]] = {}
    for folder, images in seen.by_folder.items():
        beside = [kid for kid in seen.children.get(folder_of(folder), ()) if kid != folder and is_map_folder(kid.rpartition("/")[2])]
        if len(images) == 1 and folder and not is_map_folder(folder.rpartition("/")[2]) and len(beside) == 1:
            masks_of[images[0]] = [m for m in seen.by_folder.get(beside[0], ()) if suffix_of(m) in LOSSLESS]
    others = [i for i in seen.images if i not in masks_of and not is_map_folder(folder_of(i).rpartition("/")[2])]
    if len(masks_of) < 2 or len(masks_of) < len(others) or max(map(len, masks_of.values())) < 2:
        return None
    splits = by_folders(sorted(masks_of))
    found = ObjectSet(
        {}, ("object",), [(printable(i), "an image without a folder of masks") for i in others], list(splits.notes), splits.origin
    )
    found.dropped += splits.dropped
    for split, names in splits.images.items():
        found.splits[split] = rows = ObjectRows(with_masks=True)
        for name in names:
            _add(rows, name, masks_of[name], seen, found, data)
    return found


def _add(rows: ObjectRows, name: str, masks: list[str], seen: Survey, found: ObjectSet, data: Data) -> None:
    try:
        size = image_size(seen.path(name), data)
    except Fault as fault:
        found.dropped.append((printable(name), str(fault)))
        return
    rows.image(seen.path(name), name, size)
    for mask in masks:
        try:
            values = read_values(seen.path(mask))
            if values.shape != size:
                raise Fault(f"a mask of {values.shape[1]}x{values.shape[0]}, the image is {size[1]}x{size[0]}")
            counts = rle.encode((values != 0)[None].astype(np.uint8))[0]
            if not rle.areas([counts], size)[0]:
                raise Fault("a mask without an object")
            left, top, right, bottom = rle.boxes([counts], size)[0].tolist()
            rows.object(fit_box(left, top, right, bottom, size), 0, mask=counts)
        except (Fault, BadImage) as fault:
            found.dropped.append((printable(mask), str(fault)))
