"""What timm and its users rely on: the registry in either import order, features, heads, and saved models that timm opens."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import convmix  # noqa: F401  # registers the names
from convmix.models import catalog
from convmix.models.catalog import create_model, timm_config

SMALL = {
    "convmixer": {"dim": 8, "depth": 4, "kernel_size": 4, "patch_size": 4, "act": "relu"},
    "convmlp": {"blocks": [1, 1, 1], "dims": [8, 12, 16], "mlp_ratios": [2, 2, 2], "channels": 4},
    "multiscale_convmixer": {"dim": 8, "depth": 4, "stem_dim": 8},
}


Fresh = Callable[..., list[str]]
END = "-- end --"
FRESH = f"""
import json, os, sys, torch, torchvision
for line in sys.stdin:
    code = json.loads(line)
    child = os.fork()
    if not child:
        exec(code, {{}})
        sys.stdout.flush()
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print({END!r} if not ended else f"{{code}} ended with {{ended}}", flush=True)
"""


@pytest.fixture(scope="module")
def fresh() -> Iterator[Fresh]:
    """What each piece of code prints, in a process of its own that has imported nothing but torch and torchvision, which take longest."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen([sys.executable, "-c", FRESH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdin is not None and process.stdout is not None
        asked, said = process.stdin, process.stdout

        def printed(*codes: str) -> list[str]:
            found = []
            for code in codes:
                print(json.dumps(code), file=asked, flush=True)
                lines: list[str] = []
                for line in said:
                    if line.strip() == END:
                        break
                    assert " ended with " not in line, line
                    lines.append(line)
                else:
                    pytest.fail(f"the process ended over {code}")
                found.append("".join(lines).strip())
            return found

        yield printed
        asked.close()


BUILD = "m = timm.create_model('convmlp_s', features_only=True); print(m.feature_info.channels(), m.feature_info.reduction())"
ORDERS = {
    "convmix first": f"import convmix, timm; {BUILD}",
    "timm first": f"import timm, convmix; {BUILD}",
    "through a submodule of timm": f"import convmix; from timm.layers import DropPath; import timm; {BUILD}",
    "through a model file": f"from convmix.models.convmlp import ConvMLP; import timm; {BUILD}",
    "through torch and the catalog": f"import torch; from convmix.models import catalog; import timm; {BUILD}",
}
FINDERS = (
    "import sys, convmix; n = [type(f).__name__ for f in sys.meta_path].count('_AfterImport'); convmix.models.timm_registry.install();"
    "import timm; print(n, [type(f).__name__ for f in sys.meta_path].count('_AfterImport'), timm.is_model('convmlp_s'))"
)


@pytest.mark.slow
def test_timm_knows_our_names_in_every_import_order_and_the_waiting_finder_leaves_when_its_work_is_done(fresh: Fresh):
    *found, finders = fresh(*ORDERS.values(), FINDERS)
    assert dict(zip(ORDERS, found, strict=True)) == dict.fromkeys(ORDERS, "[64, 128, 256, 512] [4, 8, 16, 32]")
    assert finders == "1 0 True"


def test_import_loads_neither_timm_nor_torch_and_costs_little():
    """Counted by the processor's clock, which runs for this process alone; it takes a sixth of the bound."""
    code = (
        "import sys, time; t = time.process_time(); import convmix;"
        "print(time.process_time() - t, *[m for m in ('torch', 'timm', 'numpy') if m in sys.modules])"
    )
    took = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds, *heavy = done.stdout.split()
        assert not heavy
        took.append(float(seconds))
    assert min(took) < 0.3


def test_timms_own_entries_are_untouched():
    for name in catalog.TIMM_OWN:
        assert timm.models.model_entrypoint(name).__module__ == "timm.models.convmixer"
    assert set(catalog.registered_names()) <= set(timm.list_models(module="timm_registry"))
    with torch.device("meta"):
        assert type(timm.create_model("convmixer_768_32")).__module__ == "timm.models.convmixer"


@pytest.mark.parametrize("family", SMALL)
def test_head_contract(family):
    model = timm.create_model(family, num_classes=5, drop_rate=0.1, **SMALL[family]).eval()
    x = torch.randn(2, 3, 32, 32)
    features = model.forward_features(x)
    assert features.shape[:2] == (2, model.num_features)
    assert torch.equal(model.forward_head(features), model(x))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    assert model.get_classifier() is model.head and model.pretrained_cfg["classifier"] == "head"
    model.reset_classifier(3)
    assert model(x).shape == (2, 3) and model.num_classes == 3
    model.reset_classifier(3, "catavgmax")
    assert model(x).shape == (2, 3) and model.head_hidden_size == 2 * model.num_features
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert model.forward_head(features).shape == (2, 2 * model.num_features)
    model.reset_classifier(0, "")
    assert model(x).shape == features.shape


