"""What the README tells people to type works, and what it links to is there.

A fenced block whose first line is ```sh tested or ```python tested is executed as it stands: all shell blocks one after the other in one
folder, the Python blocks in another. The folder holds `photos/`, a folder per class (cat, dog) of small generated pictures; `convmix` is
this checkout, called in this process. Every block that calls convmix must be a tested one.
"""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from tests.command_line import Command

REPO = Path(__file__).resolve().parents[2]
README = (REPO / "README.md").read_text()
BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```", flags=re.DOTALL | re.MULTILINE)
PHOTOS_PER_CLASS = 24


def blocks(info: str) -> list[str]:
    return [m["body"] for m in BLOCK.finditer(README) if m["info"].strip() == info]


def commands(body: str) -> list[str]:
    """The commands of a shell block: a line each, a backslash at the end continues, comments are left out."""
    lines = body.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photos/: cats are horizontal stripes, dogs vertical ones, 40x48 pixels with noise. There is no network."""
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for i in range(PHOTOS_PER_CLASS):
            rows, columns = np.mgrid[0:40, 0:48]
            stripes = ((rows if label == "cat" else columns) // 4 + i) % 2 * 120
            pixels = stripes[:, :, None] + rng.integers(0, 120, (40, 48, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def typed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """The words that a command of the README becomes in a shell: bash does all but the last step, to start the program."""
    programs = tmp_path_factory.mktemp("bin")
    (programs / "convmix").write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    (programs / "convmix").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}

    def words(command: str) -> list[str]:
        shell = ["bash", "-euo", "pipefail", "-c", command]
        done = subprocess.run(shell, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout.endswith("\0"), f"{command}: {done.stderr}"
        return done.stdout[:-1].split("\0")

    return words


@pytest.mark.slow
def test_the_commands_of_the_readme_work(place: Path, typed: Callable[[str], list[str]], command: Command) -> None:
    lines = [line for body in blocks("sh tested") for line in commands(body)]
    assert all(line.startswith("convmix ") for line in lines)
    verbs = {line.split()[1] for line in lines}
    assert {"train", "evaluate", "predict", "describe"} <= verbs
    for line in lines:
        done = command(*typed(line))
        assert done.code == 0, f"{line}\nended with {done.code}:\n{done.out[-2000:]}\n{done.err[-2000:]}"
    assert (place / "runs/photos/model.safetensors").is_file()
    with (place / "predictions.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + PHOTOS_PER_CLASS


@pytest.mark.slow
def test_the_python_of_the_readme_works(place: Path) -> None:
    *others, last = blocks("python tested")
    assert others
    for body in others:
        exec(compile(body, "README.md", "exec"), {"__name__": "__main__"})
    # What `import convmix` does to timm shows only in a process of its own.
    done = subprocess.run([sys.executable, "-c", last], env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True)
    assert done.returncode == 0 and "import timm" in last, done.stderr[-4000:]


def test_every_block_that_calls_convmix_is_tested() -> None:
    untested = [
        m["body"] for m in BLOCK.finditer(README) if "tested" not in m["info"] and re.search(r"^(convmix |import )", m["body"], re.M)
    ]
    assert not untested, "\n".join(untested)


def test_every_make_target_that_is_written_exists() -> None:
    makefile = (REPO / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.M))
    for page in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", (REPO / page).read_text(), re.M))
        assert named <= targets, f"{page} names {named - targets}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "RESULTS.md"])
def test_what_is_linked_to_is_there(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", (REPO / page).read_text())
    gone = [link for link in links if "://" not in link and not (REPO / link).exists()]
    assert not gone, f"{page} links to {gone}"


def test_commands_and_one_picture_come_before_any_table() -> None:
    before = README[: re.search(r"^\| --- ", README, re.M).start()]  # type: ignore[union-attr]
    assert before.count("![") == 1 and before.index("```sh tested") < before.index("![")
    assert len(before[: before.index("![")].splitlines()) <= 50  # a screen


def test_the_readme_stays_readable_in_one_sitting() -> None:
    generated = README.split("<!-- results:begin -->")[1].split("<!-- results:end -->")[0]  # a row for every record
    assert len(README.splitlines()) - len(generated.splitlines()) <= 150


def test_a_block_is_cut_into_its_commands() -> None:
    assert commands("# first\nconvmix train a \\\n  --epochs 2\n\nconvmix models 'x*'  # all\n") == [
        "convmix train a    --epochs 2",
        "convmix models 'x*'  # all",
    ]
