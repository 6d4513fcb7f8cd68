"""Files of every origin load, wrong ones are refused in one line, and nothing in a file is executed."""

import argparse
import json
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from convmix.errors import WeightsError
from convmix.models.convmixer import ConvMixer
from convmix.models.convmlp import ConvMLP
from convmix.models.weights import load_weights, read_checkpoint

State = dict[str, Tensor]


def small(act: str = "gelu", **changed: int) -> ConvMixer:
    sizes = {"dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 2, "num_classes": 4} | changed
    return ConvMixer(act=act, **sizes).eval()  # type: ignore[arg-type]


def golden(path: Path) -> tuple[State, State]:
    """The original's state dict and its reference tensors."""
    tensors = load_file(path)
    return {k.removeprefix("param."): v for k, v in tensors.items() if k.startswith("param.")}, tensors


def as_mmpretrain(state: State) -> State:
    def theirs(name: str) -> str:
        return name.replace("head.", "head.fc.") if name.startswith("head.") else "backbone." + name.replace("blocks.", "stages.")

    return {theirs(k): v for k, v in state.items()} | {"data_preprocessor.mean": torch.zeros(3)}


def trained(act: str, *, dim: int = 64, depth: int = 4) -> ConvMixer:
    """A model whose BN statistics come from a few real training steps: 9 * dim channels after activations at depth 4."""
    torch.manual_seed(0)
    model = small(act, dim=dim, depth=depth).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(4):
        model(torch.randn(8, 3, 12, 12)).logsumexp(1).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


# origins


@pytest.mark.parametrize("rename", [dict, as_mmpretrain])
@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_timm_and_mmpretrain_names_give_the_originals_logits(shared: Path, act: str, rename: Callable[[State], State]) -> None:
    state, reference = golden(shared / f"golden/convmixer_timm_{act}.safetensors")
    model = small(act, dim=24, depth=3, kernel_size=5, patch_size=4, num_classes=7)
    report = load_weights(model, rename(state))
    torch.testing.assert_close(model(reference["eval.input"]), reference["eval.logits"], atol=1e-5, rtol=0)
    assert report.notes == ()


def test_sequential_names_of_the_authors_code_give_the_originals_logits(shared: Path) -> None:
    state, reference = golden(shared / "golden/convmixer_sequential.safetensors")
    model = small(dim=24, depth=3, kernel_size=7, patch_size=2, num_classes=5)
    report = load_weights(model, state)
    torch.testing.assert_close(model(reference["eval.input"]), reference["eval.logits"], atol=1e-5, rtol=0)
    assert "locuslab" in report.origin


def test_convmlp_names_give_the_originals_logits(shared: Path) -> None:
    state, reference = golden(shared / "golden/convmlp.safetensors")
    model = ConvMLP([1, 2, 1], [16, 24, 32], mlp_ratios=[2, 3, 2], channels=12, n_conv_blocks=2, num_classes=6).eval()
    load_weights(model, state)
    torch.testing.assert_close(model(reference["eval.input"]), reference["eval.logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {"state": {}, "param_groups": []}},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"state_dict": {f"module._orig_mod.{k}": v for k, v in s.items()}},
        lambda s: {"model_ema": {"n_averaged": torch.tensor(5), **{f"module.{k}": v for k, v in s.items()}}},
        lambda s: {f"ema.{k}": v for k, v in s.items()},
        lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_state_dicts_load(tmp_path: Path, wrap: Callable[[State], object], zipped: bool) -> None:
    original, loaded = small(), small()
    torch.save(wrap(original.state_dict()), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    load_weights(loaded, tmp_path / "w.pth")
    for name, tensor in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_the_moving_average_is_preferred_and_the_raw_weights_can_be_chosen(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save({"state_dict": {"w": torch.zeros(1)}, "state_dict_ema": {"w": torch.ones(1)}}, file)
    assert read_checkpoint(file)["w"].item() == 1
    assert read_checkpoint(file, prefer="raw")["w"].item() == 0


@pytest.mark.parametrize("zipped", [True, False])
def test_the_authors_checkpoint_with_arguments_and_numpy_scalars_loads(tmp_path: Path, zipped: bool) -> None:
    state = small().state_dict()
    content = {"state_dict": state, "args": argparse.Namespace(model="convmixer", lr=0.01), "metric": np.float64(81.37), "epoch": 149}
    torch.save(content, tmp_path / "model.pth.tar", _use_new_zipfile_serialization=zipped)
    assert read_checkpoint(tmp_path / "model.pth.tar").keys() == state.keys()


def test_the_log_buffers_of_an_mmengine_checkpoint_do_not_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("mmengine.logging.history_buffer")
    buffer = type("HistoryBuffer", (), {"__module__": module.__name__})
    module.HistoryBuffer = buffer  # type: ignore[attr-defined]
    logged = buffer()
    logged._log_history, logged._max_length = np.arange(3.0), 10  # type: ignore[attr-defined]
    with monkeypatch.context() as m:
        for name in ("mmengine", "mmengine.logging", module.__name__):
            m.setitem(sys.modules, name, module)
        torch.save(
            {"state_dict": as_mmpretrain(small().state_dict()), "message_hub": {"log_scalars": {"loss": logged}}}, tmp_path / "e.pth"
        )
    assert load_weights(small(), tmp_path / "e.pth").origin == "mmpretrain"


def test_a_model_directory_is_a_weight_file_too(tmp_path: Path) -> None:
    original, loaded = small(), small()
    save_file(original.state_dict(), tmp_path / "model.safetensors")
    load_weights(loaded, tmp_path)
    assert torch.equal(loaded.head.weight, original.head.weight)


# files that are no weights


class Malicious:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (f"touch {self.victim}",)


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".bin", ".safetensors"])
@pytest.mark.parametrize("writer", ["torch", "torch-old", "pickle"])
def test_pickled_code_is_refused_and_not_executed(tmp_path: Path, suffix: str, writer: str) -> None:
    victim, file = tmp_path / "executed", tmp_path / f"evil{suffix}"
    content = {"state_dict": {"w": torch.zeros(1)}, "args": Malicious(victim)}
    if writer == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(WeightsError) as error:
        read_checkpoint(file)
    assert not victim.exists()
    assert "\n" not in str(error.value)
    if suffix != ".safetensors" and writer != "pickle":
        assert "system" in str(error.value) and "never executed" in str(error.value)


def test_a_whole_pickled_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        read_checkpoint(tmp_path / "model.pth")


def broken_files() -> dict[str, Callable[[Path], None]]:
    def truncated(name: str) -> Callable[[Path], None]:
        def write(file: Path) -> None:
            whole = file.with_name(name)
            state = small().state_dict()
            save_file(state, whole) if name.endswith("safetensors") else torch.save(state, whole)
            file.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])

        return write

    return {
        "missing.pth": lambda file: None,
        "empty.pth": lambda file: file.write_bytes(b"") and None,
        "text.pth": lambda file: file.write_text("<html>404 not found</html>") and None,
        "text.safetensors": lambda file: file.write_text("version https://git-lfs.github.com/spec/v1") and None,
        "cut.pth": truncated("whole.pth"),
        "cut.safetensors": truncated("whole.safetensors"),
        "list.pth": lambda file: torch.save([1, 2], file),
        "numbers.pth": lambda file: torch.save({"epoch": 3}, file),
        "none.safetensors": lambda file: save_file({}, file),
        "directory": lambda file: file.mkdir(),
    }


@pytest.mark.parametrize("name", broken_files())
def test_a_broken_file_is_one_clear_line(tmp_path: Path, name: str) -> None:
    broken_files()[name](tmp_path / name)
    with pytest.raises(WeightsError) as error:
        read_checkpoint(tmp_path / name)
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


# fitting


def test_another_class_count_keeps_the_models_own_head_and_says_so() -> None:
    original, model = small(num_classes=10), small()
    before = model.head.weight.clone()
    report = load_weights(model, original.state_dict())
    assert torch.equal(model.head.weight, before)
    assert torch.equal(model.stem[0].weight, original.stem[0].weight)
    assert report.notes == ("the file's classifier is for 10 classes: the model's, for 4, starts at random",)


def test_a_model_without_classifier_leaves_the_files_out() -> None:
    assert load_weights(small(num_classes=0), small().state_dict()).notes == ("the file's classifier is left out: the model has none",)


@pytest.mark.parametrize("in_chans", [1, 2, 5])
def test_another_channel_count_adapts_the_stem_as_timm_does(in_chans: int) -> None:
    from timm.models import adapt_input_conv

    original, model = small(), small(in_chans=in_chans)
    report = load_weights(model, original.state_dict())
    assert torch.equal(model.stem[0].weight, adapt_input_conv(in_chans, original.stem[0].weight.data))
    assert report.notes == (f"the stem is adapted from 3 to {in_chans} input channels, as timm does",)


def test_a_stem_of_other_than_three_channels_cannot_be_adapted() -> None:
    with pytest.raises(WeightsError, match="stem is for 5 channels"):
        load_weights(small(), small(in_chans=5).state_dict())


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"depth": 3}, r"dim 8, depth 3, kernel 3, patch 2.*dim 8, depth 2.*14 unexpected: blocks\.2\.0\.fn\.0\.weight"),
        ({"depth": 1}, r"depth 1.*depth 2.*missing: blocks\.1\.0\.fn\.0\.weight, .*, \.\.\."),
        ({"kernel_size": 5}, r"kernel 5.*kernel 3.*2 other shape: blocks\.0\.0\.fn\.0\.weight \(8, 1, 5, 5\) for \(8, 1, 3, 3\)"),
        ({"dim": 12}, r"dim 12.*dim 8"),
        ({"patch_size": 4}, r"patch 4.*patch 2"),
    ],
)
def test_weights_of_another_size_name_both_sizes_and_the_first_tensors(changed: dict[str, int], expected: str) -> None:
    model = small()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(WeightsError, match=expected) as error:
        load_weights(model, small(**changed).state_dict(), source="file.pth")
    assert str(error.value).startswith("file.pth: ") and "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_weights_of_another_family_name_both() -> None:
    mlp = ConvMLP([1, 2, 1], [16, 24, 32], mlp_ratios=[2, 3, 2], channels=12, num_classes=4)
    with pytest.raises(WeightsError, match=r"the file holds ConvMLP of blocks 1,2,1 and dims 16,24,32, the model is ConvMixer of dim 8"):
        load_weights(small(), mlp.state_dict())
    with pytest.raises(WeightsError, match=r"another architecture or size, the model is ConvMixer of dim 8"):
        load_weights(small(), {"layer1.weight": torch.zeros(2)})


