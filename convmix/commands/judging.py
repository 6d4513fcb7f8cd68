"""What a model does and what its data is like: evaluate."""

from pathlib import Path

from rich.console import Console


def evaluate(
    run: Path,
    data: str | None = None,
    /,
    *,
    split: str = "test",
    output: Path | None = None,
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    optimize: str = "auto",
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
    output:
        The JSON file to write; into the model directory where it is left out.
    precision:
        auto, fp32, bf16, fp16 or int8.
    optimize:
        auto, always or never run the model in the fastest engine that `convmix optimize` finds; auto: where that ends sooner.
    """
    from convmix import evaluation

    result = evaluation.evaluate(
        run, data, split=split, output=output, batch_size=batch_size, device=device, precision=precision, optimize=optimize
    )
    Console().print(evaluation.table(result))
