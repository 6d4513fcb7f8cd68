"""Pictures of scored images, also of those that are gone by then."""

import io
from pathlib import Path

import PIL.Image

from convmix.config import Data
from convmix.data.sources import open_source
from convmix.evaluation.gallery import encoded
from tests.tiny_run import LABELS, make_run, write_folder


def test_an_image_that_is_gone_when_it_is_shown_is_grey(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    examples = next(iter(open_source(str(write_folder(tmp_path / "photos", dict.fromkeys(LABELS, 2))), Data()).splits.values()))
    shown = PIL.Image.open(io.BytesIO(encoded(examples, 0, run.preprocess)))
    Path(str(examples.source(0))).unlink()
    grey = PIL.Image.open(io.BytesIO(encoded(examples, 0, run.preprocess)))
    assert grey.size == shown.size and grey.convert("RGB").getcolors() == [(grey.width * grey.height, (128, 128, 128))]
