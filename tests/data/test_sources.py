"""Every form of data is written, opened, and gives the same labels and pixels."""

import io
import json
import pickle
import socket
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import datasets
import numpy as np
import pytest
from PIL import Image

from convmix.config import Data
from convmix.data.decode import decode
from convmix.data.formats import expand, split_word
from convmix.data.sources import Examples, Source, open_source
from convmix.errors import DataError

DATA = Data()
NAMES = ("cat", "dog", "emu")
Item = tuple[str, int, np.ndarray]  # split, class number, H,W,3 uint8


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))


@pytest.fixture(scope="module")
def items() -> list[Item]:
    rng = np.random.default_rng(0)
    counts = {"train": 4, "val": 2, "test": 1}
    return [(s, c, rng.integers(0, 256, (5 + c, 7, 3), np.uint8)) for s, n in counts.items() for c in range(3) for _ in range(n)]


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def pixels(examples: Examples, index: int) -> np.ndarray:
    return np.asarray(decode(examples.source(index), in_chans=3, max_pixels=10**6))


def content(source: Source) -> dict[str, list[tuple[str, bytes]]]:
    return {s: sorted((e.classes[e.labels[i]], pixels(e, i).tobytes()) for i in range(len(e))) for s, e in source.splits.items()}


def expected(items: list[Item], split: str | None = None) -> dict[str, list[tuple[str, bytes]]]:
    found: dict[str, list[tuple[str, bytes]]] = {}
    for s, c, x in items:
        found.setdefault(split or s, []).append((NAMES[c], x.tobytes()))
    return {s: sorted(rows) for s, rows in found.items()}


def write_folder(root: Path, items: list[Item], folders: dict[str, str] | None = None) -> None:
    for i, (s, c, x) in enumerate(items):
        path = root / (folders[s] if folders else "") / NAMES[c] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(x))


def write_table(root: Path, items: list[Item], delimiter: str = ",", header: str = "path,label,split") -> Path:
    root.mkdir(exist_ok=True)
    write_folder(root / "images", items)
    rows = [delimiter.join((f"images/{NAMES[c]}/{i}.png", NAMES[c], s)) for i, (s, c, _) in enumerate(items)]
    path = root / ("t.tsv" if delimiter == "\t" else "t.csv")
    path.write_text("\n".join([header.replace(",", delimiter), *rows]) + "\n")
    return path


def write_parquet(root: Path, items: list[Item], image: str = "image") -> None:
    root.mkdir(exist_ok=True)
    features = datasets.Features({image: datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    for split in ("train", "val", "test"):
        rows = [(c, x) for s, c, x in items if s == split]
        shards = 2 if split == "train" else 1
        for shard in range(shards):
            part = rows[shard::shards]
            columns = {image: [{"bytes": encoded(x), "path": None} for _, x in part], "label": [c for c, _ in part]}
            whole = datasets.Dataset.from_dict(columns, features=features)
            whole.to_parquet(root / f"{'validation' if split == 'val' else split}-{shard:05}-of-{shards:05}.parquet")


def write_shards(root: Path, items: list[Item], label: Callable[[int], tuple[str, bytes]]) -> None:
    root.mkdir(exist_ok=True)
    for split in ("train", "val", "test"):
        with tarfile.open(root / f"{split}-000000.tar", "w") as archive:
            for i, (_, c, x) in enumerate(r for r in items if r[0] == split):
                suffix, text = label(c)
                image = ("png", encoded(x)) if i % 2 else ("webp", lossless(x))
                for name, value in (image, (suffix, text)):
                    info = tarfile.TarInfo(f"dir/{i:04}.{name}")
                    info.size = len(value)
                    archive.addfile(info, io.BytesIO(value))


def lossless(x: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(x).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


# Folders


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "VALID", "Test"), ("TRAIN", "dev", "testing")])
def test_folder_with_splits_in_any_letter_case(tmp_path: Path, items: list[Item], names: tuple[str, ...]) -> None:
    write_folder(tmp_path, items, dict(zip(("train", "val", "test"), names, strict=True)))
    source = open_source(tmp_path, DATA)
    assert content(source) == expected(items)
    assert source.classes == NAMES
    assert source.origin == {"train": "given", "val": "given", "test": "given"}


def test_folder_of_classes_is_one_split(tmp_path: Path, items: list[Item]) -> None:
    write_folder(tmp_path, items)
    source = open_source(str(tmp_path), DATA)
    assert content(source) == expected(items, "all")
    assert source.splits["all"].name(0).startswith("cat/")


