"""What is run while faults are injected: every verb that computes here on small ground, with the files that it has to leave."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.campaign.annotations import write_tagged_boxes
from tests.conftest import make_photos

_MODEL = ("--model", "convmixer_8_1_k3_p4", "--size", "24", "--batch-size", "8", "--precision", "fp32", "--tune", "never")
_CPU = ("--device", "cpu")


@dataclass(frozen=True)
class Verb:
    """A command on the ground; words that begin with @ are paths below it."""

    words: tuple[str, ...]
    leaves: tuple[str, ...] = ()  # files that exist after success
    same: tuple[str, ...] = ()  # those of them that hold the same bytes every time
    stays: tuple[str, ...] = ()  # what is complete once it appears, and never overwritten: in the way of a second run
    workers: bool = False  # processes of its own read the images

    def arguments(self, ground: Path) -> list[str]:
        return [str(ground / word[1:]) if word.startswith("@") else word for word in self.words]


def _train(data: str, *more: str, out: str = "@out", **about: object) -> Verb:
    weights, table = f"{out[1:]}/model.safetensors", f"{out[1:]}/splits.csv"
    words = ("train", data, "--out", out, "--autoresume", *_MODEL, *_CPU, "--epochs", "1", *more)
    return Verb(words, (weights, table, f"{out[1:]}/convmix.json"), (weights, table), **about)  # type: ignore[arg-type]


VERBS = {
    "inspect": Verb(("inspect", "@photos")),
    "train": _train("@photos", "--workers", "0"),
    "train with workers": _train("@photos", "--workers", "2", "--cache-gib", "0", workers=True),
    "train on boxes": _train("@boxes", "--workers", "0", "--pyramid-channels", "8"),
    "train more": Verb(
        ("train", "@run", "--resume", "--epochs", "2", *_CPU), ("run/model.safetensors", "run/convmix.json"), ("run/model.safetensors",)
    ),
    "predict": Verb(("predict", "@run", "@photos", "--output", "@answers.csv", *_CPU), ("answers.csv",), ("answers.csv",)),
    "predict as parquet": Verb(("predict", "@run", "@photos", "--output", "@answers.parquet", *_CPU), ("answers.parquet",)),
    "predict on standard output": Verb(("predict", "@run", "@photos", *_CPU)),
    "embed": Verb(("embed", "@run", "@photos", "--output", "@features.parquet", *_CPU), ("features.parquet",)),
    "evaluate": Verb(("evaluate", "@run", "--output", "@scores.json", *_CPU), ("scores.json",)),
    "calibrate": Verb(("calibrate", "@run", "@fresh", *_CPU), ("run/convmix.json",)),
    "doctor": Verb(
        ("doctor", "@photos", "--output", "@doctor", "--fix", "@clean", "--workers", "0", *_CPU),
        ("doctor/photos-health.html",),
        stays=("clean",),
    ),
    "doctor with workers": Verb(
        ("doctor", "@photos", "--output", "@doctor", "--workers", "2", *_CPU), ("doctor/photos-health.html",), workers=True
    ),
    "explain": Verb(
        ("explain", "@run", "@photos/class_0", "--limit", "1", "--methods", "saliency", "--output", "@seen", *_CPU),
        ("seen/explanation-class_0.html",),
    ),
    "export": Verb(("export", "@run", "onnx", "--output", "@exported"), ("exported/model.onnx", "exported/SHA256SUMS")),
    "predict with an exported model": Verb(("predict", "@onnx", "@photos", "--output", "@answers.csv"), ("answers.csv",), ("answers.csv",)),
    "push": Verb(("push", "@run", "@shelf/model"), ("shelf/model/model.safetensors",), ("shelf/model/model.safetensors",)),
    "pull": Verb(("pull", "@run", "--out", "@pulled"), ("pulled/model.safetensors",), ("pulled/model.safetensors",), stays=("pulled",)),
}


def make_ground(folder: Path) -> None:
    """Pictures, boxes, and a run with its export, for all verbs."""
    import convmix

    make_photos(folder / "photos", per_class=8)
    make_photos(folder / "fresh" / "val", per_class=4, side=26)
    make_photos(folder / "fresh" / "train", per_class=4, side=27)
    write_tagged_boxes(folder / "boxes")
    settings = {"model": "convmixer_8_1_k3_p4", "size": 24, "batch_size": 8, "precision": "fp32", "workers": 0, "tune": "never"}
    convmix.train(folder / "photos", out=folder / "run", quiet=True, epochs=1, device="cpu", **settings)
    convmix.export(folder / "run", "onnx", output=folder / "onnx")


def copied_ground(ground: Path, folder: Path) -> Path:
    """For a verb that may change it; the data set that the run names is the copy's."""
    shutil.copytree(ground, folder)
    for file in (folder / "run" / "convmix.json", folder / "run" / "state" / "job.json"):
        if file.exists():
            file.write_text(file.read_text().replace(str(ground), str(folder)))
    return folder
