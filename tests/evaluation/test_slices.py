"""Groups of images that do worse are found, and the others are not accused."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tiny_run import LABELS, make_run, write_folder, write_image

from convmix.artifacts.artifact import Artifact
from convmix.data.decode import BadImage, decode, upright_size
from convmix.evaluation import evaluate, table
from convmix.evaluation import slices as slicing
from convmix.evaluation.appearance import Brightness
from convmix.evaluation.slices import MOST_VALUES, Grouping, Slice, by_aspect, by_quarter, by_value
from convmix.metrics.classification import wilson_interval
from convmix.metrics.resampling import Sampled

pytestmark = pytest.mark.usefixtures("without_page")


def slices(groupings: list[Grouping], correct: np.ndarray) -> tuple[Slice, ...]:
    return slicing.slices(groupings, lambda at: Sampled.share(correct[at]), overall=float(correct.mean()))


def found(grouping: Grouping, correct: list[bool] | np.ndarray) -> list[tuple[str, int, int]]:
    return [(s.value, s.n, s.correct) for s in slices([grouping], np.asarray(correct, dtype=bool))]


def test_values_are_counted_by_hand() -> None:
    grouping = by_value("camera", ["b", "a", "b", "b", "a"])
    assert found(grouping, [True, True, False, True, False]) == [("a", 2, 1), ("b", 3, 2)]


def test_a_slice_is_worse_only_where_its_whole_interval_is() -> None:
    grouping = by_value("light", ["night"] * 40 + ["day"] * 160 + ["dusk"])
    correct = np.array([True] * 20 + [False] * 20 + [True] * 150 + [False] * 10 + [False])
    by_name = {s.value: s for s in slices([grouping], correct)}
    assert {name for name, s in by_name.items() if s.worse} == {"night"}  # dusk has none right, of one
    assert by_name["night"].interval == wilson_interval(20, 40)
    assert by_name["night"].interval[1] < correct.mean()


def test_what_all_images_share_is_no_slice() -> None:
    assert found(by_value("camera", ["a", "a"]), [True, False]) == []
    assert found(by_quarter("size", np.full(8, 1024.0)), [True] * 8) == []


def test_many_values_leave_the_rarest_together() -> None:
    values = [f"v{i:03d}" for i in range(100) for _ in range(100 - i)]
    groups = found(by_value("city", values), [True] * len(values))
    assert len(groups) == MOST_VALUES
    assert groups[0] == ("v000", 100, 100) and groups[-1][0] == "71 rarer values"
    assert sum(n for _, n, _ in groups) == len(values)


def test_numbers_are_cut_into_quarters_named_by_their_ends() -> None:
    values = np.arange(1000, 1100, dtype=float)
    assert [(v, n) for v, n, _ in found(by_quarter("size", values, unit="pixels"), [True] * 100)] == [
        ("1,000 to 1,024 pixels", 25), ("1,025 to 1,049 pixels", 25), ("1,050 to 1,074 pixels", 25), ("1,075 to 1,099 pixels", 25),
    ]  # fmt: skip


def test_equal_numbers_stay_together_and_missing_ones_are_apart() -> None:
    values = np.array([1.0] * 6 + [2.0, 3.0] + [math.nan])
    assert [(v, n) for v, n, _ in found(by_quarter("age", values), [True] * 9)] == [("1", 6), ("2 to 3", 2), ("not given", 1)]


@pytest.mark.parametrize(
    ("width", "height", "name"),
    [
        (10, 30, "taller than 1:2"),
        (10, 20, "taller than 1:2"),
        (10, 15, "tall, 1:2 to 3:4"),
        (10, 10, "about square"),
        (40, 30, "about square"),
        (16, 9, "wide, 4:3 to 2:1"),
        (30, 10, "wider than 2:1"),
    ],
)
def test_aspects_have_names(width: int, height: int, name: str) -> None:
    grouping = by_aspect(np.array([[height, width]]))
    assert grouping.values[grouping.groups[0]] == name


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "npy"])
def test_the_size_in_the_header_is_that_of_the_decoded_image(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(file, np.zeros((20, 30, 3), np.uint8))
    else:
        image = Image.new("RGB", (30, 20))
        exif = image.getexif()
        exif[0x0112] = 6  # lies on its side
        image.save(file, exif=exif)
    for source in (str(file), file.read_bytes()):
        image = decode(source, in_chans=3, max_pixels=10**6)
        expected = image.shape[:2] if isinstance(image, np.ndarray) else (image.height, image.width)
        assert upright_size(source, in_chans=3, max_pixels=10**6) == expected == ((20, 30) if suffix == "npy" else (30, 20))


def test_the_size_of_what_is_no_image_is_refused() -> None:
    with pytest.raises(BadImage):
        upright_size(b"no image", in_chans=3, max_pixels=10**6)


@pytest.mark.parametrize(
    ("mode", "colour", "level"), [("RGB", (255, 0, 0), 0.299 * 255), ("L", 100, 100), ("RGBA", (0, 255, 0, 255), 0.587 * 255)]
)
def test_brightness_is_the_luma_of_what_the_model_sees(tmp_path: Path, mode: str, colour: object, level: float) -> None:
    folder = tmp_path / "some"
    for label in ("ant", "bee"):
        (folder / label).mkdir(parents=True)
        Image.new(mode, (12, 12), colour if label == "ant" else 0).save(folder / label / "0.png")  # type: ignore[arg-type]
    chans = len(mode)
    run = make_run(tmp_path / "run", splits={}, mean=(0.4,) * chans, std=(0.3,) * chans, in_chans=chans)
    images = {i.truth: i for i in evaluate(run, folder, precision="fp32").images}
    assert images["ant"].brightness == pytest.approx(level, abs=0.01)
    assert images["bee"].brightness == pytest.approx(0, abs=0.01)


def test_nothing_seen_has_no_brightness(run: Artifact) -> None:
    assert len(Brightness(run.preprocess).values) == 0


class DarknessBlind(torch.nn.Module):
    """Tells red from green from blue, but not in the dark: then it says red."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        colours = (x * 0.25 + 0.5).mean((2, 3))  # n,3 in 0..1
        blind = torch.tensor([1.0, 0.0, 0.0]).expand_as(colours)
        return torch.where(colours.sum(1, keepdim=True) < 0.1, blind, colours) * 20


