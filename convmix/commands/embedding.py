"""`convmix embed`: the features of images, for any program."""

import sys
from pathlib import Path
from typing import Any

from convmix.commands.derived import Changes, Work, command


@command(
    Work("inference.embedding", "embed"),
    Changes(defaults={"output": Path("features.parquet")}, aliases={"weights_file": "--weights"}, types={"model": str}),
)
def embed(given: dict[str, Any]) -> None:
    """Write what a model knows of images before it classifies them, as parquet: name, features, error."""
    from convmix.inference.embedding import embed as embed_files

    rows = embed_files(given.pop("model"), given.pop("files"), **given)
    if all(row.error for row in rows):
        sys.exit(1)
