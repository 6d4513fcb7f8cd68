"""Images with several labels each -> `Source` of the task multilabel.

Columns beside image and name: `labels` (the class numbers of the labels that an image has, sorted; none is an example too), `known` (a
truth value per class: whether anybody said if the image has that label; what is not known is neither learned from nor scored) and `label`
(one class per image for stratified splits: the rarest of its labels, the commonest of all for an image without any).
"""

from collections import Counter
from collections.abc import Sequence

from convmix.data.examples import Examples, Source
from convmix.data.formats import Found
from convmix.data.readers.label_cells import LabelSet
from convmix.errors import DataError


def assemble_several(found: Found, spec: str) -> Source:
    """The classes are the labels of the training images, sorted; a label that only other splits have is counted and left out."""
    sets = {split: [_as_set(label) for label in table.labels] for split, table in found.tables.items()}
    taught = sets.get("train") or sets.get("all") or [s for column in sets.values() for s in column]
    classes = tuple(sorted({name for s in taught for name in (*s.present, *s.unknown)}))
    if not classes:
        raise DataError(f"{spec}: no image has a label")
    ids = {name: i for i, name in enumerate(classes)}
    counts = Counter(name for s in taught for name in s.present)
    dropped = list(found.dropped)
    for split, column in sets.items():
        foreign = Counter(name for s in column for name in s.present if name not in ids)
        dropped += [(f"{split}: {name}", f"a label of {n} images that the training images do not have") for name, n in foreign.items()]
    splits = {split: _examples(found, split, sets[split], ids, counts, classes) for split in found.tables}
    return Source(
        splits, classes, dict.fromkeys(splits, "given"), dropped, "multilabel",
        layout=found.layout or "hub", root=found.root, split_origin=found.split_origin, notes=tuple(found.notes),
    )  # fmt: skip


def _as_set(label: object) -> LabelSet:
    if isinstance(label, LabelSet):
        return label
    return LabelSet(tuple(str(v) for v in label) if isinstance(label, list | tuple) else (str(label),) if label not in (None, "") else ())


def _examples(
    found: Found, split: str, sets: Sequence[LabelSet], ids: dict[str, int], counts: Counter[str], classes: tuple[str, ...]
) -> Examples:
    import pyarrow as pa

    table = found.tables[split]
    commonest = max(classes, key=lambda name: (counts[name], name))
    present = [sorted(ids[name] for name in s.present if name in ids) for s in sets]
    known = [[name not in s.unknown for name in classes] for s in sets]
    rarest = [min(of_image, key=lambda i: (counts[classes[i]], i), default=ids[commonest]) for of_image in present]
    rows = table.images.add_column("label", pa.array(rarest, pa.int64())).add_column("name", pa.array(table.names, pa.string()))
    rows = rows.add_column("labels", pa.array(present, pa.list_(pa.int64()))).add_column("known", pa.array(known, pa.list_(pa.bool_())))
    return Examples(rows, classes, split, found.root)
