"""The scan's numbers are the images' own, and do not depend on who counted."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmix.config import Data
from convmix.data import scan as scanning
from convmix.data.decode import decode
from convmix.data.examples import Examples, Source
from convmix.data.facts import DataFacts
from convmix.data.formats import image_rows
from convmix.data.scan import clean, digest_of, scan, split_rows
from convmix.data.sources import open_source
from convmix.errors import DataError

DATA = Data()


def png(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def pictures(n: int, seed: int = 0, size: tuple[int, int] = (4, 6)) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (n, *size, 3), np.uint8))


def source(origin: str = "given", **splits: list[tuple[bytes, int]]) -> Source:
    parts = {}
    for split, rows in splits.items():
        table = image_rows(encoded=[b for b, _ in rows]).add_column("label", [k for _, k in rows])
        parts[split] = Examples(table.add_column("name", [f"{split}[{i}]" for i in range(len(rows))]), ("a", "b"), split)
    return Source(parts, ("a", "b"), {s: "given" if s == "train" else origin for s in parts})


def test_mean_std_and_facts_are_those_of_the_training_images() -> None:
    images = pictures(10)
    data = source(train=[(png(x), i % 2) for i, x in enumerate(images)], val=[(png(np.zeros((90, 90, 3), np.uint8)), 0)])
    found = scan(data, DATA)
    stack = np.stack(images) / 255
    np.testing.assert_allclose(found.mean, stack.mean((0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(found.std, stack.std((0, 1, 2)), atol=1e-12)
    assert found.facts == DataFacts(num_train=10, num_classes=2, height=4, width=6, in_chans=3)
    assert found.splits["train"].digest[3] == digest_of(png(images[3]))
    assert (found.bad, found.notes) == ((), ())


def test_size_is_the_upright_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 4)).save(tmp_path / name / "x.jpg", exif=exif)
    found = scan(open_source(tmp_path, DATA), DATA)
    assert (found.facts.height, found.facts.width) == (8, 4)


def test_sizes_are_those_of_the_images_that_are_left() -> None:
    upright, copied = (png(pictures(1, size=size)[0]) for size in ((4, 6), (5, 8)))
    train = [(upright, 0), (b"broken", 0), (copied, 1)]
    val = [(copied, 1), (png(pictures(1, size=(9, 7))[0]), 0), (b"", 0)]
    data = source(origin="made: 0.1 of train, stratified, seed 0", train=train, val=val)
    found = scan(data, DATA)
    left = clean(data, found).splits
    for split, sizes in (("train", [[4, 6], [5, 8]]), ("val", [[9, 7]])):
        assert found.splits[split].sizes.tolist() == sizes
        images = [Image.open(io.BytesIO(left[split].source(i))) for i in range(len(left[split]))]  # type: ignore[arg-type]
        assert [[x.height, x.width] for x in images] == sizes


def test_bands_beyond_three_are_measured(tmp_path: Path) -> None:
    bands = np.random.default_rng(0).random((2, 6, 4, 5), np.float32)
    for i, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", bands[i])
    found = scan(open_source(tmp_path, DATA), Data(in_chans=5))
    np.testing.assert_allclose(found.mean, bands.mean((0, 1, 2), np.float64), atol=1e-6)
    with pytest.raises(DataError, match="5 channels, expected 3"):
        scan(open_source(tmp_path, DATA), DATA)


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_number_of_workers() -> None:
    rows = [(png(x), i % 2) for i, x in enumerate(pictures(600))]
    rows[77] = (b"broken", 0)
    data = source(train=rows)
    seen: list[tuple[int, int]] = []
    alone = scan(data, DATA, workers=0, progress=lambda done, total: seen.append((done, total)))
    for workers in (1, 3):
        other = scan(data, DATA, workers=workers)
        assert (alone.mean, alone.std, alone.fingerprint, alone.bad, alone.facts) == (
            other.mean, other.std, other.fingerprint, other.bad, other.facts,
        )  # fmt: skip
        np.testing.assert_array_equal(alone.splits["train"].digest, other.splits["train"].digest)
    assert seen[-1] == (600, 600)
    assert alone.bad == (("train[77]", "train", "not an image of a known format"),)


@pytest.mark.slow
def test_an_image_that_kills_its_process_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = scanning.decode

    def crash(encoded: bytes, **options: int) -> object:
        if encoded == b"poison":
            os._exit(11)  # what a crash in a C codec looks like
        return real(encoded, **options)

    monkeypatch.setattr(scanning, "decode", crash)  # reaches the workers because they are forked
    rows = [(png(x), i % 2) for i, x in enumerate(pictures(520))]
    rows[300] = (b"poison", 1)
    found = scan(source(train=rows), DATA, workers=2)
    assert found.bad == (("train[300]", "train", "decoding it ends the process"),)
    assert found.facts.num_train == 519


def test_fingerprint_follows_content_and_labels_but_not_order_or_split() -> None:
    rows = [(png(x), i % 2) for i, x in enumerate(pictures(6))]
    first = scan(source(train=rows), DATA).fingerprint
    assert scan(source(train=rows[::-1]), DATA).fingerprint == first
    assert scan(source(train=rows[:4], val=rows[4:]), DATA).fingerprint == first
    assert scan(source(train=[(b, 1 - k) for b, k in rows]), DATA).fingerprint != first
    assert scan(source(train=[*rows[1:], (png(pictures(1, seed=9)[0]), 0)]), DATA).fingerprint != first


def test_a_class_without_readable_training_images_is_an_error_naming_it() -> None:
    rows = [(png(pictures(1)[0]), 0), (b"", 1), (b"text", 1)]
    with pytest.raises(
        DataError, match=r"class 'b' has no readable training image left, all 2 .* train\[1\]: empty file; train\[2\]: not an"
    ):
        scan(source(train=rows), DATA)
    with pytest.raises(DataError, match="none of the 2 images"):
        scan(source(train=rows[1:]), DATA)


def test_copies_of_training_images_leave_the_splits_made_here() -> None:
    rows = [(png(x), i % 2) for i, x in enumerate(pictures(8))]
    parts = {"train": rows[:4], "val": [rows[0], *rows[4:6]], "test": [rows[1], rows[4], *rows[6:]]}
    made = source(origin="made: 0.1 of train, stratified, seed 0", **parts)
    found = scan(made, DATA)
    cleaned = clean(made, found)
    assert cleaned.splits["val"].names == ["val[1]", "val[2]"]
    assert cleaned.splits["test"].names == ["test[2]", "test[3]"]
    table = split_rows(made, found)
    assert ("left out", "val[0]", digest_of(rows[0][0]), "a") in table
    assert {n for s, n, _, _ in table if s == "left out"} == {"val[0]", "test[0]", "test[1]"}
    assert any("1 val images are copies" in note for note in found.notes)


def test_copies_in_given_splits_are_reported_and_stay() -> None:
    rows = [(png(x), i % 2) for i, x in enumerate(pictures(6))]
    given = source(train=rows[:4], test=rows[3:])
    found = scan(given, DATA)
    assert len(clean(given, found).splits["test"]) == 3
    assert found.notes == ("1 images of the given test split are also training images; its accuracy will look better than it is",)


def test_broken_images_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\nx.png,a\ny.png,b\nz.png,a\ngone.png,a\n,b\n")
    for name, x in zip("xyz", pictures(3), strict=True):
        (tmp_path / f"{name}.png").write_bytes(png(x))
    (tmp_path / "z.png").write_bytes(png(pictures(3)[2])[:60])
    data = open_source(tmp_path / "t.csv", DATA)
    found = scan(data, DATA)
    assert found.bad[0] == ("t.csv line 6", "", "no path")
    assert {(name, split) for name, split, _ in found.bad[1:]} == {("z.png", "all"), ("gone.png", "all")}
    assert clean(data, found).splits["all"].names == ["x.png", "y.png"]
    assert "2 of 4 images are broken and left out" in found.notes


@pytest.mark.slow
def test_cifar10_mean_and_std(shared: Path) -> None:
    """Of every tenth image, exactly; and as near to those of all of them, which are known, as 5,000 images are."""
    whole = open_source(shared / "data" / "cifar10", DATA).splits["train"]
    chosen = whole.select(range(0, len(whole), 10))
    found = scan(Source({"train": chosen}, chosen.classes, {"train": "given"}), DATA)
    pixels = np.stack([np.asarray(decode(chosen.source(i), in_chans=3, max_pixels=10**6)) for i in range(len(chosen))])
    x = pixels.reshape(-1, 3) / 255
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.std, x.std(0), rtol=1e-9)
    np.testing.assert_allclose(found.mean, (0.4914, 0.4822, 0.4465), atol=5e-3)
    np.testing.assert_allclose(found.std, (0.2470, 0.2435, 0.2616), atol=5e-3)
    assert found.bad == () and found.facts.num_train == 5000