def test_planted_dark_images_are_found_and_small_ones_are_not_accused(tmp_path: Path) -> None:
    """A quarter of the images is dark and misread; another quarter is small and read as well as the rest."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "planted"
    for c, label in enumerate(LABELS):
        (folder / label).mkdir(parents=True)
        for i in range(40):
            side, level = (8 if i % 4 == 1 else 16), (12 if i % 4 == 0 else 200)
            pixels = np.zeros((side, side, 3), np.uint8)
            pixels[..., c] = level + rng.integers(0, 5, (side, side))
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    run = replace(make_run(tmp_path / "run", splits={}), model=DarknessBlind())
    result = evaluate(run, folder, precision="fp32", optimize="never", workers=0)
    by = {(s.by, s.value): s for s in result.slices}
    assert result.metrics["correct"] == 100  # of 120; the dark red ones are right by luck
    dark = next(s for (kind, _), s in by.items() if kind == "brightness")
    assert (dark.n, dark.correct, dark.worse) == (30, 10, True)
    assert [s.value for s in result.slices if s.by == "size"] == ["64 pixels", "256 pixels"]
    assert {s.by for s in result.slices if s.worse} == {"brightness"}
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(result))
    assert f"worse than the whole: brightness {dark.value}, 33.33 % of 30 images" in captured.get()


def test_slices_are_made_of_the_images_that_could_be_read(run: Artifact, tmp_path: Path) -> None:
    some = write_folder(tmp_path / "some", {"ant": 4, "bee": 4}, seed=70_000)
    (some / "ant" / "0.png").write_bytes(b"\xff\xd8\xff")
    write_image(some / "bee" / "wide.png", 1, size=(12, 60))
    result = evaluate(run, some, precision="fp32")
    per_kind: dict[str, list[Slice]] = {}
    for s in result.slices:
        per_kind.setdefault(s.by, []).append(s)
    assert {by: sum(s.n for s in of) for by, of in per_kind.items()} == dict.fromkeys(("class", "size", "aspect", "brightness"), 8)
    assert [(s.value, s.n) for s in per_kind["aspect"]] == [("about square", 7), ("wider than 2:1", 1)]
    with result.output.with_suffix(".csv").open(newline="") as file:
        wide = next(row for row in csv.DictReader(file) if row["name"].endswith("wide.png"))
    assert (wide["width"], wide["height"]) == ("60", "12")
    with torch.inference_mode():
        logits = run.model(run.preprocess.load(str(some / "bee" / "wide.png"))[None])
    assert float(wide["loss"]) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, torch.tensor([1]))), rel=1e-4)
    assert float(wide["truth_probability"]) == pytest.approx(float(logits.softmax(1)[0, 1]), rel=1e-4)
