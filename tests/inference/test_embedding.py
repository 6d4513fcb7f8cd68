"""Features leave as parquet, the nearest training images stand beside a prediction, and noise is unlike the training images."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import convmix
from convmix.errors import ConfigError, RunError
from convmix.models.neighbours import FILE
from tests.command_line import Command
from tests.made_once import MadeOnce
from tests.trained_runs import classifier, dense_run
from tests.trained_runs import probe as fitted


@pytest.fixture
def probe(made_once: MadeOnce, photos: Path) -> Path:
    """A classifier fitted to frozen features; read only."""
    return fitted(made_once, photos)


def noise(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels // 2 * np.array([0, 2, 0], np.uint8)).save(path)
    return path


def test_a_fitted_run_says_what_is_unlike_its_training_images(probe: Path, photos: Path, tmp_path: Path) -> None:
    odd = noise(tmp_path / "noise.png")
    *like, unlike = convmix.predict(probe, [*sorted((photos / "class_0").iterdir())[:10], odd])
    assert sum(bool(p.unlike) for p in like) <= 1
    assert unlike.unlike
    assert unlike.distance > max(p.distance for p in like)


def test_the_nearest_training_images_stand_beside_the_answer(probe: Path, photos: Path, tmp_path: Path, command: Command) -> None:
    with (probe / "splits.csv").open() as file:
        known = [row for row in csv.DictReader(file) if row["split"] == "train"]
    name = known[0]["name"]
    [answer] = convmix.predict(probe, [photos / name], nearest=3)
    assert len(answer.nearest) == 3
    assert answer.nearest[0][:2] == (name, known[0]["label"])
    assert answer.nearest[0][2] == pytest.approx(1.0, abs=1e-3)
    assert answer.nearest[0][2] >= answer.nearest[1][2] >= answer.nearest[2][2]
    done = command("predict", probe, photos / name, "--nearest", "2", "--output", tmp_path / "a.csv")
    assert done.code == 0, done.err
    with (tmp_path / "a.csv").open() as file:
        [row] = csv.DictReader(file)
    assert (row["nearest_1"], row["unlike"]) == (name, "false")
    assert float(row["cosine_1"]) >= float(row["cosine_2"])
    done = command("predict", probe, photos / name, noise(tmp_path / "noise.png"), "--nearest", "1")
    assert "nearest training images" in done.out
    assert "unlike the training images (" in done.out
    command("predict", probe, photos / name, "--nearest", "1", "--output", tmp_path / "a.parquet")
    [row] = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert (row["unlike"], row["nearest"][0]["name"]) == (False, name)


def test_a_run_from_scratch_looks_for_its_training_images_when_asked(made_once: MadeOnce, photos: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(classifier(made_once, photos), tmp_path / "run"))
    picture = photos / "class_2" / "005.png"
    [plain] = convmix.predict(run, [picture])
    assert (plain.unlike, plain.nearest) == (None, ())
    assert "unlike" not in plain.to_dict()
    [answer] = convmix.predict(run, [picture], nearest=1)
    assert answer.nearest[0][1] == "class_2"
    assert (run / FILE).is_file()
    assert convmix.predict(run, [picture])[0].unlike is False  # kept for the next time


def test_embed_writes_what_the_classifier_gets(probe: Path, photos: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    done = command("embed", probe, photos / "class_1", tmp_path / "broken.png", "--output", tmp_path / "f.parquet", "--precision", "fp32")
    assert done.code == 0, done.err
    rows = pq.read_table(tmp_path / "f.parquet").to_pylist()
    assert len(rows) == 21
    assert rows[-1]["features"] is None
    assert rows[-1]["error"]
    run = convmix.load(probe)
    features = torch.tensor([row["features"] for row in rows[:-1]])
    with torch.no_grad():
        logits = run.artifact.model.head(features)
    answers = convmix.predict(probe, [photos / "class_1"], precision="fp32")
    assert [run.labels[i] for i in logits.argmax(1).tolist()] == [a.label for a in answers]


def test_embed_takes_a_model_by_name_with_a_file(tmp_path: Path, photos: Path) -> None:
    model = convmix.create_model("convmixer_16_2_k3_p4", num_classes=1000)
    about = {"mean": "[0.1, 0.2, 0.3]", "std": "[0.4, 0.5, 0.6]", "input_size": "[3, 24, 24]", "crop_pct": "1.0"}
    save_file(model.state_dict(), tmp_path / "w.safetensors", about)
    [row] = convmix.embed("convmixer_16_2_k3_p4", [photos / "class_1" / "003.png"], weights_file=tmp_path / "w.safetensors")
    assert row.features is not None
    assert len(row.features) == 16
    pixels = torch.from_numpy(np.array(Image.open(photos / "class_1" / "003.png"))).permute(2, 0, 1)[None] / 255
    x = (pixels - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.4, 0.5, 0.6])[:, None, None]
    with torch.no_grad():
        expected = model.eval().forward_head(model.forward_features(x), pre_logits=True)[0]
    torch.testing.assert_close(torch.tensor(row.features), expected, rtol=1e-2, atol=1e-2)  # bf16 where that is fast


@pytest.mark.slow
def test_mistakes_are_said(probe: Path, photos: Path, made_once: MadeOnce, tmp_path: Path, command: Command) -> None:
    picture = photos / "class_1" / "003.png"
    with pytest.raises(RunError, match="gives no features"):
        convmix.embed(dense_run(made_once, "detect"), [picture])
    with pytest.raises(ConfigError, match="nearest is for classifiers"):
        convmix.predict(dense_run(made_once, "detect"), [picture], nearest=1)
    with pytest.raises(ConfigError, match="without int8"):
        convmix.predict(probe, [picture], nearest=1, optimize="always")
    with pytest.raises(ConfigError, match=r"does not end in \.parquet"):
        convmix.embed(probe, [picture], output=tmp_path / "a.csv")
    assert command("embed", "convmixer_16_2_k3_p", picture).code == 2
    assert "no such folder" in command("embed", "./nowhere", picture).err


def test_what_tells_of_single_images_is_not_pushed(probe: Path, tmp_path: Path) -> None:
    assert (probe / FILE).is_file()
    convmix.push(probe, str(tmp_path / "pushed"))
    assert not (tmp_path / "pushed" / FILE).exists()
    assert "class_0/" not in json.dumps([p.name for p in (tmp_path / "pushed").iterdir()])
