"""What lies in a data set, by name: one walk, nothing decoded.

folders -> os.scandir, links followed once -> files by kind, per folder. Hidden files and archivers' leftovers are no part of it.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal

from convmix.data.formats import IMAGE_SUFFIXES
from convmix.data.regular import open_regular
from convmix.errors import DataError

Kind = Literal[
    "image", "text", "xml", "json", "jsonl", "table", "parquet", "tar", "yaml", "names", "archive", "foreign", "company", "other"
]
KINDS: dict[str, Kind] = {
    ".txt": "text", ".lst": "text", ".names": "names", ".xml": "xml", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv": "table", ".tsv": "table", ".parquet": "parquet", ".tar": "tar", ".yaml": "yaml", ".yml": "yaml",
    ".zip": "archive", ".tgz": "archive", ".xz": "archive", ".bz2": "archive", ".7z": "archive", ".rar": "archive", ".zst": "archive",
    ".md": "company", ".rst": "company", ".pdf": "company", ".html": "company", ".log": "company", ".ini": "company", ".db": "company",
    ".py": "company", ".ipynb": "company", ".sh": "company", ".cfg": "company", ".toml": "company", ".data": "company",
    ".cache": "company", ".arrow": "company",
}  # fmt: skip
FOREIGN = {  # pictures that are none here, by what they are called where they come from
    ".dcm": "DICOM", ".dicom": "DICOM", ".ima": "DICOM", ".nii": "NIfTI", ".mha": "MetaImage", ".mhd": "MetaImage", ".nrrd": "NRRD",
    ".mgz": "FreeSurfer", ".svs": "a whole-slide image", ".ndpi": "a whole-slide image", ".mrxs": "a whole-slide image",
    ".scn": "a whole-slide image", ".vsi": "a microscope's VSI", ".czi": "Zeiss CZI", ".lif": "Leica LIF", ".nd2": "Nikon ND2",
    ".oib": "Olympus OIB", ".h5": "HDF5", ".hdf5": "HDF5", ".mat": "MATLAB", ".npz": "NumPy archive", ".pkl": "pickle", ".fits": "FITS",
    ".fit": "FITS", ".nc": "NetCDF", ".grib": "GRIB", ".ecw": "ECW", ".las": "LAS", ".tfrecord": "TFRecord", ".tfrecords": "TFRecord",
    ".mdb": "LMDB", ".rec": "RecordIO", ".cr2": "camera raw", ".cr3": "camera raw", ".nef": "camera raw", ".arw": "camera raw",
    ".dng": "camera raw", ".raf": "camera raw", ".rw2": "camera raw", ".orf": "camera raw", ".psd": "Photoshop", ".svg": "SVG",
    ".eps": "EPS", ".exr": "OpenEXR", ".mp4": "video", ".avi": "video", ".mov": "video", ".mkv": "video", ".webm": "video",
    ".xlsx": "Excel workbook", ".xls": "Excel workbook", ".ods": "spreadsheet",
}  # fmt: skip
COMPANIONS = frozenset((  # words in the names of folders for what describes images in other folders
    "annotation", "annotations", "ann", "anns", "label", "labels", "meta", "metadata", "csv", "table", "tables", "json", "xml", "export",
    "exports", "split", "splits", "list", "lists", "info", "project", "config", "coco", "gt",
))  # fmt: skip
SKIPPED = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini"})
_SHARD = re.compile(r"-\d+-of-\d+$")  # behind TFRecord's suffix
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\x93NUMPY")


def begins_like_an_image(head: bytes) -> bool:
    """The first 16 bytes of a file."""
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


@dataclass
class Survey:
    """The files of a data set by kind; names are relative to `root`, with "/" between their parts, in byte order folder by folder."""

    root: Path
    files: dict[Kind, list[str]] = field(default_factory=dict)
    counts: dict[str, Counter[Kind]] = field(default_factory=dict)  # folder ("" is the root) -> files directly in it, by kind
    children: dict[str, list[str]] = field(default_factory=dict)  # folder -> folders directly in it
    unreadable: list[tuple[str, str]] = field(default_factory=list)  # folder, reason

    def of(self, *kinds: Kind) -> list[str]:
        return [name for kind in kinds for name in self.files.get(kind, ())]

    @property
    def images(self) -> list[str]:
        return self.files.get("image", [])

    def path(self, name: str) -> Path:
        return Path(os.path.normpath(self.root / name)) if name.startswith("..") else self.root / name

    @cached_property
    def by_folder(self) -> dict[str, list[str]]:
        """Folder -> the images directly in it."""
        found: dict[str, list[str]] = {}
        for name in self.images:
            found.setdefault(name.rpartition("/")[0], []).append(name)
        return found

    @cached_property
    def images_below(self) -> Counter[str]:
        """Folder -> images in it, at any depth."""
        total: Counter[str] = Counter()
        for folder, names in self.by_folder.items():
            parts = folder.split("/") if folder else []
            for depth in range(len(parts) + 1):
                total["/".join(parts[:depth])] += len(names)
        return total

    def head(self, name: str, size: int = 4096) -> bytes:
        """The first bytes of a file, none where it cannot be read."""
        try:
            with open_regular(self.path(name)) as file:
                return file.read(size)
        except OSError:
            return b""

    def foreign(self) -> Counter[str]:
        """What is there that is no picture here, by what it is."""
        return Counter(foreign_kind(name) for name in self.of("foreign"))


def foreign_notes(seen: Survey) -> list[str]:
    """What is there that is no picture here, in a sentence for every way out."""
    by_remedy: dict[str, list[str]] = {}
    for kind, n in seen.foreign().most_common():
        by_remedy.setdefault(remedy(kind), []).append(f"{n} files of {kind}")
    return [f"{', '.join(kinds[:3])} are not read: {instead}" for instead, kinds in by_remedy.items()]


def remedy(kind: str) -> str:
    """What to do with data of a kind that is not read."""
    if kind in ("HDF5", "NumPy archive", "pickle", "TFRecord", "LMDB", "RecordIO", "NetCDF"):
        return "save the images in them as PNG files, in a folder per class, or write parquet or .tar shards"
    if kind == "MATLAB":
        return "save the labels in them as a CSV with path,label (boxes: as COCO JSON), images as PNG"
    if kind in ("Excel workbook", "spreadsheet"):
        return "save them as CSV"
    return "take images out of them first, such as with ffmpeg" if kind == "video" else "convert them to PNG or 16-bit TIFF first"


def foreign_kind(name: str) -> str:
    """DICOM, NIfTI, ...; a file without a telling suffix is here for its first bytes."""
    plain = _SHARD.sub("", name.lower().removesuffix(".gz"))
    return FOREIGN.get(os.path.splitext(plain)[1], "DICOM")  # noqa: PTH122 - no path, a name


def survey(root: Path, places: Sequence[Path] = ()) -> Survey:
    """All below `root`, or below `places`, whose names are still relative to `root`. DataError where a place itself cannot be opened."""
    found = Survey(root)
    visited: set[tuple[int, int]] = set()
    for place in places or (root,):
        name = os.path.relpath(place, root).replace(os.sep, "/")
        _walk(os.fspath(place), "" if name == "." else name, found, visited, top=True)
    return found


def beside(file: Path) -> Survey:
    """The files of a file's folder alone."""
    found = Survey(file.absolute().parent)
    for entry in sorted(found.root.iterdir()):
        if entry.is_file() and not entry.name.startswith("."):
            found.files.setdefault(_kind(entry.name, str(entry)), []).append(entry.name)
    return found