def test_an_incomplete_file_says_so() -> None:
    state = small().state_dict()
    del state["blocks.0.1.bias"]
    with pytest.raises(WeightsError, match=r"incomplete.*1 missing: blocks\.0\.1\.bias"):
        load_weights(small(), state)


# activation


def test_statistics_tell_relu_from_gelu_in_both_directions() -> None:
    relu, gelu = trained("relu").state_dict(), trained("gelu").state_dict()
    load_weights(small("relu", dim=64, depth=4), relu)
    load_weights(small("gelu", dim=64, depth=4), gelu)
    with pytest.raises(WeightsError, match=r"trained with RELU .*the model uses GELU.*convmixer_768_32"):
        load_weights(small("gelu", dim=64, depth=4), relu)
    with pytest.raises(WeightsError, match=r"trained with GELU .*negative.*the model uses RELU"):
        load_weights(small("relu", dim=64, depth=4), gelu)


def test_a_stated_activation_overrides_what_the_statistics_show() -> None:
    load_weights(small("gelu", dim=64, depth=4), trained("relu").state_dict(), activation="gelu")
    with pytest.raises(WeightsError, match="as they declare"):
        load_weights(small("gelu"), small("gelu").state_dict(), activation="relu")


def test_untrained_statistics_and_few_channels_are_no_evidence() -> None:
    load_weights(small("gelu", dim=64, depth=4), small("relu", dim=64, depth=4).state_dict())
    load_weights(small("gelu"), trained("relu", dim=8, depth=2).state_dict())


