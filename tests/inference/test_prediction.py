"""Files in, rows out: the right answer for each file, in order, in every format, whatever the files are."""

import csv
import dataclasses
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from tiny_run import LABELS, make_run, write_folder, write_image

from convmix.artifacts.artifact import Artifact, save_calibration
from convmix.errors import ConfigError, DataError, RunError
from convmix.inference.file_names import find_files
from convmix.inference.output_forms import FORMATS as OF_RESULTS
from convmix.inference.prediction import Prediction, encode, predict, predict_stream
from convmix.metrics.calibration import Calibration
from convmix.results import Classes

FORMATS = OF_RESULTS[Classes]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_run(tmp_path_factory.mktemp("model") / "run")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """images/: 0.png .. 4.png, and in the middle broken.jpg."""
    for i in range(5):
        write_image(tmp_path / "images" / f"{i}.png", i)
    (tmp_path / "images" / "2x.jpg").write_bytes(b"\xff\xd8\xff no image")
    return tmp_path / "images"


class Stdin:
    """Standard input that holds `data`."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def truth_of(run: Artifact, file: Path) -> list[tuple[str, float]]:
    """What the model says about one file, without any of the code under test: best first."""
    with torch.inference_mode():
        shares = run.model(run.preprocess.load(str(file))[None]).softmax(1)[0]
    return sorted(zip(run.labels, shares.tolist(), strict=True), key=lambda pair: -pair[1])


def test_a_prediction_equals_the_model_on_the_prepared_file(run: Artifact, images: Path) -> None:
    files = sorted(images.glob("?.png"))
    rows = predict(run, files, top=3, batch_size=1, precision="fp32")
    for row, file in zip(rows, files, strict=True):
        best, *others = truth_of(run, file)
        assert (row.name, row.label, row.probability, list(row.alternatives), row.error) == (str(file), *best, others, None)
    assert len({row.probability for row in rows}) == 5


@pytest.mark.parametrize(("batch_size", "workers"), [(2, 0), (2, 2), (64, None)])
def test_batches_and_processes_change_nothing(run: Artifact, images: Path, batch_size: int, workers: int | None) -> None:
    one = predict(run, [images], batch_size=1, workers=0, precision="fp32")
    some = predict(run, [images], batch_size=batch_size, workers=workers, precision="fp32")
    assert [(r.name, r.label, r.error) for r in some] == [(r.name, r.label, r.error) for r in one]
    assert [r.probability or 0 for r in some] == pytest.approx([r.probability or 0 for r in one], abs=1e-6)


def test_a_model_directory_is_as_good_as_a_loaded_run(run: Artifact, images: Path) -> None:
    assert predict(str(run.path), [images]) == predict(run, [images])


def test_a_broken_image_is_a_row_in_its_place(run: Artifact, images: Path) -> None:
    rows = predict(run, [images / "0.png", images / "2x.jpg", images / "gone.png", images / "1.png"], batch_size=2)
    assert [Path(r.name).name for r in rows] == ["0.png", "2x.jpg", "gone.png", "1.png"]
    assert [r.error is None for r in rows] == [True, False, False, True]
    assert rows[1].label is rows[1].probability is None
    assert rows[2].error == "no such file"


def test_a_batch_of_broken_images_alone_is_no_obstacle(run: Artifact, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file in files:
        file.write_bytes(b"")
    assert [r.error for r in predict(run, files, batch_size=2)] == ["empty file"] * 3


def test_order_and_repetitions_are_kept(run: Artifact, images: Path) -> None:
    names = [str(images / n) for n in ("3.png", "0.png", "3.png")]
    rows = predict(run, names)
    assert [r.name for r in rows] == names
    assert rows[0] == rows[2]


@pytest.mark.parametrize("part", ["the first layer", "one class"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_is_an_error_of_its_row(tmp_path: Path, images: Path, part: str, value: float) -> None:
    spoilt = make_run(tmp_path / "run")
    parameters = list(spoilt.model.parameters())
    with torch.no_grad():
        (parameters[0] if part == "the first layer" else parameters[-1][:1]).fill_(value)  # the last is the classifier's bias
    assert [r.error for r in predict(spoilt, [images / "0.png"])] == ["the model's output is not finite"]


def test_the_stream_reads_no_further_than_it_is_asked(run: Artifact, images: Path) -> None:
    files = [images / "0.png"] + [images / "1.png"] * 2000
    stream = predict_stream(run, files, batch_size=2, workers=0)
    assert next(stream).name == str(images / "0.png")
    (images / "1.png").unlink()  # what was not read yet is now missing
    rest = list(stream)
    assert [r.error is None for r in rest[:1]] == [True]
    assert {r.error for r in rest[3:]} == {"no such file"}


def test_grey_images_reach_a_grey_model(tmp_path: Path) -> None:
    grey = make_run(tmp_path / "run", in_chans=1, mean=(0.5,), std=(0.25,))
    assert predict(grey, [write_image(tmp_path / "a.png", 0), write_image(tmp_path / "b.png", 0, mode="L")])[1].error is None


# Sure or not

CALIBRATION = Calibration(2.0, 0.6, "val", 500, 0.1, 0.02, 0.9, 0.8)


@pytest.fixture(scope="module")
def careful(run: Artifact) -> Artifact:
    """The same model with a temperature and a threshold."""
    return dataclasses.replace(run, calibration=CALIBRATION)


def test_probabilities_are_calibrated_and_the_answers_stay(run: Artifact, images: Path) -> None:
    files = sorted(images.glob("?.png"))
    with torch.inference_mode():
        logits = run.model(torch.stack([run.preprocess.load(str(file)) for file in files]))
    expected = (logits / 2).softmax(1).amax(1).tolist()
    threshold = sorted(expected)[2] - 1e-4
    careful = dataclasses.replace(run, calibration=dataclasses.replace(CALIBRATION, threshold=threshold))
    rows = predict(careful, files, precision="fp32")
    assert [r.probability for r in rows] == pytest.approx(expected, abs=1e-6)
    assert [r.label for r in rows] == [r.label for r in predict(run, files, precision="fp32")]
    assert [r.sure for r in rows] == [p >= threshold for p in expected]
    assert sum(bool(r.sure) for r in rows) == 3


def test_without_a_threshold_every_answer_is_sure_and_an_error_is_neither(run: Artifact, images: Path) -> None:
    assert {r.sure for r in predict(run, [images])} == {True, None}
    assert [r.sure for r in predict(run, [images]) if r.error] == [None]


@pytest.mark.parametrize("kind", ["run", "careful"])
def test_a_threshold_asked_for_stands_in_for_the_stored_one(request: pytest.FixtureRequest, images: Path, kind: str) -> None:
    model, files = request.getfixturevalue(kind), sorted(images.glob("?.png"))
    shares = sorted(r.probability or 0 for r in predict(model, files))
    assert [r.sure for r in predict(model, files, threshold=0.0)] == [True] * 5
    assert [r.sure for r in predict(model, files, threshold=1.0)] == [False] * 5
    assert sum(bool(r.sure) for r in predict(model, files, threshold=shares[2])) == 3  # the threshold itself is sure


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_is_no_probability_is_named(run: Artifact, images: Path, threshold: float) -> None:
    with pytest.raises(ConfigError, match=f"threshold: {threshold:g} is outside 0..1"):
        predict(run, [images], threshold=threshold)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_says_what_is_not_sure(format: str) -> None:
    rows = [
        Prediction("a", "cat", 0.9, (("dog", 0.1),)),
        Prediction("b", "cat", 0.5, (("dog", 0.4),), sure=False),
        Prediction("c", None, None, error="empty file", sure=None),
    ]
    data = b"".join(encode(rows, format=format, top=2))
    if format == "table":
        _, a, b, c = data.decode().splitlines()
        assert "not sure (cat)" in b and "50.0 %" in b and "dog" in b
        assert "not sure" not in a + c
        return
    if format in ("csv", "csv-raw"):
        found = [row["sure"] for row in csv.DictReader(io.StringIO(data.decode()))]
        assert found == ["true", "false", ""]
        return
    if format == "parquet":
        values = pq.read_table(io.BytesIO(data)).to_pylist()
    else:
        values = json.loads(data) if format == "json" else [json.loads(line) for line in data.splitlines()]
    assert [(v["label"], v["sure"]) for v in values] == [("cat", True), ("cat", False), (None, None)]


def test_a_directory_brings_its_threshold(run: Artifact, images: Path, tmp_path: Path) -> None:
    path = shutil.copytree(run.path, tmp_path / "run")
    save_calibration(path, dataclasses.replace(CALIBRATION, threshold=1.0))
    assert not any(r.sure for r in predict(path, [images]))


# Which files


def test_a_folder_gives_its_images_in_order_without_company(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "sub/c.jpg", ".hidden.png", ".cache/d.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    relative = [str(Path(f).relative_to(tmp_path)) for f in find_files([tmp_path])]
    assert relative == ["a.PNG", "b.png", "sub/c.jpg"]
    assert [Path(f).name for f in find_files([tmp_path], recursive=False)] == ["a.PNG", "b.png"]


def test_a_link_to_the_folder_above_ends(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "x.png", 0)
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(find_files([tmp_path])) == 1


def test_a_quoted_pattern_is_expanded(images: Path) -> None:
    assert [Path(f).name for f in find_files([f"{images}/[13].png"])] == ["1.png", "3.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    write_image(tmp_path / "a[1].png", 0)
    write_image(tmp_path / "a1.png", 0)
    assert [Path(f).name for f in find_files([tmp_path / "a[1].png"])] == ["a[1].png"]


def test_a_named_file_is_tried_whatever_its_suffix(run: Artifact, tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", 0).rename(tmp_path / "x.dat")
    assert predict(run, [tmp_path / "x.dat"])[0].error is None


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_names_are_read_from_standard_input(images: Path, monkeypatch: pytest.MonkeyPatch, separator: bytes) -> None:
    names = [str(images / "1.png"), str(images / "gone.png"), str(images / "0.png")]
    monkeypatch.setattr(sys, "stdin", Stdin(separator.join(map(os.fsencode, [*names, ""]))))
    assert find_files(["-"]) == names


def test_a_name_with_a_line_end_needs_nul(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = write_image(tmp_path / "two\nlines.png", 0)
    monkeypatch.setattr(sys, "stdin", Stdin(os.fsencode(odd) + b"\0"))
    assert find_files(["-"]) == [str(odd)]


def test_nothing_found_names_the_nearest(images: Path) -> None:
    with pytest.raises(DataError, match=r"imagse/0\.png matches no file, did you mean images\?"):
        find_files([images.parent / "imagse" / "0.png"])
    with pytest.raises(DataError, match=r"matches no file, did you mean 2x\.jpg\?"):
        find_files([images / "2x.jpeg"])
    with pytest.raises(DataError, match="matches no file"):
        find_files([f"{images}/*.tiff"])


def test_an_empty_folder_and_an_empty_list_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="has no images; their names end in"):
        find_files([tmp_path])
    monkeypatch.setattr(sys, "stdin", Stdin(b"\n"))
    with pytest.raises(DataError, match="no files named"):
        find_files(["-"])


# Formats


def read_back(path: Path) -> list[tuple[object, ...]]:
    """(name, label, probability, second label, error) of every row, by other people's readers."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [
            (r["name"], r["label"] or None, float(r["probability"]) if r["probability"] else None, r["label_2"] or None, r["error"] or None)
            for r in rows
        ]
    if path.suffix == ".parquet":
        values = pq.read_table(path).to_pylist()
    else:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    seconds = [v["alternatives"][0]["label"] if v["alternatives"] else None for v in values]
    return [(v["name"], v["label"], v["probability"], s, v["error"]) for v, s in zip(values, seconds, strict=True)]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
