"""The model directory: written atomically, read back exactly, understood by timm, precise about what is missing."""

import csv
import dataclasses
import errno
import json
import os
import stat
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from tiny_run import LABELS, make_run, write_image

from convmix.artifacts.artifact import load_artifact, save_calibration
from convmix.atomic import replacing, write_bytes, write_csv, write_json
from convmix.errors import RunError, WriteError
from convmix.metrics.calibration import Calibration


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_run_is_read_back_exactly(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", mean=(0.1, 0.2, 0.3), fit="letterbox")
    read = load_artifact(str(tmp_path / "run"))
    assert (read.labels, read.task, read.preprocess) == (LABELS, "classify", made.preprocess)
    assert not read.model.training
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(read.model(x), made.model(x))


def test_plain_timm_gives_the_same_logits(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(theirs(x), made.model(x))


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
def test_timm_prepares_an_image_as_convmix_does(tmp_path: Path, fit: str) -> None:
    made = make_run(tmp_path / "run", size=(16, 16), fit=fit, crop_pct=0.8, interpolation="bilinear")
    image = Image.open(write_image(tmp_path / "x.png", 1, size=(40, 24))).convert("RGB")
    model = timm.create_model(f"local-dir:{tmp_path / 'run'}")
    theirs = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))(image)
    assert theirs.shape == (3, 16, 16)
    difference = (theirs - made.preprocess(image)).abs()
    assert float(difference.median()) < 0.05  # of values about -2..2; the two may round a size or an offset by one pixel


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_bytes(tmp_path / "new" / "a", b"one")
    write_bytes(tmp_path / "new" / "a", b"two")
    assert (tmp_path / "new" / "a").read_bytes() == b"two"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a"]


def test_colleagues_may_read_what_is_written(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    write_bytes(tmp_path / "a", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space) if call == "fsync" else patch.setattr(Path, "replace", no_space)
        with pytest.raises(WriteError, match=r"cannot write .*a: No space left"):
            write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_an_error_of_the_writer_keeps_the_old_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(KeyError), replacing(tmp_path / "a") as file:
        file.write(b"half")
        raise KeyError
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        write_bytes(tmp_path / "file" / "a", b"x")


def test_json_refuses_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ('=HYPERLINK("http://x")', "'=HYPERLINK(\"http://x\")"), ("+1+1", "'+1+1"), ("-2+3", "'-2+3"), ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"), (" =1", "' =1"), ("\x1b[31mred", "\\x1b[31mred"), ("a\x9b2J", "a\\x9b2J"), ("a\0", "a\\x00"),
        ("-1", "-1"), ("+3.5e-2", "+3.5e-2"), ("-", "-"), ("cat=dog", "cat=dog"), ("a\nb", "a\nb"), ("Ä", "Ä"), (-0.5, "-0.5"), (None, ""),
    ],
)  # fmt: skip
def test_a_cell_neither_computes_nor_steers_a_terminal(tmp_path: Path, cell: object, written: str) -> None:
    write_csv(tmp_path / "a.csv", ("name", "n"), [(cell, 1)])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1] == [written, "1"]
    write_csv(tmp_path / "a.csv", ("name", "n"), [(cell, 1)], raw=True)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1] == ["" if cell is None else str(cell), "1"]


def test_csv_keeps_odd_names(tmp_path: Path) -> None:
    rows = [["a,b.png", 'say "x"'], ["two\nlines", "a\rb"], [" spaces ", "日本"], ["", "=1+1"]]
    write_csv(tmp_path / "a.csv", ("name", "label"), rows, raw=True)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["name", "label"], *rows]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere is not a model directory: there is no such folder"):
        load_artifact(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["convmix.json", "config.json"])
def test_a_folder_without_its_description_is_named(tmp_path: Path, name: str) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    with pytest.raises(RunError, match=f"it has no {name}"):
        load_artifact(tmp_path / "run")


def test_broken_json_is_named(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "run" / "convmix.json").write_text("{")
    with pytest.raises(RunError, match=r"convmix\.json is not valid JSON"):
        load_artifact(tmp_path / "run")


@pytest.mark.parametrize("key", ["task", "labels", "preprocess"])
def test_a_missing_entry_is_named(tmp_path: Path, key: str) -> None:
    make_run(tmp_path / "run")
    path = tmp_path / "run" / "convmix.json"
    values = json.loads(path.read_text())
    del values[key]
    path.write_text(json.dumps(values))
    with pytest.raises(RunError, match=f"has no {key}"):
        load_artifact(tmp_path / "run")


def test_json_that_is_no_description_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "run" / "convmix.json").write_text("[]")
    with pytest.raises(RunError, match=r"convmix\.json"):
        load_artifact(tmp_path / "run")


def test_another_format_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    path = tmp_path / "run" / "convmix.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(RunError, match="format 99, this version of convmix reads 1"):
        load_artifact(tmp_path / "run")


CALIBRATION = Calibration(1.5, 0.75, "val", 500, 0.1, 0.02, 0.9, 0.8)


def test_a_directory_without_a_calibration_has_none(tmp_path: Path) -> None:
    assert make_run(tmp_path / "run").calibration is None


def test_a_calibration_is_stored_beside_all_the_rest(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run")
    files = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    save_calibration(made.path, CALIBRATION)
    read = load_artifact(made.path)
    assert read.calibration == CALIBRATION
    assert {k: v for k, v in read.info.items() if k != "calibration"} == made.info
    assert [path.name for path in (tmp_path / "run").iterdir() if path.read_bytes() != files[path]] == ["convmix.json"]


def test_a_calibration_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_run(tmp_path / "run")
    save_calibration(made.path, CALIBRATION)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(WriteError, match=r"cannot write .*convmix\.json"):
            save_calibration(made.path, dataclasses.replace(CALIBRATION, temperature=3.0))
    assert load_artifact(made.path).calibration == CALIBRATION


@pytest.mark.parametrize("broken", [None, [], {"temperature": 1.0}, CALIBRATION.to_dict() | {"temperature": -1}], ids=str)
def test_a_broken_calibration_is_named_with_its_file(tmp_path: Path, broken: object) -> None:
    make_run(tmp_path / "run")
    path = tmp_path / "run" / "convmix.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"calibration": broken}))
    with pytest.raises(RunError, match=r"convmix\.json: calibration"):
        load_artifact(tmp_path / "run")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"has no model\.safetensors"):
        load_artifact(tmp_path / "run")


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    weights = tmp_path / "run" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(RunError, match="cannot be read"):
        load_artifact(tmp_path / "run")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    make_run(tmp_path / "other", labels=("a", "b"))
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "run" / "model.safetensors")
    with pytest.raises(RunError, match=r"head.weight is \[2, 8\], the network .* has \[3, 8\]"):
        load_artifact(tmp_path / "run")


def test_a_pickle_in_the_place_of_weights_is_not_opened(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    torch.save({"x": torch.zeros(1)}, tmp_path / "run" / "model.safetensors")
    with pytest.raises(RunError, match="cannot be read"):
        load_artifact(tmp_path / "run")
