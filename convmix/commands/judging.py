"""What a model does, how sure it may be, and what the data is like: evaluate, calibrate, explain, doctor."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from convmix.artifacts.runtime import digests
from convmix.explanation.methods import NAMES

Several = Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())]
Methods = Annotated[
    list[str] | None,
    Parameter(consume_multiple=True, negative=(), help=f"Any of {', '.join(NAMES)}, one after the other; all where it is left out."),
]


def evaluate(
    run: Path,
    data: str | None = None,
    /,
    *,
    split: str = "test",
    against: Path | None = None,
    slices: str | None = None,
    robustness: bool = False,
    output: Path | None = None,
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    optimize: str = "auto",
    verify: bool = True,
) -> None:
    """Score a model directory on its own test split, or on other labelled images.

    Parameters
    ----------
    run:
        A model directory.
    data:
        Labelled images in any form that `train` takes; the data set of the training where it is left out.
    split:
        train, val or test.
    against:
        A second model directory, scored on the same images: says whether the difference between the two is real.
    slices:
        A CSV file about the images: table.csv, or table.csv:COLUMN,COLUMN; accuracy by its columns. Class, size, aspect and brightness
        need no file.
    robustness:
        Also score the images blurred, noisy, compressed, darker or brighter, and turned; 15 times the work.
    output:
        The JSON file to write; into the model directory where it is left out. A CSV with every image, a page and its pictures are written
        beside it.
    precision:
        auto, fp32, bf16, fp16 or int8.
    optimize:
        auto, always or never run the model in the fastest engine that `convmix optimize` finds; auto: where that ends sooner.
    verify:
        Whether the files of an exported model are compared with their digests; --no-verify takes a model that was changed on purpose.
    """
    if not verify:
        digests.skip()
    from convmix import evaluation

    result = evaluation.evaluate(
        run, data, split=split, against=against, slices=slices, robustness=robustness, output=output, batch_size=batch_size, device=device,
        precision=precision, optimize=optimize, console=Console(),
    )  # fmt: skip
    Console().print(evaluation.table(result))


def calibrate(
    run: Path,
    data: str | None = None,
    /,
    *,
    accuracy: float | None = None,
    coverage: float | None = None,
    split: str = "val",
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
) -> None:
    """Choose below which probability an answer is "not sure"; predict honours it from then on.

    Parameters
    ----------
    run:
        A model directory; its probabilities are calibrated again, its answers stay the same.
    data:
        Labelled images in any form that `train` takes; the validation images of the training where it is left out.
    accuracy:
        Answer as many images as possible so that this share of the answers is right, such as 0.95; of images with several labels, so that
        this share of each label's is right.
    coverage:
        Answer this share of the images, the surest ones. With neither every answer is sure.
    split:
        val, or the split of other data; test makes the scores on it no longer blind.
    precision:
        auto, fp32, bf16 or fp16.
    """
    from convmix.evaluation import calibrate, calibration_page

    result = calibrate.calibrate(
        run, data, accuracy=accuracy, coverage=coverage, split=split, batch_size=batch_size, device=device, precision=precision
    )
    Console().print(calibration_page.table(result))


def explain(
    run: Path,
    files: Annotated[list[str] | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    classes: Several = None,
    methods: Methods = None,
    output: Path | None = None,
    limit: int = 16,
    device: str | None = None,
) -> None:
    """Show where in images a model finds its evidence, how far that can be trusted, and what the model is made of.

    Parameters
    ----------
    run:
        A model directory.
    files:
        Images, folders, quoted globs, or - for a list of paths on standard input; the model itself alone where they are left out.
    classes:
        Classes to explain beside the predicted one, one after the other.
    output:
        The folder for the page, its pictures and its JSON; the model directory where it is left out.
    limit:
        Images to explain at most, evenly over the files.
    device:
        Where to compute; what this machine is best at where it is left out.
    """
    from convmix.explanation import explain, terminal_table

    result = explain.explain(run, files or [], classes=classes or [], methods=methods or NAMES, output=output, limit=limit, device=device)
    Console().print(terminal_table.table(result))


def doctor(
    data: str,
    /,
    *,
    run: Path | None = None,
    fix: Path | None = None,
    output: Path | None = None,
    near: bool = True,
    image_column: str | None = None,
    label_column: str | None = None,
    in_chans: int | None = None,
    device: str | None = None,
    workers: int | None = None,
    layout: str | None = None,
) -> None:
    """Examine a data set: broken and odd images, copies, leaks between splits, class balance, probable label errors.

    Parameters
    ----------
    data:
        Labelled images in any form that `train` takes; they are never changed.
    run:
        A model directory whose model checks the labels of images that it was not trained on.
    fix:
        A folder to make and fill with a cleaned copy, or a .csv that lists what to keep.
    output:
        The folder for the page, the table and the JSON; doctor-NAME where it is left out.
    near:
        Also look for near copies: resized, re-encoded, mirrored, of other brightness.
    in_chans:
        Channels of the images; 3 where it is left out.
    workers:
        Processes that decode; one per core where it is left out.
    layout:
        How the data is read, as in `inspect`; as what lies there says where it is left out.
    """
    from rich.progress import Progress

    from convmix.audit import doctor

    with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as bar:
        line = bar.add_task("images", total=None)
        result = doctor.doctor(
            data, run=run, fix=fix, output=output, near=near, image_column=image_column, label_column=label_column, in_chans=in_chans,
            device=device, workers=workers, progress=lambda done, total: bar.update(line, completed=done, total=total), layout=layout,
            console=Console(),
        )  # fmt: skip
    Console().print(doctor.table(result))
