"""Labels of whole images in annotation files -> `Found`: COCO without boxes, Label Studio's choices, CVAT's tags, LabelMe's flags."""

from collections.abc import Callable, Sequence

from convmix.data.formats import Found, Table, image_rows, printable
from convmix.data.readers.coco import split_of_file
from convmix.data.readers.cvat import tags
from convmix.data.readers.evidence import load_json
from convmix.data.readers.label_cells import LabelSet
from convmix.data.readers.labelme import flags
from convmix.data.readers.labelstudio import choices
from convmix.data.readers.names import Ambiguous, ImageIndex
from convmix.data.readers.splits import ORDER, Splits, by_folders, by_lists, find_lists
from convmix.data.readers.survey import Survey, some

Tagged = list[tuple[str, list[str], str | None]]  # a written image, its labels, its split where the file tells one


def read_tagged(seen: Survey, forms: dict[str, list[str]], layout: str) -> Found | None:
    """None where no file names labels of images. One label an image is a class; none or several make it data of several labels."""
    index = ImageIndex(seen.root, seen.images)
    for form, read in (("coco", _coco), ("labelstudio", _unsplit(choices)), ("cvat", _unsplit(tags)), ("labelme", _unsplit(flags))):
        if form in forms and layout in ("auto", form) and (tagged := read(seen, forms[form])):
            return _found(seen, index, tagged, form, forms[form])
    return None


def _unsplit(read: Callable[[Survey, list[str]], list[tuple[str, list[str]]]]) -> Callable[[Survey, list[str]], Tagged]:
    return lambda seen, files: [(written, listed, None) for written, listed in read(seen, files)]


def _coco(seen: Survey, files: Sequence[str]) -> Tagged:
    tagged: Tagged = []
    for name in files:
        content = load_json(seen.path(name).read_bytes())
        if not isinstance(content, dict):
            continue
        names = {str(c.get("id")): str(c.get("name")) for c in content.get("categories") or [] if isinstance(c, dict)}
        of_image: dict[str, list[str]] = {}
        for annotation in content.get("annotations") or []:
            if isinstance(annotation, dict) and (label := names.get(str(annotation.get("category_id")))):
                of_image.setdefault(str(annotation.get("image_id")), []).append(label)
        images = [image for image in content.get("images") or [] if isinstance(image, dict)] if of_image else []
        split = split_of_file(name) if len(files) > 1 else None
        tagged += [(str(image.get("file_name")), of_image.get(str(image.get("id")), []), split) for image in images]
    return tagged


def _found(seen: Survey, index: ImageIndex, tagged: Tagged, form: str, files: Sequence[str]) -> Found:
    labels: dict[str, tuple[str, ...]] = {}
    dropped: list[tuple[str, str]] = []
    told: dict[str, str] = {}
    for written, listed, split in tagged:
        try:
            image = index.find(written)
        except Ambiguous as fault:
            dropped.append((printable(written), str(fault)))
            continue
        if image is None:
            dropped.append((printable(written), "no image of this name"))
        else:
            told.update({image: split} if split and told.get(image, "train") == "train" else {})
            labels[image] = tuple(dict.fromkeys((*labels.get(image, ()), *listed)))
    named = [image for image in seen.images if image in labels]
    dropped += [(printable(image), "an image without annotation") for image in seen.images if image not in labels]
    lists = find_lists(seen, index)
    if told:
        origin = f"files {some(files)}"
        splits = Splits({s: of for s in ORDER if (of := [n for n in named if told.get(n, "train") == s])}, origin)
    else:
        splits = by_lists(seen, index, lists, among=named) if lists else by_folders(named)
    several = any(len(listed) > 1 for listed in labels.values())
    tables = {}
    for split, names in splits.images.items():
        cells: list[LabelSet | str] = [LabelSet(labels[n]) if several else next(iter(labels[n]), "") for n in names]
        if names:
            tables[split] = Table(image_rows(names), cells, names)
    notes = list(splits.notes)
    if several:
        notes.append(f"images have several labels in {printable(seen.root.name)}: the task is multilabel")
    return Found(
        tables, root=str(seen.root.absolute()), dropped=[*dropped, *splits.dropped], notes=notes, split_origin=splits.origin, layout=form
    )
