"""Who reads what: data sets in the layouts that people bring, given to convmix and to the readers of its peers.

    python benchmarks/readers.py CASES [--peers FOLDER]

CASES: the folder that the shared cases/make.py wrote, with its expected.json. Peers that are installed take part. FOLDER: where they were
installed with `pip install --target`, away from this environment.

Each peer's reader gets what its documentation asks for, as far as the data set holds it: the folder, and where it wants them the folder of
the images, that of the annotations, the JSON or the YAML file. What it makes of the data is compared with what is there: the classes, and
how many images are usable. The record is benchmarks/results/readers/cases.json; `make results` makes the table.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RECORD = Path(__file__).resolve().parent / "results/readers/cases.json"
PICTURES = {".jpg", ".jpeg", ".png", ".heic", ".bmp", ".tif", ".tiff", ".webp"}


class NoReader(Exception):  # noqa: N818 - caught below
    """The peer has no reader for what lies there."""


@dataclass(frozen=True)
class Read:
    """What a reader made of a data set."""

    task: str  # classify, multilabel, detect, instances, segment
    classes: Sequence[str]
    images: int


def convmix(place: Path, given: Path, task: str) -> Read:
    import convmix

    found = convmix.inspect(given)
    return Read(found.task, found.classes, found.images)


def torchvision(place: Path, given: Path, task: str) -> Read:
    from torchvision.datasets import ImageFolder

    if not given.is_dir():
        raise NoReader("ImageFolder reads folders")
    read = ImageFolder(str(given))
    return Read("classify", read.classes, len(read))


def datasets(place: Path, given: Path, task: str) -> Read:
    import datasets as hf

    if not given.is_dir():
        raise NoReader("imagefolder reads folders")
    with tempfile.TemporaryDirectory() as cache:
        loaded = hf.load_dataset("imagefolder", data_dir=str(given), cache_dir=cache)
        rows = next(iter(loaded.values()))
        images = sum(map(len, loaded.values()))
        columns = [c for c in rows.column_names if c != "image"]
        classes: list[str] = []
        kind = "none"
        for column in columns:
            names = getattr(rows.features[column], "names", None)
            classes = list(names) if names else sorted({str(v) for part in loaded.values() for v in part[column]})
            kind = "detect" if column == "objects" else "classify"
            if column in ("label", "labels", "objects"):
                break
    if not columns:
        raise ValueError(f"{images} images without any label")
    return Read(kind, classes, images)


def ultralytics(place: Path, given: Path, task: str) -> Read:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    yaml = given if given.suffix in (".yaml", ".yml") else next(iter(sorted(place.rglob("*.y*ml"))), None)
    if yaml is None:
        if task not in ("classify", ""):
            raise NoReader("no YAML file")
        return _ultralytics_folders(given)
    info: dict[str, Any] = check_det_dataset(str(yaml), autodownload=False)
    kind = "instances" if task == "instances" else "detect"
    images = 0
    for split in ("train", "val", "test"):
        if info.get(split):
            read = YOLODataset(
                img_path=info[split], data=info, task="segment" if kind == "instances" else "detect", augment=False, cache=False
            )
            images += len(read.labels)
    return Read(kind, list(info["names"].values()), images)


def _ultralytics_folders(given: Path) -> Read:
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import ClassificationDataset
    from ultralytics.data.utils import check_cls_dataset

    if not given.is_dir():
        raise NoReader("expected a YAML file or class folders")
    info: dict[str, Any] = check_cls_dataset(str(given))
    settings = get_cfg()
    splits = [str(info[split]) for split in ("train", "val", "test") if info.get(split)]
    images = sum(len(ClassificationDataset(split, args=settings).samples) for split in splits)
    return Read("classify", list(info["names"].values()), images)


def supervision(place: Path, given: Path, task: str) -> Read:
    import supervision as sv

    pictures = Counter(f.parent for f in place.rglob("*") if f.suffix.lower() in PICTURES)
    folder = str(pictures.most_common(1)[0][0])
    yaml = next(iter(sorted(place.rglob("*.y*ml"))), None)
    jsons = [f for f in sorted(place.rglob("*.json")) if b'"annotations"' in f.read_bytes()]
    xml, texts = (Counter(f.parent for f in place.rglob(f"*.{kind}")) for kind in ("xml", "txt"))
    kind = "instances" if task == "instances" else "detect"
    if jsons:
        read = sv.DetectionDataset.from_coco(images_directory_path=folder, annotations_path=str(jsons[0]))
    elif xml:
        read = sv.DetectionDataset.from_pascal_voc(images_directory_path=folder, annotations_directory_path=str(xml.most_common(1)[0][0]))
    elif yaml is not None and texts:
        labels = str(texts.most_common(1)[0][0])
        read = sv.DetectionDataset.from_yolo(images_directory_path=folder, annotations_directory_path=labels, data_yaml_path=str(yaml))
    elif task in ("classify", "") and given.is_dir():
        read = sv.ClassificationDataset.from_folder_structure(str(given))
        kind = "classify"
    else:
        raise NoReader("no COCO, VOC or YOLO with a YAML file, and no class folders")
    return Read(kind, read.classes, len(read))


READERS: dict[str, tuple[str, Callable[[Path, Path, str], Read]]] = {
    "convmix": ("convmix", convmix),
    "torchvision": ("torchvision", torchvision),
    "datasets": ("datasets", datasets),
    "ultralytics": ("ultralytics", ultralytics),
    "supervision": ("supervision", supervision),
}


def outcome(reader: Callable[[Path, Path, str], Read], place: Path, given: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """What a reader makes of a case: right, wrong, refused or no reader, with the facts."""
    silent = io.StringIO()
    try:
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            read = reader(place, given, str(expected.get("task", "")))
    except NoReader as none:
        return {"outcome": "no reader", "said": str(none)}
    except ImportError as error:
        raise SystemExit(f"{reader.__name__} is not installed whole: {error}") from error
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        said = lines[0].replace(str(place), "DATA")[:160]
        return {"outcome": "right" if "error" in expected and reader is convmix else "refused", "said": said}
    facts = {"task": read.task, "classes": [str(c) for c in read.classes][:20], "images": read.images}
    return {"outcome": "right" if _is_right(read, expected) else "wrong", **facts}


def _is_right(read: Read, expected: dict[str, Any]) -> bool:
    if "error" in expected:  # nothing there is a data set as it stands
        return False
    images = expected.get("images", sum(expected.get("splits", {}).values()))
    same_classes = "classes" not in expected or sorted(map(str, read.classes)) == sorted(expected["classes"])
    return read.task == expected["task"] and read.images == images and same_classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--peers", type=Path)
    asked = parser.parse_args()
    if asked.peers:
        sys.path.append(str(asked.peers))
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())
    os.environ["YOLO_AUTOINSTALL"] = "false"
    folder = asked.cases.resolve()
    expected: dict[str, dict[str, Any]] = json.loads((folder / "expected.json").read_text())
    installed = {}
    for name, (package, _) in READERS.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(package)
    cases = []
    for name, case in expected.items():
        place = folder / name
        given = place / (place / "GIVE").read_text().strip() if (place / "GIVE").is_file() else place
        os.chdir(place)  # where somebody would stand who gives paths relative to the data
        found = {reader: outcome(READERS[reader][1], place, given, case) for reader in installed}
        cases.append({"name": name, "expected": case, "read": found})
        print(f"{name}: " + ", ".join(f"{reader} {what['outcome']}" for reader, what in found.items()), flush=True)
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    record = {"date": datetime.now(UTC).date().isoformat(), "versions": installed, "cases": cases}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
