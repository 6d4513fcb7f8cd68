"""Masks of all kinds, pictures that need a package or are none, and too little data: read right, or refused in one sentence."""

from pathlib import Path

import numpy as np
import pytest
from laid_out import classes, mask, photos, text
from layout_cases import Case, Cases
from PIL import Image
from test_layouts import run

from convmix.data.inspection import inspect

pytestmark = pytest.mark.usefixtures("own_cache")
case = Cases()

# Masks


@case(layout="masks", task="segment", classes=["class_0", "class_255"], note="255 is read as a class")
def masks_of_0_and_255(root: Path) -> None:
    for path in photos(root / "images"):
        values = np.zeros((24, 32), np.uint8)
        values[4:9, 4:9] = 255
        mask(root / "masks" / f"{path.stem}.png", values)


@case(layout="masks", task="segment", images=4)
def masks_of_16_bits(root: Path) -> None:
    for path in photos(root / "images"):
        values = np.zeros((24, 32), np.uint16)
        values[4:9, 4:9] = 3
        mask(root / "masks" / f"{path.stem}.png", values)


@case(error="24x32.*--layout folders|another size|is 16x12")
def masks_of_another_size(root: Path) -> None:
    for path in photos(root / "images"):
        mask(root / "masks" / f"{path.stem}.png", np.eye(12, 16, dtype=np.uint8))


@case(error="different values.*smoothed")
def masks_that_were_smoothed(root: Path) -> None:
    for path in photos(root / "images"):
        mask(root / "masks" / f"{path.stem}.png", np.arange(24 * 32, dtype=np.uint8).reshape(24, 32))


@case(layout="masks", task="segment", images=4, left_out=0)
def masks_with_a_prefix_in_a_folder_of_another_name(root: Path) -> None:
    for path in photos(root / "imgs"):
        mask(root / "ground_truth_masks" / f"mask_{path.stem}.png")


@case(layout="masks", task="segment", images=4, left_out=0)
def masks_beside_their_images(root: Path) -> None:
    for path in photos(root):
        mask(root / f"{path.stem}_mask.png")


@case(layout="masks", task="segment", classes=["background", "nut"])
def cvat_masks_with_a_labelmap(root: Path) -> None:
    for path in photos(root / "JPEGImages"):
        pixels = np.zeros((24, 32, 3), np.uint8)
        pixels[4:9, 4:9] = (250, 50, 83)
        mask(root / "SegmentationClass" / f"{path.stem}.png", pixels)
        mask(root / "SegmentationObject" / f"{path.stem}.png", pixels)
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nnut:250,50,83::\n")
    text(root / "ImageSets" / "Segmentation" / "default.txt", "0\n1\n2\n3\n")


@case(layout="masks", task="segment", images=4)
def masks_with_a_palette(root: Path) -> None:
    for path in photos(root / "images"):
        picture_ = Image.fromarray(np.eye(24, 32, dtype=np.uint8), "L").convert("P")
        (root / "masks").mkdir(exist_ok=True)
        picture_.save(root / "masks" / f"{path.stem}.png")


# Pictures


@case(error="4 files of DICOM")
def dicom(root: Path) -> None:
    for i in range(4):
        text(root / "scans" / f"{i}.dcm", "\0" * 128 + "DICM")


@case(error="DICOM")
def dicom_without_suffix(root: Path) -> None:
    for i in range(4):
        text(root / "scans" / f"IM{i}", "\0" * 128 + "DICM")


@case(layout="folders", images=6, note="DICOM")
def dicom_among_pictures(root: Path) -> None:
    classes(root)
    text(root / "cat" / "scan.dcm", "\0" * 128 + "DICM")


# Too little


@case(error="one image per class")
def one_image_per_class(root: Path) -> None:
    classes(root, ("a", "b", "c", "d"), n=1)


@case(layout="folders", images=9, note="val split has no image of dog")
def a_class_without_images_in_a_split(root: Path) -> None:
    classes(root / "train")
    classes(root / "val", ("cat",))


@pytest.mark.parametrize("case", case, ids=lambda c: c.name)
def test_it_is_read_as_its_maker_meant_it(case: Case, tmp_path: Path) -> None:
    run(case, tmp_path / "set")


@pytest.mark.parametrize(("suffix", "package"), [(".heic", "pillow_heif"), (".avif", None), (".jxl", "pillow_jxl")])
def test_photos_of_phones_are_read(tmp_path: Path, suffix: str, package: str | None) -> None:
    if package:
        registered = pytest.importorskip(package)
        if package == "pillow_heif":
            registered.register_heif_opener()
    for name in ("cat", "dog"):
        photos(tmp_path / name, ["0.jpg", "1.jpg", f"2{suffix}", f"3{suffix}"])
    found = inspect(tmp_path)
    assert (found.images, found.left_out, found.sizes) == (8, (), {"32x24": 8})


def test_without_the_package_photos_are_counted_and_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convmix.data.readers.unopened.missing_package", lambda suffix: "pillow-heif" if suffix == ".heic" else "")
    for name in ("cat", "dog"):
        photos(tmp_path / name)
        text(tmp_path / name / "phone.heic", "no picture")
    found = inspect(tmp_path)
    assert found.images == 8
    assert [(item.count, item.examples) for item in found.left_out] == [(2, ("cat/phone.heic", "dog/phone.heic"))]
    assert any("2 .heic images cannot be opened here: pip install 'convmix[formats]' adds them" in note for note in found.notes)