def survey_around(file: Path) -> Survey:
    """What lies below a file's folder; where that is one for annotations, without images, also the folders beside it which hold some.

    Other folders above are not walked: they may be somebody's whole disk, with other data sets in it.
    """
    folder = file.absolute().parent
    seen = survey(folder)
    if seen.images or not words_of(folder.name) or not {*words_of(folder.name)} <= COMPANIONS:
        return seen
    try:
        beside = [p for p in sorted(folder.parent.iterdir()) if p.is_dir() and not p.name.startswith(".") and _holds_images(p, depth=2)]
    except OSError:
        return seen
    return survey(folder.parent, [folder, *(p for p in beside if p != folder)]) if beside else seen


def _holds_images(folder: Path, *, depth: int) -> bool:
    """Whether images lie directly in a folder, or so many folders below."""
    try:
        entries = list(islice(os.scandir(folder), 1000))
    except OSError:
        return False
    if any(suffix_of(e.name) in IMAGE_SUFFIXES for e in entries):
        return True
    inner = [e for e in entries if depth and e.is_dir() and not e.name.startswith(".")]
    return any(_holds_images(Path(e.path), depth=depth - 1) for e in inner[:20])


def _walk(folder: str, name: str, found: Survey, visited: set[tuple[int, int]], *, top: bool = False) -> None:
    try:
        status = os.stat(folder)  # noqa: PTH116 - a data set has many files, and Path costs more than the call
        entries = sorted(os.scandir(folder), key=lambda e: os.fsencode(e.name))
    except OSError as error:
        if top:
            raise DataError(f"{folder}: may not be read: {error.strerror}") from None
        found.unreadable.append((name, f"a folder that cannot be opened: {error.strerror}"))
        return
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    counts, inner = found.counts.setdefault(name, Counter()), found.children.setdefault(name, [])
    for entry in entries:
        if entry.name.startswith(".") or entry.name in SKIPPED:
            continue
        child = f"{name}/{entry.name}" if name else entry.name
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:
            continue
        if is_folder:
            inner.append(child)
            _walk(entry.path, child, found, visited)
        elif not is_file and Path(entry.path).exists():
            found.unreadable.append((child, "not a regular file"))  # a pipe would be waited for, a device read without end
        elif is_file or entry.is_symlink():  # a dangling link is kept, so that it is listed as missing
            kind = _kind(entry.name, entry.path)
            counts[kind] += 1
            found.files.setdefault(kind, []).append(child)


