"""16-bit images that use a small part of their range are scaled by the range of the training images, in everything that reads them."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convmix
from convmix.artifacts.artifact import load_artifact
from convmix.audit.balance_plot import tile
from convmix.audit.image_facts import collect
from convmix.config import Data
from convmix.data.decode import decode, sixteen_bit_span
from convmix.data.preprocessing import Preprocess
from convmix.data.scan import scan
from convmix.data.sources import open_source
from convmix.errors import ConfigError
from convmix.inference.prediction_files import DetectionFile, write
from convmix.results import Boxes

TINY: dict[str, Any] = {
    "model": "convmixer_8_1_k3_p4", "size": 24, "batch_size": 8, "workers": 0, "precision": "fp32", "tune": "never", "epochs": 1,
}  # fmt: skip


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form) if form != "npy" else np.save(out, pixels)
    return out.getvalue()


def microscope(folder: Path) -> Path:
    """Two classes that differ in stripes of some hundred of 65,536 grey values."""
    rng = np.random.default_rng(0)
    for c in range(2):
        (folder / f"c{c}").mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(1000, 1100, (24, 24)) + c * 400 * (np.arange(24) % 4 < 2)[:, None]
            (folder / f"c{c}/{i}.png").write_bytes(encoded(pixels.astype(np.uint16)))
    return folder


def test_a_range_becomes_all_of_eight_bits_and_what_lies_outside_is_clipped() -> None:
    pixels = np.array([[0, 1000, 1255, 1510, 60000]], np.uint16)
    for form in ("PNG", "TIFF"):
        grey = decode(encoded(pixels, form), in_chans=1, max_pixels=100, value_range=(1000.0, 1510.0))
        assert np.asarray(grey).tolist() == [[0, 0, 128, 255, 255]]  # 127.5 is rounded up
    many = decode(encoded(pixels, "npy"), in_chans=1, max_pixels=100, value_range=(1000.0, 1510.0))
    assert np.asarray(many).ravel().tolist()[:3] == [0, 0, 128] or np.allclose(np.asarray(many).ravel(), [0, 0, 0.5, 1, 1])
    whole = decode(encoded(pixels), in_chans=1, max_pixels=100)
    assert np.asarray(whole).tolist() == [[0, 4, 5, 6, 233]]  # value / 257, as ever


@pytest.mark.parametrize("form", ["PNG", "TIFF", "npy"])
def test_only_sixteen_bits_have_a_span(form: str) -> None:
    assert sixteen_bit_span(encoded(np.array([[7, 300]], np.uint16), form)) == (7, 300)
    assert sixteen_bit_span(encoded(np.array([[7, 30]], np.uint8), form)) is None


def test_the_range_is_that_of_the_training_images_where_it_is_small(tmp_path: Path) -> None:
    source = open_source(str(microscope(tmp_path / "dark")), Data(in_chans=1))
    seen = scan(source, Data(in_chans=1), workers=0)
    assert seen.value_range is not None and 1000 <= seen.value_range[0] <= 1002 and 1490 <= seen.value_range[1] <= 1499
    assert seen.std[0] > 0.2  # of pixels in 0..1: 0.003 on the whole scale
    assert any("16-bit images use 1000 to" in note for note in seen.notes)
    told = scan(source, Data(in_chans=1, value_range=(0.0, 65535.0)), workers=0)
    assert told.value_range == (0.0, 65535.0) and told.std[0] < 0.01 and not any("16-bit" in note for note in told.notes)
    for i, file in enumerate(sorted((tmp_path / "dark").rglob("*.png"))):
        file.write_bytes(encoded(np.full((24, 24), 3000 * i, np.uint16)))
    assert scan(source, Data(in_chans=1), workers=0).value_range is None  # most of the range is used


def test_a_range_is_refused_where_it_is_none() -> None:
    with pytest.raises(ConfigError, match=r"value_range: \(9.0, 3.0\) is not a range inside 0..65535"):
        Preprocess((8, 8), "crop", "bicubic", 1.0, (0.5,), (0.5,), 1, value_range=(9.0, 3.0))


def test_the_doctor_sees_what_the_model_will_see(tmp_path: Path) -> None:
    data = microscope(tmp_path / "dark")
    facts = collect(open_source(data, Data()), Data(), workers=0)
    low, high = facts.value_range or (0, 0)
    assert 1000 <= low <= 1002 and 1490 <= high <= 1499
    assert facts.contrast.min() > 10  # of 65,536 values it would be 0.2
    shown = tile(str(data / "c1/3.png"), in_chans=3, max_pixels=10_000, value_range=facts.value_range)
    assert shown is not None and np.asarray(shown).std() > 60
    wide = collect(open_source(data, Data()), Data(value_range=(0, 65535)), workers=0)
    assert wide.value_range == (0, 65535) and wide.contrast.max() < 1


def test_predictions_are_drawn_on_what_the_model_saw(tmp_path: Path) -> None:
    data = microscope(tmp_path / "dark")
    none = Boxes(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), ("nut",), (24, 24))
    for name, value_range in (("model", (1000.0, 1500.0)), ("none", None)):
        rows = [DetectionFile("3.png", str(data / "c1/3.png"), none, "")]
        write(rows, kind=Boxes, format="pictures", output=tmp_path / name, labels=["nut"], root=data, value_range=value_range)
        with Image.open(tmp_path / name / "3.png") as drawn:
            spread = int(np.ptp(np.asarray(drawn)[:160, :160]))  # without the legend beneath
        assert spread > 200 if value_range else spread < 5


@pytest.mark.slow
def test_training_and_every_consumer_scale_alike(tmp_path: Path) -> None:
    data = microscope(tmp_path / "dark")
    run = convmix.train(data, out=tmp_path / "run", quiet=True, device="cpu", **TINY)
    described = json.loads((run.path / "convmix.json").read_text())
    low, high = described["preprocess"]["value_range"]
    assert 1000 <= low <= 1002 and 1490 <= high <= 1499 and described["run"]["data"]["value_range"] == [low, high]
    file = data / "c1/3.png"
    again = load_artifact(run.path).preprocess
    eight = tmp_path / "eight.png"  # what the range makes of it, saved as a picture of eight bits
    decode(file, in_chans=3, max_pixels=10_000, value_range=(low, high)).save(eight)  # type: ignore[union-attr]
    assert (again.load(file) == again.load(eight)).all() and again.load(file).std() > 0.5
    dark, bright = run.model.predict([file, eight])
    assert dark.probability == bright.probability
    exported = convmix.export(run.path, "onnx", output=tmp_path / "onnx")
    for place in (exported.path, run.path):
        answers = convmix.predict(place, [str(file), str(eight)])
        assert answers[0].probability == pytest.approx(answers[1].probability, abs=1e-6)
    done = subprocess.run([sys.executable, "predict.py", file, eight], cwd=exported.path, capture_output=True, text=True, check=True)
    first, second = (line.split("\t")[1:] for line in done.stdout.splitlines())
    assert first == second