def test_classes_named_like_splits_stay_classes(tmp_path: Path) -> None:
    for name in ("bus", "train", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(encoded(np.zeros((2, 2, 3), np.uint8)))
    source = open_source(tmp_path, DATA)
    assert source.classes == ("bus", "test", "train")
    assert list(source.splits) == ["all"]


def test_nested_folders_count_for_the_class_and_company_is_ignored(tmp_path: Path) -> None:
    deep = tmp_path / "cat" / "2021" / "may"
    deep.mkdir(parents=True)
    good = encoded(np.ones((2, 2, 3), np.uint8))
    for path in (deep / "a.PNG", tmp_path / "cat" / "no_suffix"):
        path.write_bytes(good)
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._a.png"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    (tmp_path / "cat" / "paper.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "__MACOSX" / "cat").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "cat" / "a.png").write_bytes(good)
    (tmp_path / "empty").mkdir()
    source = open_source(tmp_path, DATA)
    assert source.splits["all"].names == ["cat/2021/may/a.PNG", "cat/no_suffix"]
    assert source.classes == ("cat",)
    assert source.dropped == [("cat/paper.pdf", "not an image by its extension .pdf"), ("empty", "a class folder without images")]


def test_link_loops_end_and_links_are_followed(tmp_path: Path, items: list[Item]) -> None:
    write_folder(tmp_path / "far", items)
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "linked").symlink_to(tmp_path / "far" / "cat")
    (tmp_path / "far" / "cat" / "loop").symlink_to(tmp_path / "data" / "cat")
    assert len(open_source(tmp_path / "data", DATA).splits["all"]) == 7