def _kind(name: str, path: str) -> Kind:
    stem, suffix = os.path.splitext(name.lower())  # noqa: PTH122
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in KINDS:
        return KINDS[suffix]
    if _SHARD.sub("", suffix) in FOREIGN or (suffix == ".gz" and stem.endswith(".nii")):
        return "foreign"
    if suffix == ".gz":
        return "archive"
    try:
        with open_regular(path) as file:
            head = file.read(132)
    except OSError:
        return "other"
    return "image" if begins_like_an_image(head) else "foreign" if head[128:] == b"DICM" else "other"


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def stem_of(name: str) -> str:
    """The last part of a name, without an image's or an annotation's suffix; other dots are part of it: 'img.001'."""
    base = name.rpartition("/")[2]
    stem, suffix = os.path.splitext(base)  # noqa: PTH122
    known = suffix.lower() in IMAGE_SUFFIXES or suffix.lower() in KINDS or suffix.lower() in FOREIGN
    return stem if known else base


def folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def spread(names: Sequence[str], at_most: int) -> list[str]:
    """So many of them, evenly over all."""
    return [names[i * len(names) // at_most] for i in range(at_most)] if len(names) > at_most else list(names)


def words_of(text: str) -> list[str]:
    """The words of a folder's or a file's name: 'SegmentationClass' -> segmentation, class; 'train2017' -> train."""
    return [w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)]


def some(values: Iterable[str], at_most: int = 5) -> str:
    listed = list(values)
    return ", ".join(listed[:at_most]) + (f" and {len(listed) - at_most} more" if len(listed) > at_most else "")
