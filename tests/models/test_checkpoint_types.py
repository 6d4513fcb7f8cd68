"""Weights are floating-point numbers, and what stands beside a weight file is held against its types."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from convmix.errors import WeightsError
from convmix.models.checkpoint import read_checkpoint


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("kind", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_other_numbers_are_no_weights(tmp_path: Path, suffix: str, kind: torch.dtype) -> None:
    tensors = {"head.weight": torch.ones(2, 2).to(kind), "head.bias": torch.zeros(2)}
    file = tmp_path / f"a{suffix}"
    save_file(tensors, file) if suffix == ".safetensors" else torch.save(tensors, file)
    with pytest.raises(
        WeightsError, match=f"head.weight holds numbers of type {str(kind).removeprefix('torch.')}, expected floating point"
    ):
        read_checkpoint(file)


def test_counters_and_half_precision_are_taken(tmp_path: Path) -> None:
    tensors = {"norm.num_batches_tracked": torch.tensor(3), "norm.weight": torch.ones(2).half(), "index": torch.arange(3)}
    save_file(tensors, tmp_path / "a.safetensors")
    assert read_checkpoint(tmp_path / "a.safetensors").keys() == tensors.keys()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("content", ["[1]", "{", '{"model_args": [1]}', "[" * 50_000, None])
def test_a_description_beside_the_weights_that_is_none_is_said(tmp_path: Path, content: str | None) -> None:
    save_file({"head.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    if content is None:
        os.mkfifo(tmp_path / "config.json")  # not a file, so there is no description
        assert read_checkpoint(tmp_path)
        return
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=r"config\.json"):
        read_checkpoint(tmp_path)


def test_the_activation_is_read_where_it_is_declared(tmp_path: Path) -> None:
    from convmix.models.checkpoint import open_checkpoint

    save_file({"head.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "convmixer_768_32", "model_args": {}}))
    assert open_checkpoint(tmp_path).activation == "relu"