def test_order_is_that_of_the_names_whatever_the_file_system_says(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        for file in ("z.png", "ü.png", "10.png", "9.png", "A.png"):
            (tmp_path / name / file).write_bytes(encoded(np.zeros((2, 2, 3), np.uint8)))
    names = open_source(tmp_path, DATA).splits["all"].names
    assert names == [f"{c}/{f}.png" for c in "ab" for f in ("10", "9", "A", "z", "ü")]


def test_class_order_is_the_order_of_the_text_as_in_torchvision(tmp_path: Path) -> None:
    for name in ("10", "9", "B", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(encoded(np.zeros((2, 2, 3), np.uint8)))
    assert open_source(tmp_path, DATA).classes == ("10", "9", "B", "a")


@pytest.mark.parametrize("form", [{"n1": "tench", "n2": "cat"}, {"tench": 0, "cat": 1}, ["tench", "cat"]])
def test_classes_json_gives_readable_names(tmp_path: Path, form: object) -> None:
    ids = ("n1", "n2") if isinstance(form, dict) and "n1" in form else ("0", "1")
    (tmp_path / "classes.json").write_text(json.dumps(form))
    for part in ("train", "val"):
        for name in ids:
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "1.png").write_bytes(encoded(np.zeros((2, 2, 3), np.uint8)))
    assert open_source(tmp_path, DATA).classes == ("tench", "cat")
    assert open_source(tmp_path / "val", DATA).classes == ("tench", "cat")  # the names beside a split's own folder


def test_real_folders_with_wordnet_ids(tmp_path: Path, shared: Path) -> None:
    with tarfile.open(shared / "data" / "imagenette160.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    source = open_source(tmp_path / "imagenette160", DATA)
    assert {s: len(e) for s, e in source.splits.items()} == {"train": 1300, "val": 400}
    assert source.classes[:2] == ("tench", "English springer")


def test_npy_folder_keeps_every_band(tmp_path: Path) -> None:
    bands = np.random.default_rng(1).random((2, 4, 6, 5), np.float32)
    for i, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", bands[i])
    examples = open_source(tmp_path, DATA).splits["all"]
    for i in range(2):
        np.testing.assert_array_equal(decode(examples.source(i), in_chans=5, max_pixels=100), bands[i])


# Tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", ["path,label,split", "File Name,Class,subset", "image_path,species,SPLIT"])
def test_tables_by_column_name(tmp_path: Path, items: list[Item], delimiter: str, header: str) -> None:
    assert content(open_source(write_table(tmp_path, items, delimiter, header), DATA)) == expected(items)


def test_table_columns_can_be_named(tmp_path: Path, items: list[Item]) -> None:
    table = write_table(tmp_path, items, header="foto,art,split")
    assert content(open_source(table, Data(image_column="foto", label_column="art"))) == expected(items)
    with pytest.raises(DataError, match=r"data\.image_column.*foto, art, split"):
        open_source(table, DATA)
    with pytest.raises(DataError, match=r"no column 'fot' .*did you mean foto\?"):
        open_source(table, Data(image_column="fot", label_column="art"))


def test_table_without_a_header(tmp_path: Path, items: list[Item]) -> None:
    table = write_table(tmp_path, items)
    table.write_text("\n".join(",".join(line.split(",")[:2]) for line in table.read_text().splitlines()[1:]))
    assert content(open_source(table, DATA)) == expected(items, "all")


def test_table_rows_without_label_are_listed_and_missing_files_kept(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text('path,label\n"a, ""b"".png",x\ngone.png,y\nc.png,\n,x\n\n/abs/d.png,x\n', encoding="utf-8-sig")
    source = open_source(table, DATA)
    assert source.splits["all"].names == ['a, "b".png', "gone.png", "/abs/d.png"]
    assert source.splits["all"].source(0) == str(tmp_path / 'a, "b".png')
    assert source.splits["all"].source(2) == "/abs/d.png"
    assert source.dropped == [("c.png", "no label"), ("t.csv line 5", "no path")]


def test_whole_number_labels_are_sorted_by_value_and_named_by_their_text(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path,label\n" + "".join(f"{i}.png,{v}\n" for i, v in enumerate([30, 4, 100, 4])))
    source = open_source(table, DATA)
    assert source.classes == ("4", "30", "100")
    assert source.splits["all"].labels.tolist() == [1, 0, 2, 0]


def test_unknown_split_value_names_the_row(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path,label,split\na.png,x,train\nb.png,x,tset\n")
    with pytest.raises(DataError, match=r"row 3: unknown split 'tset', did you mean test\?"):
        open_source(table, DATA)


# Parquet


@pytest.mark.parametrize("image", ["image", "img"])
def test_parquet_shards_by_file_name(tmp_path: Path, items: list[Item], image: str) -> None:
    write_parquet(tmp_path, items, image)
    source = open_source(tmp_path, DATA)
    assert content(source) == expected(items)
    assert source.classes == NAMES
    assert source.splits["train"].name(3) == "train[3]"


def test_one_parquet_file_is_one_split(tmp_path: Path, items: list[Item]) -> None:
    write_parquet(tmp_path, items)
    source = open_source(tmp_path / "test-00000-of-00001.parquet", DATA)
    assert content(source) == expected([r for r in items if r[0] == "test"], "all")
    assert content(open_source(str(tmp_path / "*.parquet"), DATA)) == expected(items)


@pytest.mark.parametrize("kind", ["binary", "path"])
def test_parquet_of_plain_columns(tmp_path: Path, items: list[Item], kind: str) -> None:
    write_folder(tmp_path, items)
    values = [encoded(x) if kind == "binary" else f"{NAMES[c]}/{i}.png" for i, (_, c, x) in enumerate(items)]
    rows = datasets.Dataset.from_dict({"other": [0.5] * len(items), "image": values, "label": [NAMES[c] for _, c, _ in items]})
    rows.to_parquet(tmp_path / "all.parquet")
    source = open_source(tmp_path / "all.parquet", DATA)
    assert content(source) == expected(items, "all")
    assert source.splits["all"].name(0) == ("all[0]" if kind == "binary" else "cat/0.png")


def test_parquet_that_changes_is_read_anew(tmp_path: Path, items: list[Item]) -> None:
    write_parquet(tmp_path, items)
    open_source(tmp_path, DATA)
    write_parquet(tmp_path, items[3:])
    assert content(open_source(tmp_path, DATA)) == expected(items[3:])


def test_broken_parquet_and_foreign_columns_are_data_errors(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        open_source(tmp_path / "a.parquet", DATA)
    datasets.Dataset.from_dict({"image": [[1, 2]], "label": [0]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="expected encoded images"):
        open_source(tmp_path / "b.parquet", DATA)


def test_saved_dataset_folder(tmp_path: Path, items: list[Item]) -> None:
    write_parquet(tmp_path / "p", items)
    saved = datasets.load_dataset("parquet", data_dir=str(tmp_path / "p"))
    saved.save_to_disk(str(tmp_path / "saved"))
    assert content(open_source(tmp_path / "saved", DATA)) == expected(items)


def test_cifar10_opens_with_its_names(shared: Path) -> None:
    source = open_source(shared / "data" / "cifar10", DATA)
    assert {s: len(e) for s, e in source.splits.items()} == {"train": 50000, "test": 10000}
    assert source.classes[:3] == ("airplane", "automobile", "bird")
    assert len(source.classes) == 10
    assert np.bincount(source.splits["test"].labels).tolist() == [1000] * 10


# Shards


@pytest.mark.parametrize("form", ["cls", "txt", "json"])
def test_webdataset_shards(tmp_path: Path, items: list[Item], form: str) -> None:
    texts = {"cls": lambda c: str(c), "txt": lambda c: NAMES[c], "json": lambda c: json.dumps({"label": NAMES[c], "id": 7})}
    write_shards(tmp_path, items, lambda c: (form, texts[form](c).encode()))
    if form == "cls":
        (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    for spec in (str(tmp_path), f"{tmp_path}/{{train,val,test}}-{{000000..000000}}.tar"):
        assert content(open_source(spec, DATA)) == expected(items)


def test_one_shard_cut_short_gives_what_is_whole(tmp_path: Path, items: list[Item]) -> None:
    write_shards(tmp_path, items, lambda c: ("cls", str(c).encode()))
    shard = tmp_path / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:9000])
    source = open_source(shard, DATA)
    assert 1 <= len(source.splits["all"]) < 12
    assert any("cannot be read to its end" in reason for _, reason in source.dropped)


def test_patterns_keep_leading_zeros(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"s-{i:03}.tar").touch()
    assert [p.name for p in expand(f"{tmp_path}/s-{{009..011}}.tar")] == ["s-009.tar", "s-010.tar", "s-011.tar"]
    with pytest.raises(DataError, match="no file matches"):
        open_source(f"{tmp_path}/x-*.tar", DATA)


# Names


def test_digits_are_the_embedded_scans() -> None:
    from sklearn.datasets import load_digits

    examples = open_source("digits", DATA).splits["all"]
    assert (len(examples), examples.classes) == (1797, tuple("0123456789"))
    np.testing.assert_array_equal(examples.labels, load_digits().target)
    image = np.asarray(decode(examples.source(7), in_chans=1, max_pixels=64))
    np.testing.assert_array_equal(image, np.rint(load_digits().images[7] * 255 / 16))


def test_hub_name_goes_through_load_dataset(tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "repo", items, "img")
    load = datasets.load_dataset
    asked = []

    def local(name: str, config: str | None) -> datasets.DatasetDict:
        asked.append((name, config))
        return load(str(tmp_path / "repo"))

    monkeypatch.setattr(datasets, "load_dataset", local)
    monkeypatch.setattr("convmix.data.hub._check_reachable", lambda name: None)
    assert content(open_source("someone/animals:small", DATA)) == expected(items)
    open_source("cifar10", DATA)
    assert asked == [("someone/animals", "small"), ("uoft-cs/cifar10", None)]


def test_unreachable_hub_is_one_line_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match=r"could not be reached .*give a folder, CSV or parquet") as caught:
        open_source("someone/animals", DATA)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        open_source("someone/animals", DATA)


def test_silent_hub_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("convmix.data.hub.TIMEOUT_S", 0.3)
        started = time.monotonic()
        with pytest.raises(DataError, match="could not be reached"):
            open_source("someone/animals", DATA)
        assert time.monotonic() - started < 4


class FakeCIFAR:
    """What torchvision.datasets.CIFAR10 looks like from outside."""

    classes = NAMES
    rows: ClassVar[list[Item]] = []

    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        self.part = [r for r in self.rows if (r[0] == "train") == train]

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.part[i][2]), self.part[i][1]


class FakeFlowers:
    """Images as files, splits by name, like torchvision.datasets.Flowers102."""

    rows: ClassVar[list[Item]] = []

    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        if not download:
            raise RuntimeError("not downloaded")
        part = [(i, r) for i, r in enumerate(self.rows) if r[0] == split]
        self._image_files = [Path(root) / f"{i}.png" for i, _ in part]
        self._labels = [r[1] for _, r in part]
        for path, (_, r) in zip(self._image_files, part, strict=True):
            path.write_bytes(encoded(r[2]))


def test_torchvision_names(items: list[Item], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torchvision

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCIFAR)
    monkeypatch.setattr(torchvision.datasets, "Flowers102", FakeFlowers)
    monkeypatch.setattr(FakeCIFAR, "rows", [r for r in items if r[0] != "val"])
    monkeypatch.setattr(FakeFlowers, "rows", items)
    assert content(open_source("torchvision:CIFAR10", DATA)) == expected([r for r in items if r[0] != "val"])
    flowers = open_source("torchvision:Flowers102", DATA)
    assert flowers.classes == ("0", "1", "2")
    assert {s: len(e) for s, e in flowers.splits.items()} == {"train": 12, "val": 6, "test": 3}
    with pytest.raises(DataError, match=r"unknown data set, did you mean CIFAR10\?"):
        open_source("torchvision:CIFAR11", DATA)


def test_torchvision_without_network_is_a_data_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torchvision

    def refuse(*_: object, **__: object) -> None:
        raise OSError("connection refused")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets.USPS, "__init__", refuse)
    with pytest.raises(DataError, match="could not be fetched"):
        open_source("torchvision:USPS", DATA)


# Mistakes


def test_mistakes_are_named(tmp_path: Path, items: list[Item]) -> None:
    write_folder(tmp_path / "photos", items, {"train": "train", "val": "val", "test": "test"})
    (tmp_path / "empty").mkdir()
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "1.png").write_bytes(encoded(items[0][2]))
    (flat / "labels.csv").write_text("path,label\n1.png,x\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "convmix.json").write_text("{}")
    (tmp_path / "x.xyz").touch()
    (tmp_path / "x.zip").touch()
    (tmp_path / "x.csv").touch()
    for spec, said in {
        str(tmp_path / "potos"): r"no such file or folder, did you mean .*/photos\?",
        str(tmp_path / "photos" / "trian"): r"did you mean .*/photos/train\?",
        "phots": "no such file or folder.*expected a folder of class folders",
        str(tmp_path / "empty"): "holds no images; expected ROOT/CLASS/image.jpg",
        str(flat): r"1 images but no class folders.*give its table: .*labels\.csv",
        str(tmp_path / "photos" / "train" / "cat"): "4 images but no class folders",
        str(run): "is a model directory",
        str(tmp_path / "x.xyz"): "unknown type",
        str(tmp_path / "x.zip"): "unpack it",
        str(tmp_path / "x.csv"): "is empty",
        str(flat / "1.png"): "is an image, not a data set",
        "": "no data set given",
    }.items():
        with pytest.raises(DataError, match=said):
            open_source(spec, DATA)


def test_evaluation_classes_must_be_training_classes(tmp_path: Path, items: list[Item]) -> None:
    write_folder(tmp_path, items, {"train": "train", "val": "val", "test": "test"})
    (tmp_path / "val" / "cat").rename(tmp_path / "val" / "lynx")
    with pytest.raises(DataError, match="val split has classes that the training images do not have: lynx"):
        open_source(tmp_path, DATA)


def test_unlabelled_test_folder_is_left_out(tmp_path: Path, items: list[Item]) -> None:
    write_folder(tmp_path, items, {"train": "train", "val": "val", "test": "val"})
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.png").write_bytes(encoded(items[0][2]))
    source = open_source(tmp_path, DATA)
    assert set(source.splits) == {"train", "val"}
    assert ("test/1.png", "an image beside the class folders, not in one") in source.dropped


def test_unlabelled_rows_of_a_class_number_column_are_left_out(tmp_path: Path, items: list[Item]) -> None:
    write_parquet(tmp_path, [(s, c if s == "train" else -1, x) for s, c, x in items])
    source = open_source(tmp_path, DATA)
    assert set(source.splits) == {"train"}
    assert ("test", "none of its 3 images has a label") in source.dropped


def test_examples_travel_to_worker_processes(tmp_path: Path, items: list[Item]) -> None:
    write_parquet(tmp_path, items)
    examples = open_source(tmp_path, DATA).splits["train"].select([5, 1])
    copy = pickle.loads(pickle.dumps(examples))
    assert [copy.source(i) for i in range(2)] == [examples.source(i) for i in range(2)]
    assert copy.names == ["train[5]", "train[1]"]
    assert copy.labels.tolist() == examples.labels.tolist()


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Valid", "val"),
        ("validation-00000-of-00001.parquet", "val"),
        ("test_1.tar", "test"),
        ("trainer", None),
        ("x", None),
    ],
)
def test_split_words(name: str, split: str | None) -> None:
    assert split_word(name) == split
