"""`convmix embed`: the features of images, for any program."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def embed(
    model: str,
    files: Annotated[list[str], Parameter(allow_leading_hyphen=True)],  # so that - is one
    /,
    *,
    weights: Path | None = None,
    output: Path = Path("features.parquet"),
    batch_size: int = 32,
    device: str | None = None,
    precision: str = "auto",
) -> None:
    """Write what a model knows of images before it classifies them, as parquet: name, features, error.

    Parameters
    ----------
    model:
        A model directory, or the name of a model with published weights.
    files:
        Images, folders, quoted globs, or - for a list of paths on standard input.
    weights:
        A weight file for the model of that name, instead of the published ones.
    output:
        The parquet file to write, or - for standard output.
    precision:
        auto, fp32, bf16 or fp16.
    """
    import sys

    from convmix.inference.embedding import embed as embed_files

    rows = embed_files(
        model, files, weights_file=weights, output=output, batch_size=batch_size, device=device, precision=precision
    )  # fmt: skip
    if all(row.error for row in rows):
        sys.exit(1)
