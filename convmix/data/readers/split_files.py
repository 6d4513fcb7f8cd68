"""Files that say which images are for training, validation and test, and are no plain lists: JSON, tables, and ids beside names.

split.json {"train": ["a.jpg", ...], "val": [...]}; train.json ["a.jpg", ...] or {"cat": ["cat/1", ...]}; train.csv of one column;
splits.csv with a column of splits; images.txt and train_test_split.txt of CUB-200 (id name; id 1 or 0).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from convmix.data.formats import SPLIT_WORDS
from convmix.data.readers.evidence import load_json
from convmix.data.readers.survey import Survey, folder_of, stem_of, words_of
from convmix.data.readers.table_files import Rows, read_rows
from convmix.errors import DataError

PARTITIONS = {"0": "train", "1": "val", "2": "test"}  # CelebA's numbers
SPLIT_COLUMNS = (
    "split", "subset", "set", "fold", "partition", "data_set", "dataset", "data_split", "usage", "phase", "train_val_test", "train_test",
    "split_name",
)  # fmt: skip
TRUTHS = {
    "is_valid": "val",
    "is_val": "val",
    "is_validation": "val",
    "valid": "val",
    "is_test": "test",
    "is_train": "train",
    "is_training_img": "train",
}
YES, NO = frozenset({"true", "1", "1.0", "yes"}), frozenset({"false", "0", "0.0", "no", ""})
TELLING = frozenset({*SPLIT_WORDS, "trainval", "split", "splits", "partition", "partitions", "sets", "folds"})
MOST_FILES = 20  # of a kind: where there are more, each belongs to an image


def split_cells(header: str, cells: Sequence[str]) -> list[str] | None:
    """The split of every row as a column says it; None where the column says something else."""
    plain = re.sub(r"[\s-]+", "_", header.strip().lower())
    lowered = [cell.strip().lower() for cell in cells]
    if plain in TRUTHS and set(lowered) <= YES | NO and len(set(lowered) & YES) and len(set(lowered) & NO):
        told = TRUTHS[plain]
        return [told if cell in YES else "test" if told == "train" else "train" for cell in lowered]
    if plain not in SPLIT_COLUMNS:
        return None
    if lowered and all(_word(cell) for cell in lowered):
        return [_word(cell) for cell in lowered]
    whole = [cell.removesuffix(".0") for cell in lowered]
    if plain == "partition" and {"0", "1"} <= set(whole) <= set(PARTITIONS):
        return [PARTITIONS[cell] for cell in whole]
    return None


def _word(cell: str) -> str:
    """Also FER-2013's PublicTest and PrivateTest."""
    return SPLIT_WORDS.get(cell, {"publictest": "val", "privatetest": "test"}.get(cell, ""))


def described_splits(seen: Survey) -> Iterable[tuple[str, dict[str, list[str]]]]:
    """Per file the written names of the images in every split that it tells of."""
    texts = {name: name for name in seen.of("text")}
    for name in texts:
        split = f"{folder_of(name)}/train_test_split.txt".lstrip("/")
        if stem_of(name) == "images" and split in texts:
            yield split, _by_ids(seen, name, split)
    jsons, tables = seen.of("json"), seen.of("table")
    for name in jsons if len(jsons) <= MOST_FILES else ():
        if TELLING & {*words_of(stem_of(name))} and (found := _of_json(seen, name)):
            yield name, found
    for name in tables if len(tables) <= MOST_FILES else ():
        if "submission" not in stem_of(name).lower() and (found := _of_table(seen, name)):
            yield name, found


def _by_ids(seen: Survey, names: str, splits: str) -> dict[str, list[str]]:
    pairs = [dict(row for line in _lines(seen, name) if len(row := line.split(None, 1)) == 2) for name in (names, splits)]
    found: dict[str, list[str]] = {"train": [], "test": []}
    for number, written in pairs[0].items():
        if (told := pairs[1].get(number, "").strip()) in ("0", "1"):
            found["train" if told == "1" else "test"].append(written.strip())
    return {split: listed for split, listed in found.items() if listed}


def _lines(seen: Survey, name: str) -> list[str]:
    return seen.path(name).read_text(encoding="utf-8-sig", errors="replace").splitlines()


def _of_json(seen: Survey, name: str) -> dict[str, list[str]]:
    try:
        content = seen.path(name).read_bytes()
    except OSError:
        return {}
    value = None if b'"annotations"' in content else load_json(content)
    if isinstance(value, Mapping) and value and all(str(key).lower() in SPLIT_WORDS for key in value):
        found: dict[str, list[str]] = {}
        for key, held in value.items():
            found.setdefault(SPLIT_WORDS[str(key).lower()], []).extend(_names(held))
        return {split: listed for split, listed in found.items() if listed}
    return _of_one(name, _names(value))


def _names(value: Any) -> list[str]:
    """Of a list of names or of rows that begin with one, or of an object of such lists."""
    if isinstance(value, Mapping):
        return [name for held in value.values() for name in _names(held)]
    if not isinstance(value, list):
        return []
    first = [v[0] if isinstance(v, list) and v else v for v in value]
    return [str(v) for v in first if isinstance(v, str)]


def _of_one(name: str, listed: list[str]) -> dict[str, list[str]]:
    """Of a file whose own name tells the split."""
    words = {SPLIT_WORDS[w] for w in words_of(stem_of(name)) if w in SPLIT_WORDS}
    return {words.pop(): listed} if len(words) == 1 and listed else {}


def _of_table(seen: Survey, name: str) -> dict[str, list[str]]:
    try:
        rows = read_rows(seen.path(name))
    except DataError:
        return {}
    if rows.header and len(rows.header) == 1:
        return _of_one(name, [cell for cell in rows.column(0) if cell])
    told = next((t for i, header in enumerate(rows.header) if (t := split_cells(header, rows.column(i)))), None)
    return _by_column(rows, told) if told else {}


def _by_column(rows: Rows, told: Sequence[str]) -> dict[str, list[str]]:
    """The image is in the column whose cells differ most from row to row."""
    at = max(range(len(rows.header)), key=lambda i: (len(set(rows.column(i))), -i))
    found: dict[str, list[str]] = {}
    for split, written in zip(told, rows.column(at), strict=True):
        if written:
            found.setdefault(split, []).append(written)
    return found