def test_every_format_is_read_back_exactly(run: Artifact, tmp_path: Path, suffix: str) -> None:
    names = ['a,"b".png', "two\nlines.png", "back\rcarriage.png", "日本 ü.png", " =1+1.png"]
    files = [write_image(tmp_path / name, i) for i, name in enumerate(names)] + [tmp_path / "gone.png"]
    out = tmp_path / "out" / f"predictions{suffix}"
    rows = predict(run, files, output=out, top=2)
    expected = [(r.name, r.label, r.probability, r.alternatives[0][0] if r.alternatives else None, r.error) for r in rows]
    assert read_back(out) == expected
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("format", FORMATS)
def test_no_rows_are_written_in_every_format(format: str) -> None:
    text = b"".join(encode([], format=format))
    if format == "json":
        assert json.loads(text) == []
    elif format == "parquet":
        assert pq.read_table(io.BytesIO(text)).num_rows == 0
    elif format == "jsonl":
        assert text == b""
    else:
        assert text.count(b"\n") == 1


@pytest.mark.parametrize("format", FORMATS)
def test_a_name_that_is_no_utf8_is_written_readably(format: str) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    data = b"".join(encode([Prediction(name, "a", 0.5)], format=format))
    text = str(pq.read_table(io.BytesIO(data)).to_pylist()) if format == "parquet" else data.decode()
    assert "caf\\xe9.png" in text.replace("\\\\", "\\")


