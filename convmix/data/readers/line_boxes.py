"""A text file an image, a line an object, with the class's name: KITTI's label_2 and DOTA's labelTxt -> ObjectSet.

KITTI   Car 0.00 0 -1.58 left top right bottom and seven numbers of the box in space, which are not read
DOTA    x1 y1 x2 y2 x3 y3 x4 y4 ship difficult, in pixels, below lines such as imagesource:GoogleEarth

Formats: https://www.cvlibs.net/datasets/kitti/eval_object.php, https://captain-whu.github.io/DOTA/dataset.html.
"""

from collections.abc import Callable, Sequence

from convmix.config import Data
from convmix.data.formats import printable
from convmix.data.readers.objectrows import Fault, ObjectSet
from convmix.data.readers.paired import pictures_of
from convmix.data.readers.pairing import pair
from convmix.data.readers.shapes import ImageShapes, Shape, extent, finite, object_set
from convmix.data.readers.survey import Survey, folder_of

DONT_CARE = "dontcare"


def read_kitti(seen: Survey, files: Sequence[str], *, masks: bool | None, data: Data) -> ObjectSet | None:
    """Boxes in the image; regions called DontCare are left out."""
    cameras = {folder_of(name).rpartition("_")[2] for name in files}
    pictures = pictures_of(seen)[0]
    same = [i for i in pictures if folder_of(i).rpartition("_")[2] in cameras]  # label_2 is of image_2, the left colour camera
    found = _read(seen, files, same or pictures, _kitti, masks=bool(masks), data=data)
    ignored = sum("DontCare" in reason for _, reason in found.dropped) if found else 0
    if found and ignored:
        found.notes.append(f"{ignored} regions called DontCare are left out")
    return found


def read_dota(seen: Survey, files: Sequence[str], *, masks: bool | None, data: Data) -> ObjectSet | None:
    """masks: the corners are read as outlines; else the upright boxes around them."""
    found = _read(seen, files, pictures_of(seen)[0], _dota, masks=bool(masks), data=data)
    if found and not masks:
        found.notes.append("oriented boxes are read as the upright boxes around them; --task instances reads their outlines")
    return found


def _read(
    seen: Survey, files: Sequence[str], pictures: Sequence[str], line: Callable[[list[str], str], Shape | None], *, masks: bool, data: Data
) -> ObjectSet | None:
    pairs = pair(pictures, files)
    images = [_image(seen, name, image, line) for image, name in pairs.annotation_of.items()]
    found = object_set(seen, images, masks=masks, data=data)
    if found:
        found.dropped += [(printable(name), "no image of this name") for name in pairs.lone]
        found.dropped += [(printable(name), reason) for name, reason in pairs.ambiguous]
    return found


def _image(seen: Survey, name: str, image: str, line: Callable[[list[str], str], Shape | None]) -> ImageShapes:
    described = ImageShapes("", image, None)
    try:
        text = seen.path(name).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        described.faults.append((printable(name), f"cannot be read: {error}"))
        return described
    for number, words in enumerate(map(str.split, text.splitlines()), start=1):
        where = f"{printable(name)}:{number}"
        try:
            if words and (shape := line(words, where)) is not None:
                described.shapes.append(shape)
        except Fault as fault:
            described.faults.append((where, str(fault)))
    return described


def _kitti(words: list[str], where: str) -> Shape:
    if len(words) < 8:
        raise Fault(f"{len(words)} words, expected 15 of KITTI")
    if words[0].lower() == DONT_CARE:
        raise Fault("a region called DontCare")
    left, top, right, bottom = finite(words[4:8])
    return Shape(where, words[0], (left, top, right, bottom))


def _dota(words: list[str], where: str) -> Shape | None:
    if len(words) == 1 and ":" in words[0]:
        return None  # imagesource:..., gsd:...
    if len(words) not in (9, 10):
        raise Fault(f"{len(words)} words, expected four corners, a class and whether it is difficult")
    corners = tuple(finite(words[:8]))
    return Shape(where, words[8], extent(corners), (corners,), crowd=words[9:] == ["1"])
