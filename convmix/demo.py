"""`make demo`: train on scikit-learn's scanned digits, show the result, label a few files."""

from pathlib import Path

from convmix import cli
from convmix.artifacts.artifact import load_artifact
from convmix.config import from_dict
from convmix.data.sources import open_source
from convmix.data.splits import with_splits
from convmix.training.session import default_out

SAMPLES = 8


def main() -> None:
    """Train into runs/digits (or runs/digits-2, ...) and predict files written from its test split."""
    out = default_out("digits", resume=False)
    cli.main(["train", "digits", "--recipe", "digits", "--out", str(out)])
    files = write_samples(out, out / "samples")
    print(f"\nconvmix predict {out} {out / 'samples'}/*.png")
    cli.main(["predict", str(out), *map(str, files)])
    print(f"\nlook at {out / 'curves.png'} and {out / 'predictions.png'}; {out / 'README.md'} is the model card")


def write_samples(run: Path, folder: Path) -> list[Path]:
    """The first test images as PNG files whose names say the truth."""
    data = from_dict(load_artifact(run).info["run"]).data
    test = with_splits(open_source("digits", data), data).splits["test"]
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i in range(SAMPLES):
        source = test.source(i)
        if not isinstance(source, bytes):
            raise TypeError("the digits are embedded, not files")
        files.append(folder / f"{i}_a_{test.classes[test.labels[i]]}.png")
        files[-1].write_bytes(source)
    return files


if __name__ == "__main__":
    main()