def test_a_table_shows_every_file_on_one_line_and_no_control_characters() -> None:
    rows = [Prediction("x" * 300 + ".png", "[red]a[/red]", 0.99999), Prediction("bad\x1b[31m\n.png", None, None, error="empty file")]
    text = b"".join(encode(rows, format="table")).decode()
    lines = text.splitlines()
    assert len(lines) == 3
    assert "x" * 300 in lines[1] and "[red]a[/red]" in lines[1] and "99.9 %" in lines[1]
    assert "\x1b" not in text and "empty file" in lines[2]


def test_rows_go_to_standard_output(run: Artifact, images: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    predict(run, [images / "0.png"], output="-", format="csv")
    header, row = csv.reader(io.StringIO(capfdbinary.readouterr().out.decode()))
    assert header == ["name", "label", "probability", "sure", "error"]
    assert row[0] == str(images / "0.png") and row[1] in LABELS


def test_the_format_is_asked_for_or_told_by_the_suffix(run: Artifact, images: Path, tmp_path: Path) -> None:
    predict(run, [images / "0.png"], output=tmp_path / "a.txt", format="jsonl")
    assert json.loads((tmp_path / "a.txt").read_text())["name"] == str(images / "0.png")
    with pytest.raises(ConfigError, match=r"format: jsnol is not one of .*, did you mean jsonl"):
        predict(run, [images], format="jsnol")
    with pytest.raises(ConfigError, match=r"unknown suffix \.tsv"):
        predict(run, [images], output=tmp_path / "a.tsv")
    with pytest.raises(ConfigError, match="is a folder"):
        predict(run, [images], output=tmp_path, format="csv")


def test_a_failure_keeps_the_old_output(run: Artifact, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.csv"
    out.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no more memory")

    monkeypatch.setattr("convmix.inference.predictor.run_model", fail)
    with pytest.raises(RuntimeError, match="no more memory"):
        predict(run, [images], output=out)
    assert out.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "images"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top": 0}, "top: 0 is too small"),
        ({"batch_size": 0}, "batch_size: 0 is too small"),
        ({"workers": -1}, "workers: -1 is too small"),
        ({"device": "gpu"}, "device: gpu cannot be used here"),
        ({"device": "meta"}, "device: meta cannot be used here"),
        ({"precision": "bf61"}, "precision: bf61 is not one of .*, did you mean bf16"),
    ],
)
def test_impossible_settings_are_named(run: Artifact, images: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        predict(run, [images], **settings)  # type: ignore[arg-type]


def test_a_folder_that_is_no_model_is_named(images: Path) -> None:
    with pytest.raises(RunError, match=r"it has no convmix\.json"):
        predict(images, [images])


def test_half_precision_gives_nearly_the_same(run: Artifact, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "more", {"a": 8})
    full, half = (predict(run, [folder], precision=p, top=3) for p in ("fp32", "bf16"))
    for a, b in zip(full, half, strict=True):
        of_a, of_b = (dict([(r.label, r.probability), *r.alternatives]) for r in (a, b))
        assert of_b == pytest.approx(of_a, abs=0.05)