@pytest.mark.parametrize("family", SMALL)
def test_forward_intermediates_contract(family):
    model = timm.create_model(family, num_classes=5, **SMALL[family]).eval()
    x = torch.randn(1, 3, 32, 32)
    last, every = model.forward_intermediates(x)
    assert torch.equal(last, model.forward_features(x)) and len(every) == len(model.feature_info) == 4
    for info, feature in zip(model.feature_info, every, strict=True):
        assert feature.shape == (1, info["num_chs"], 32 // info["reduction"], 32 // info["reduction"])
        model.get_submodule(info["module"])
    two = model.forward_intermediates(x, indices=2, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(two, every[2:], strict=True))
    early = model.forward_intermediates(x, indices=[0, -3], stop_early=True, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(early, every[:2], strict=True))


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("out_indices", [(0,), (1, 2), (-1,), 2])
def test_features_only_equals_the_whole_model(family, out_indices):
    whole = timm.create_model(family, **SMALL[family]).eval()
    features = timm.create_model(family, features_only=True, out_indices=out_indices, **SMALL[family]).eval()
    features.model.load_state_dict({k: v for k, v in whole.state_dict().items() if k in features.model.state_dict()})
    x = torch.randn(1, 3, 32, 32)
    indices = out_indices if isinstance(out_indices, int) else list(out_indices)
    expected = whole.forward_intermediates(x, indices=indices, intermediates_only=True)
    given = features(x)
    assert all(torch.equal(a, b) for a, b in zip(given, expected, strict=True))
    assert [f.shape[1] for f in given] == features.feature_info.channels()


@pytest.mark.parametrize("family", SMALL)
def test_layer_groups_cover_every_parameter_in_order(family):
    from timm.models import group_parameters

    model = timm.create_model(family, **SMALL[family])
    group_of = {name: group for group, names in group_parameters(model, model.group_matcher()).items() for name in names}
    assert group_of.keys() == dict(model.named_parameters()).keys()
    assert max(group_of.values()) == group_of["head.weight"] > min(group_of.values()) == group_of[next(iter(group_of))]
    if family == "convmlp":
        down = "stages.0.downsample_mlp.downsample.weight"
        assert group_of["stages.0.blocks.0.norm1.weight"] < group_of[down] < group_of["stages.1.blocks.0.norm1.weight"]


def test_our_convmixer_equals_timms():
    """The same weights under the same names, other code."""
    from timm.models.convmixer import ConvMixer as Theirs

    theirs = Theirs(16, 3, kernel_size=5, patch_size=4, num_classes=7, act_layer=nn.ReLU).eval()
    ours = create_model("convmixer_16_3_k5_p4_relu", num_classes=7).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 18, 24)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-6)


def _save(path: Path, model: nn.Module, x: torch.Tensor) -> None:
    architecture, model_args = timm_config(model)
    config = {"architecture": architecture, "num_classes": model.num_classes, "model_args": model_args}
    config["pretrained_cfg"] = {"input_size": [3, 32, 32], "num_classes": model.num_classes, "first_conv": "", "classifier": "head"}
    config["pretrained_cfg"] |= {k: model.pretrained_cfg[k] for k in ("first_conv", "classifier")}
    (path / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), path / "model.safetensors")
    save_file({"x": x, "logits": model.eval()(x).detach()}, path / "expected.safetensors.test")


CHECK = """
import sys, timm, torch
from safetensors.torch import load_file
expected = load_file(r"{path}/expected.safetensors.test")
model = timm.create_model(r"local-dir:{path}", pretrained=True).eval()
with torch.no_grad():
    print(torch.equal(model(expected["x"]), expected["logits"]), type(model).__module__, "convmix" in sys.modules)
"""


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_saved_models_open_in_timm_after_importing_convmix_and_published_ones_without_it(tmp_path, one_thread, fresh: Fresh):
    models = {family: create_model(family, num_classes=4, model_args=SMALL[family]) for family in SMALL}
    for family, model in models.items():
        model(torch.randn(8, 3, 32, 32))  # statistics that are not the initial ones
        (tmp_path / family).mkdir()
        _save(tmp_path / family, model, torch.randn(2, 3, 32, 32))
    (tmp_path / "published").mkdir()
    _save(tmp_path / "published", create_model("convmixer_1024_20_ks9_p14", num_classes=4), torch.randn(1, 3, 42, 42))
    ours = "import convmix" + "".join(CHECK.format(path=tmp_path / family) for family in SMALL)
    opened, plain = fresh(ours, CHECK.format(path=tmp_path / "published"))
    for line, (family, model) in zip(opened.splitlines(), models.items(), strict=True):
        same, module, _ = line.split()
        assert same == "True" and module.startswith("convmix.models.")
        again = create_model(f"local-dir:{tmp_path / family}", pretrained=True)
        assert again.num_classes == 4 and torch.equal(next(again.parameters()), next(model.parameters()))
    assert plain.split() == ["True", "timm.models.convmixer", "False"]


@pytest.mark.parametrize(
    "model_args",
    [{"dim": 64, "depth": 2}, {"model_cfg": {"dim": 64}}, {"kwargs_filter": ["dim", "depth"]}, {"act_layer": "relu"}],
)
def test_plain_timm_cannot_size_its_convmixer_from_a_config(model_args):
    """Why `timm_config` names an entry of convmix for other sizes. If this test fails, timm can, and the entry is no longer needed."""
    with torch.device("meta"), pytest.raises(TypeError):
        timm.create_model("convmixer_1024_20_ks9_p14", **model_args)
