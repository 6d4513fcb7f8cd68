"""An export of a run that knows its training images says how like them an image is; it holds no file name of theirs."""

from pathlib import Path

import numpy as np
import pytest
from exporting_runs import Writer
from PIL import Image

import convmix
from convmix.artifacts.artifact import load_artifact
from convmix.errors import ConfigError
from convmix.inference.prediction import predict
from convmix.models.neighbours import FILE
from tests.made_once import MadeOnce
from tests.trained_runs import classifier, probe

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # the exporters' own


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer()


@pytest.fixture(scope="module", params=["onnx", "openvino", "torch"])
def exported(request: pytest.FixtureRequest, writer: Writer, made_once: MadeOnce, photos: Path) -> Path:
    """Read only."""
    run = probe(made_once, photos)
    return made_once(f"probe_{request.param}", lambda place: writer(run, request.param, bake="normalise", size="fixed", output=place))


def pictures(photos: Path, folder: Path) -> list[str]:
    """Of every class, and one that is like none."""
    odd = folder / "odd.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 128, (24, 24, 3), dtype=np.uint8) * np.array([0, 2, 0], np.uint8)).save(odd)
    return [*(str(photos / f"class_{c}" / "003.png") for c in range(3)), str(odd)]


@pytest.mark.slow
def test_it_says_what_the_run_says(exported: Path, made_once: MadeOnce, photos: Path, tmp_path: Path) -> None:
    files = pictures(photos, tmp_path)
    wanted = predict(probe(made_once, photos), files, precision="fp32", optimize="never")
    found = convmix.load(exported).predict(files)
    assert [p.unlike for p in wanted] == [False, False, False, True]
    assert [(p.label, p.unlike) for p in found] == [(p.label, p.unlike) for p in wanted]
    assert [p.distance for p in found] == pytest.approx([p.distance for p in wanted], abs=1e-3)
    assert np.ptp([p.distance for p in wanted]) > 0.05


@pytest.mark.slow
def test_it_holds_no_name_of_a_training_image(exported: Path, made_once: MadeOnce, photos: Path) -> None:
    assert b"003.png" in (probe(made_once, photos) / FILE).read_bytes()
    assert not any(b"003.png" in file.read_bytes() for file in exported.iterdir() if file.is_file())
    with pytest.raises(ConfigError, match=r"nearest: .* give the run itself"):
        predict(exported, [str(photos / "class_0" / "003.png")], nearest=1)


@pytest.mark.slow
def test_an_export_of_a_run_without_them_is_as_it_was(made_once: MadeOnce, photos: Path, tmp_path: Path) -> None:
    run = classifier(made_once, photos)
    made = Writer()(run, "torch", bake="normalise", size="fixed", output=tmp_path / "torch")
    assert made.description.outputs == ("logits", "probabilities")
    assert not (made.path / FILE).exists()
    [row] = predict(load_artifact(made.path), [str(photos / "class_0" / "003.png")])
    assert (row.unlike, row.distance) == (None, None)
