"""The cleaned copy follows the rules, can be trained on, and nothing else is touched."""

import csv
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted import Planted, encoded

from convmix import api
from convmix.audit.cleaning import turn_upright
from convmix.audit.doctor import Examination, doctor
from convmix.config import Data
from convmix.data.decode import decode
from convmix.data.examples import Source
from convmix.data.sources import open_source
from convmix.errors import ConfigError
from tests.patience import until


def noise(seed: int, side: int = 24) -> Image.Image:
    """A picture like no other."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def put(path: Path, image: Image.Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(image, "PNG" if path.suffix == ".png" else "JPEG", **options))


def names(source: Source) -> dict[str, set[str]]:
    return {split: set(examples.names) for split, examples in source.splits.items()}


def changes(examined: Examination) -> dict[str, str]:
    assert examined.remedy
    with examined.remedy.changes.open(newline="") as file:
        return {row["image"]: row["change"] for row in csv.DictReader(file)}


@pytest.fixture
def ruled(tmp_path: Path) -> Path:
    """A case of every rule, in three splits."""
    root = tmp_path / "photos"
    for i in range(12):
        put(root / f"train/{'ab'[i % 2]}/{i}.png", noise(i))
    for i in range(12, 16):
        put(root / f"val/{'ab'[i % 2]}/{i}.png", noise(i))
        put(root / f"test/{'ab'[i % 2]}/{i + 10}.png", noise(i + 10))
    put(root / "train/a/again.png", noise(0))
    put(root / "test/b/1_held_out.png", noise(1))
    put(root / "test/a/2_held_out.jpg", noise(2), quality=80)  # nearly the same
    put(root / "test/b/13_held_out.png", noise(13))  # of val
    put(root / "train/b/4_conflict.png", noise(4))
    put(root / "test/a/23_conflict.png", noise(23))  # test has it as b
    put(root / "train/a/6_near.jpg", noise(6), quality=80)
    (root / "train/a/broken.png").write_bytes(b"broken")
    return root


def test_rules_for_given_splits(ruled: Path, tmp_path: Path) -> None:
    examined = doctor(ruled, fix=tmp_path / "clean", output=tmp_path / "found", workers=0)
    said = changes(examined)
    assert {name.removeprefix("train/"): why for name, why in said.items() if name.startswith("train/")} == {
        "a/again.png": "left out: the same picture as train/a/0.png",
        "b/1.png": "left out: a copy is held out in test",
        "a/2.png": "left out: a copy is held out in test",
        "a/4.png": "left out: copies of it have other labels",
        "b/4_conflict.png": "left out: copies of it have other labels",
        "a/broken.png": "left out: cannot be read: not an image of a known format",
    }
    assert {name: why for name, why in said.items() if not name.startswith("train/")} == {
        "val/b/13.png": "left out: a copy is held out in test"
    }
    before, after = names(open_source(ruled, Data())), names(open_source(tmp_path / "clean", Data()))
    assert after == {split: kept - said.keys() for split, kept in before.items()}
    assert "test/a/23_conflict.png" in after["test"] and "train/a/6_near.jpg" in after["train"]
    for name in after["train"]:
        assert (tmp_path / "clean" / name).read_bytes() == (ruled / name).read_bytes()
    again = doctor(tmp_path / "clean", output=tmp_path / "found again", workers=0)
    assert {f.kind for f in again.findings if f.severity == "harmful"} == {"label conflict"}  # the one in test


def test_of_unsplit_data_near_copies_go_too(tmp_path: Path) -> None:
    for i in range(8):
        put(tmp_path / f"photos/{'ab'[i % 2]}/{i}.png", noise(i))
    put(tmp_path / "photos/a/0_near.jpg", noise(0), quality=70)
    put(tmp_path / "photos/b/2_near.jpg", noise(2), quality=70)  # of another class: listed, not judged
    examined = doctor(tmp_path / "photos", fix=tmp_path / "clean", output=tmp_path / "found", workers=0)
    assert changes(examined) == {"a/0_near.jpg": "left out: nearly the same picture as a/0.png"}
    assert examined.counts["near label conflict"] == 1


@pytest.mark.slow
def test_planted_faults_are_mended_and_the_copy_trains(planted: Planted, tmp_path: Path) -> None:
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in planted.root.rglob("*") if p.is_file()}
    examined = doctor(planted.root, fix=tmp_path / "clean", output=tmp_path / "found", workers=0)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in planted.root.rglob("*") if p.is_file()} == before
    remedy = examined.remedy
    assert remedy and remedy.kept + remedy.left_out == sum(examined.images.values())
    assert (remedy.turned, remedy.renamed) == (6, 3)
    again = doctor(tmp_path / "clean", output=tmp_path / "found again", workers=0)
    gone = {"truncated", "unreadable", "leak", "near leak", "label conflict", "duplicate", "EXIF rotation", "wrong extension", "no example"}
    assert not gone & again.counts.keys(), again.counts
    assert (tmp_path / "clean/train/ant/really_png.png").is_file()
    run = api.train(
        tmp_path / "clean", out=tmp_path / "run", model="convmixer_8_1_k3_p4", size=24, epochs=1, quiet=True, device="cpu", workers=0
    )
    assert run.metrics["test"]["n"] == again.images["test"]


def test_a_table_of_what_stays(ruled: Path, tmp_path: Path) -> None:
    shutil.move(ruled / "train/a/0.png", ruled / "train/a/ 0, 'odd'\n.png ")  # a name that a cell cannot hold as it is
    examined = doctor(ruled, fix=tmp_path / "lists/clean.csv", output=tmp_path / "found", workers=0)
    said = changes(examined)
    assert examined.remedy and examined.remedy.changes == tmp_path / "lists/clean-changes.csv"
    kept = open_source(tmp_path / "lists/clean.csv", Data())
    before = open_source(ruled, Data())
    for split, examples in before.splits.items():
        originals = {
            (str(examples.source(i)), examples.classes[examples.labels[i]]) for i in range(len(examples)) if examples.names[i] not in said
        }
        listed = kept.splits[split]
        found = {(os.path.normpath(str(listed.source(i))), listed.classes[listed.labels[i]]) for i in range(len(listed))}
        assert found == originals


@pytest.mark.slow
def test_data_in_files_of_its_own_becomes_a_folder(tmp_path: Path) -> None:
    examined = doctor("digits", fix=tmp_path / "clean", output=tmp_path / "found", near=False)
    assert examined.remedy and examined.remedy.kept == 1797
    clean, digits = open_source(tmp_path / "clean", Data()), open_source("digits", Data())
    assert clean.classes == digits.classes
    assert np.bincount(clean.splits["all"].labels).tolist() == np.bincount(digits.splits["all"].labels).tolist()
    with pytest.raises(ConfigError, match="name a folder instead"):
        doctor("digits", fix=tmp_path / "clean.csv", output=tmp_path / "found", near=False)
    assert not (tmp_path / "clean.csv").exists()


def test_readable_class_names_are_kept(tmp_path: Path) -> None:
    for i in range(8):
        put(tmp_path / f"photos/{('n01', 'n02')[i % 2]}/{i}.png", noise(i))
    (tmp_path / "photos/classes.json").write_text('{"n01": "tench", "n02": "golf ball"}')
    doctor(tmp_path / "photos", fix=tmp_path / "clean", output=tmp_path / "found", workers=0)
    assert open_source(tmp_path / "clean", Data()).classes == ("tench", "golf ball")
    assert (tmp_path / "clean/n01/0.png").is_file()


def test_a_table_of_paths_becomes_class_folders(tmp_path: Path) -> None:
    rows = ["path,label"]
    for i in range(8):
        put(tmp_path / f"images/{i % 3}/{i}.png", noise(i))
        rows.append(f"images/{i % 3}/{i}.png,{['ant', 'bee'][i % 2]}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    doctor(tmp_path / "t.csv", fix=tmp_path / "clean", output=tmp_path / "found", workers=0)
    clean = open_source(tmp_path / "clean", Data())
    assert clean.classes == ("ant", "bee") and len(clean.splits["all"]) == 8


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_turned_upright(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    stored = noise(0).resize((40, 24))
    options = {"lossless": True} if kind == "WEBP" else {}
    before = encoded(stored, kind, exif=exif, **options)
    after = turn_upright(before)
    assert after is not None
    upright = Image.open(io.BytesIO(after))
    assert upright.format == kind and upright.getexif().get(0x0112, 1) == 1
    assert kind == "TIFF" or upright.getexif()[0x010F] == "a camera"
    shown = np.asarray(decode(before, in_chans=3, max_pixels=10**6), np.int16)
    differs = abs(np.asarray(upright.convert("RGB"), np.int16) - shown)
    assert differs.mean() <= (2 if kind == "JPEG" else 0)


def test_targets_that_would_change_something_are_refused(ruled: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "way in").symlink_to(ruled)
    for target, why in (
        (tmp_path / "there", "exists"), (ruled, "exists"), (tmp_path / "dangling", "exists"), (ruled / "clean", "inside the data set"),
        (ruled / "train/a/clean.csv", "inside the data set"), (tmp_path / "way in/clean", "inside the data set"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=why):
            doctor(ruled, fix=target, output=tmp_path / "found", workers=0)
    with pytest.raises(ConfigError, match=r"output: .* inside the data set"):
        doctor(ruled, output=ruled / "found", workers=0)
    assert not (tmp_path / "found").exists()


@pytest.mark.slow
def test_killed_in_the_middle_leaves_no_half_copy(ruled: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom convmix.audit import cleaning, doctor\n"
        "write, n = Path.write_bytes, 0\n"
        "def slowly(self, content):\n"
        "    global n\n    n += 1\n    write(self, content)\n"
        "    if n == 5: Path(sys.argv[2] + '.ready').touch(); time.sleep(600)\n"
        "cleaning.Path.write_bytes = slowly\n"
        "doctor.doctor(sys.argv[1], fix=sys.argv[2], output=sys.argv[2] + '-found', workers=0)\n"
    )
    target = tmp_path / "clean"
    child = subprocess.Popen([sys.executable, "-c", code, str(ruled), str(target)])
    try:
        until(Path(f"{target}.ready").exists, while_runs=child)
    finally:
        child.kill()
    assert child.wait() == -signal.SIGKILL
    assert not target.exists()
    doctor(ruled, fix=target, output=tmp_path / "found", workers=0)  # replaces what was left
    assert sum(len(e) for e in open_source(target, Data()).splits.values()) > 15
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