@pytest.mark.slow
def test_a_safetensors_header_and_a_config_declare_the_activation(tmp_path: Path, shared: Path) -> None:
    state, _ = golden(shared / "golden/convmixer_timm_relu.safetensors")
    sizes = {"dim": 24, "depth": 3, "kernel_size": 5, "patch_size": 4, "num_classes": 7}
    save_file(state, tmp_path / "declared.safetensors", metadata={"activation": json.dumps("relu")})
    load_weights(small("relu", **sizes), tmp_path / "declared.safetensors")
    with pytest.raises(WeightsError, match="trained with RELU"):
        load_weights(small("gelu", **sizes), tmp_path / "declared.safetensors")
    for config, act in (
        ({"architecture": "convmixer_768_32"}, "relu"),
        ({"architecture": "convmixer_24_3_k5_p4_relu"}, "relu"),
        ({"architecture": "convmixer", "model_args": {"act": "relu"}}, "relu"),
        ({"architecture": "convmixer_256_8", "model_args": {}}, "gelu"),
    ):
        save_file(state, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(config))
        load_weights(small(act, **sizes), tmp_path)
        with pytest.raises(WeightsError, match=f"trained with {act.upper()}"):
            load_weights(small("relu" if act == "gelu" else "gelu", **sizes), tmp_path)
