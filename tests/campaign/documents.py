"""What a run directory says of itself, damaged: descriptions, jobs, states and weights, each read by what reads it."""

import json
import random
import shutil
from pathlib import Path

import torch

import convmix
from convmix.training.loop import STATE
from convmix.training.setup import JOB, check_resumable
from convmix.training.state import read_state
from tests.campaign.mutation import as_text, mutated, mutated_json
from tests.conftest import make_photos
from tests.tiny_run import write_image
from tests.trained_runs import CLASSIFIER

_FILES = ("config.json", "convmix.json", str(JOB), STATE, "model.safetensors", "splits.csv")


def prepared(folder: Path) -> None:
    """A finished run and its data, made once for all cases."""
    convmix.train(make_photos(folder / "photos"), out=folder / "run", quiet=True, epochs=1, **CLASSIFIER)


def attack(folder: Path, rng: random.Random) -> tuple[str, str, int]:
    """What became of a run with damage in one or two of its files."""
    run = shutil.copytree(folder.parent / "prepared" / "run", folder / "run")
    image = write_image(folder / "a.png", 1)
    for name in rng.sample(_FILES, rng.choice((1, 1, 2))):
        file = run / name
        content = file.read_bytes()
        if file.suffix == ".json" and rng.random() < 0.8:
            content = as_text(mutated_json(json.loads(content), rng))
        elif file.suffix == ".safetensors" and rng.random() < 0.7:
            length = int.from_bytes(content[:8], "little")
            head = json.loads(content[8 : 8 + length])
            if name == STATE and rng.random() < 0.7:
                head["__metadata__"]["state"] = as_text(mutated_json(json.loads(head["__metadata__"]["state"]), rng)).decode()
            else:
                head = mutated_json(head, rng)
            text = as_text(head)
            content = len(text).to_bytes(8, "little") + text + content[8 + length :]
        else:
            content = mutated(content, rng)
        file.write_bytes(content)
    refusals = []
    steps = (
        lambda: convmix.load(run).predict([str(image)]),
        lambda: convmix.load(run).evaluate(folder.parent / "prepared" / "photos"),
        lambda: check_resumable(run),
        lambda: read_state(run / STATE),
        lambda: convmix.train(folder.parent / "prepared" / "photos", out=run, resume=True, quiet=True),
    )
    for step in steps:
        try:
            with torch.random.fork_rng():
                step()
        except convmix.ConvmixError as error:
            refusals.append(str(error))
    if several := next((text for text in refusals if "\n" in text), None):
        return "traceback", f"a refusal of several lines: {several[:200]!r}", 1
    return ("refused" if refusals else "answered"), "", 1
