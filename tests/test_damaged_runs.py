"""A model directory that was damaged or made up is one sentence, quickly, whatever is wrong with it; it never leads out of itself."""

import json
import os
import resource
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from convmix.artifacts.artifact import load_artifact
from convmix.errors import ConvmixError, RunError
from convmix.models import catalog
from tests.made_once import MadeOnce
from tests.tiny_run import make_run
from tests.trained_runs import dense_run


@pytest.fixture
def run(tmp_path: Path, made_once: MadeOnce) -> Path:
    """A small run of this test's own."""
    return shutil.copytree(made_once("damaged_run", lambda place: make_run(place)), tmp_path / "run")


def change(file: Path, key: str, value: Any) -> None:
    """Set a value inside a JSON file; `key` is a path, `value` ... takes it away."""
    whole = json.loads(file.read_text())
    *way, last = key.split(".")
    inner = whole
    for name in way:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    file.write_text(json.dumps(whole))


DEEP: list[Any] = []
for _ in range(200):
    DEEP = [DEEP]
WRONG = (None, True, 7, -1, 1.5, 10**15, 10**400, "", "x" * 10_000, "a\0b", [], [1], ["a", 2], {}, {"a": []}, DEEP, ...)
IN_INFO = (
    "format", "task", "labels", "preprocess", "preprocess.size", "preprocess.fit", "preprocess.mean", "preprocess.crop_pct",
    "preprocess.in_chans", "preprocess.max_pixels", "preprocess.interpolation", "run", "run.dense", "run.dense.pyramid_channels",
    "finished", "model", "data", "data.spec", "data.counts", "data.origin", "data.notes", "metrics", "training", "machine", "versions",
)  # fmt: skip
IN_CONFIG = ("architecture", "model_args", "model_args.in_chans", "num_classes", "pretrained_cfg", "label_names")


@pytest.mark.parametrize("key", IN_INFO)
def test_wrong_values_in_convmix_json_are_one_sentence(run: Path, key: str) -> None:
    refused_or_read(run, run / "convmix.json", key)


@pytest.mark.parametrize("key", IN_CONFIG)
def test_wrong_values_in_config_json_are_one_sentence(run: Path, key: str) -> None:
    refused_or_read(run, run / "config.json", key)


def refused_or_read(run: Path, file: Path, key: str) -> None:
    """Each wrong value in turn: what cannot be meant is refused in a sentence, what nothing depends on is read."""
    before, refused = file.read_bytes(), 0
    for value in WRONG:
        file.write_bytes(before)
        change(file, key, value)
        try:
            load_artifact(run)
        except ConvmixError as error:
            refused += 1
            assert "\n" not in str(error) and 20 < len(str(error)) < 700, str(error)[:1000]
    ignored = ("num_classes", "pretrained_cfg", "label_names", "model_args.in_chans", "preprocess.max_pixels", "model")
    assert refused >= (0 if key in ignored else len(WRONG) // 2), f"{key}: only {refused} of {len(WRONG)} were refused"


@pytest.mark.parametrize("name", ["convmix.json", "config.json", "model.safetensors"])
@pytest.mark.parametrize("how", ["pipe", "device", "folder", "empty", "cut", "garbage"])
@pytest.mark.timeout(60)
def test_files_that_are_none_are_one_sentence(run: Path, name: str, how: str) -> None:
    file = run / name
    content = file.read_bytes()
    file.unlink()
    if how == "pipe":
        os.mkfifo(file)
    elif how == "device":
        file.symlink_to("/dev/zero")
    elif how == "folder":
        file.mkdir()
    else:
        file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "garbage": os.urandom(1000)}[how])
    with pytest.raises(RunError, match=name) as error:
        load_artifact(run)
    assert "\n" not in str(error.value)


NAMES = ("hf-hub:somebody/model", "hf_hub:somebody/model", "local-dir:/tmp/elsewhere", "../other", "timm/resnet18", "a\\b", "http://x.y/z")


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_does_not_lead_out_of_itself(run: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(catalog, "create_model", no_network)
    change(run / "config.json", "architecture", name)
    with pytest.raises(RunError, match="leads out of the directory, expected the name of a model"):
        load_artifact(run)


HUGE = (
    ("architecture", "convmixer_99999_1_k3_p4", r"the network .* has \[99999, 3, 4, 4\]"),
    ("architecture", "convmixer_8_99999_k3_p4", "too few for the 99999 layers"),
    ("architecture", "convmixer_999999999_1_k3_p4", "dim of convmixer_999999999_1_k3_p4: 999999999 is too large, expected at most"),
    ("architecture", "convmixer_8_1_k131071_p4", r"is \[.*\], the network .* has \[8, 1, 131071, 131071\]"),
    ("model_args", {"dim": 10**9}, "model_args.dim: 1000000000 is too large"),
    ("model_args", {"dim": "many"}, "needs model_args depth"),
    ("model_args", {"act_layer": [[[[["x"]]]]]}, "is not an argument of a network"),
    ("model_args", {"x": list(range(5000))}, "is not an argument of a network"),
)


@pytest.mark.parametrize(("key", "value", "words"), HUGE)
def test_a_network_larger_than_its_weights_is_not_built(run: Path, key: str, value: object, words: str) -> None:
    if key == "architecture":
        change(run / "config.json", "model_args", {})
    change(run / "config.json", key, value)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunError, match=words):
        load_artifact(run)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.slow
def test_a_million_labels_without_weights_are_not_built(run: Path) -> None:
    change(run / "convmix.json", "labels", [str(i) for i in range(1_000_000)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunError, match=r"head.weight is \[3, 8\].* has \[1000000, 8\]"):
        load_artifact(run)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000


@pytest.mark.parametrize("to", [torch.int64, torch.complex64, torch.bool])
def test_weights_of_another_kind_of_number_are_refused(run: Path, to: torch.dtype) -> None:
    file = run / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("weight"))
    save_file(tensors | {name: tensors[name].to(to)}, file)
    with pytest.raises(RunError, match=f"{name} is of type {str(to).removeprefix('torch.')}, expected float32"):
        load_artifact(run)


CHANGES: tuple[tuple[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], str], ...] = (
    ("missing", lambda t: dict(list(t.items())[1:]), "has no "),
    ("foreign", lambda t: t | {"extra": torch.zeros(1)}, "has extra, which the network"),
    ("shape", lambda t: {k: v if v.dim() != 1 else torch.zeros(len(v) + 1) for k, v in t.items()}, r"is \[9\], the network .* has \[8\]"),
    ("none", lambda t: {}, "has 0 tensors, too few"),
)


@pytest.mark.parametrize(("what", "do", "words"), CHANGES, ids=[c[0] for c in CHANGES])
def test_weights_of_another_network_are_refused(
    run: Path, what: str, do: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], words: str
) -> None:
    file = run / "model.safetensors"
    save_file(do(load_file(file)), file)
    with pytest.raises(RunError, match=words):
        load_artifact(run)


def test_half_precision_weights_are_read(run: Path) -> None:
    file = run / "model.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in load_file(file).items()}, file)
    assert load_artifact(run).labels


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detect", "segment"])
def test_dense_runs_are_held_against_their_weights_too(task: str, made_once: MadeOnce, tmp_path: Path) -> None:
    run = shutil.copytree(dense_run(made_once, task), tmp_path / "run")
    assert load_artifact(run).task == task
    file = run / "model.safetensors"
    tensors = load_file(file)
    save_file(dict(list(tensors.items())[:-1]), file)
    with pytest.raises(RunError, match=r"which the network that|cannot be read"):
        load_artifact(run)
