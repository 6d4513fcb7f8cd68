"""`explain` end to end: page, numbers, mistakes, and a model that is as it was before."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import look_at
from evidence import LABELS, noise, save_run, write_files
from rich.console import Console
from torch import nn

from convmix.artifacts.artifact import Artifact
from convmix.errors import ConfigError, DataError, RunError
from convmix.explanation import subject
from convmix.explanation.attribution import METHODS
from convmix.explanation.attribution_maps import overlaid
from convmix.explanation.explain import explain
from convmix.explanation.explanation_result import MethodVerdict
from convmix.explanation.terminal_table import table
from convmix.models.catalog import create_model


@pytest.fixture(scope="module")
def run(seeing, tmp_path_factory) -> Artifact:
    return save_run(tmp_path_factory.mktemp("run") / "planted", seeing)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    return write_files(tmp_path_factory.mktemp("images") / "seen", noise(5, seed=7)[0])


@pytest.fixture(scope="module")
def explained(run, files, tmp_path_factory):
    broken = Path(files[0]).with_name("broken.png")
    broken.write_bytes(b"no image")
    try:
        return explain(run, [*files, str(broken)], classes=["rising"], output=tmp_path_factory.mktemp("out") / "new")
    finally:
        broken.unlink()


@pytest.mark.slow
def test_planted_evidence_is_trusted_and_written_down(explained):
    assert [v.method for v in explained.methods] == list(METHODS)
    assert all(v.is_trusted for v in explained.methods), [(v.method, v.words) for v in explained.methods]
    assert len(explained.images) == 5 and explained.bad[0][1] == "not an image of a known format"
    written = json.loads(explained.page.with_suffix(".json").read_text())
    assert written == explained.to_dict() and written["gradcam_layer"] == "blocks.1"
    asked = {label: [m["class"] for m in image["maps"]] for image in written["images"] for label in [image["predicted"]]}
    assert asked == {"rising": ["rising"] * 4, "falling": ["falling"] * 4 + ["rising"] * 4}
    assert len(written["model"]["receptive_fields"]) == 2 and len(written["model"]["activations"]) == 5
    names = {f.name for f in explained.page.parent.iterdir()}
    assert names >= {f"explanation-0-{n}.png" for n in ("image-01", "image-05", "filters", "kernels", "receptive-field", "activations")}


@pytest.mark.slow
def test_the_page_opens_without_network_and_without_errors(explained):
    for width in (1100, 390):
        seen = look_at(explained.page, width=width)
        assert seen.errors == () and seen.requests == () and seen.broken_images == 0 and not seen.overflows
    for words in ("integrated gradients", "faithful", "broken.png", "Grad-CAM is read from blocks.1", "Depthwise kernels"):
        assert words in seen.text


def test_the_table_says_the_verdicts_and_where_the_page_is(explained):
    console = Console(width=300, file=io.StringIO())
    console.print(table(explained))
    text = console.file.getvalue()
    assert "Grad-CAM" in text and "faithful" in text and str(explained.page) in text and "1 files could not be read" in text


@pytest.mark.slow
def test_an_untrained_models_maps_are_not_trusted(tmp_path, files):
    torch.manual_seed(0)
    result = explain(save_run(tmp_path / "run", create_model("convmixer_16_2_k3_p2", num_classes=2)), files[:2])
    assert not any(v.is_trusted for v in result.methods)
    assert all("cannot be judged" in m.score.words for image in result.images for m in image.maps if not m.score.is_constant)


class Edges(nn.Module):
    """Output 0 is the image's contrast; no weight has a part in it but the scale of the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([60.0]))

    def forward(self, x):
        contrast = self.scale * (x[..., 1:] - x[..., :-1]).square().mean((1, 2, 3))
        return torch.stack([contrast, torch.zeros_like(contrast)], 1)


def test_a_map_that_the_weights_have_no_part_in_is_marked(run, files):
    images, _ = noise(2, seed=7)
    subjected = subject.Subject(run, Edges(), subject.prepare(run, images, torch.device("cpu")).task, None)
    shown = [subject.explain_image(subjected, "", image, methods=["saliency"], classes=()) for image in images]
    (verdict,) = subject.judge(subjected, images, shown, methods=["saliency"])
    assert verdict.correlation == pytest.approx(1) and verdict.is_trusted is False and verdict.words == "does not depend on the weights"


def test_a_methods_verdict_follows_its_numbers():
    def verdict(gap, correlation):
        judged = 0 if gap is None else 3
        return MethodVerdict("occlusion", better=1, judged=judged, gap=gap, random_gap=0.1, needed=0.3, correlation=correlation)

    said = {(0.4, 0.1): (True, "faithful"), (0.2, 0.1): (None, "in doubt: hardly better than random"), (0.1, 0.1): (False, "not faithful")}
    said |= {(None, 0.1): (None, "cannot be judged"), (0.4, 0.6): (False, "does not depend"), (0.4, None): (False, "its maps are the same")}
    for numbers, (trusted, words) in said.items():
        v = verdict(*numbers)
        assert v.is_trusted is trusted and v.words.startswith(words), numbers


def state_of(model: nn.Module) -> list[object]:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), m.training) for m in model.modules()]
    parameters = [(p.requires_grad, None if p.grad is None else p.grad.sum().item()) for p in model.parameters()]
    return [hooks, parameters, {k: v.numpy().tobytes() for k, v in model.state_dict().items()}, torch.get_rng_state().numpy().tobytes()]


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_stays_as_it_was_found(run, files, tmp_path, monkeypatch, fails):
    model = run.model
    try:
        model.train()
        model.blocks[0].eval()  # a mode of its own
        model.head.weight.requires_grad_(False)
        model.stem[0].weight.grad = torch.ones_like(model.stem[0].weight)
        model.head.register_forward_hook(lambda m, args, y: None)
        before = state_of(model)
        if fails:
            monkeypatch.setattr("convmix.explanation.explain.activation_statistics", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                explain(run, files[:1], output=tmp_path)
        else:
            explain(run, files[:1], output=tmp_path)
        assert state_of(model) == before
    finally:
        model.eval().requires_grad_(True)
        model.zero_grad()
        model.head._forward_hooks.clear()


def test_without_files_the_model_itself_is_explained(run):
    result = explain(run)
    assert result.page == run.path / "explanation-model.html" and result.page.exists()
    assert result.methods == () and result.images == () and result.anatomy.watched.startswith("noise")
    assert not list(run.path.glob("*image-*"))


def test_without_captum_the_model_itself_is_still_explained(run, files, monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert explain(run, output=tmp_path).page.exists()
    with pytest.raises(ConfigError, match="captum is not installed"):
        explain(run, files, output=tmp_path)


@pytest.mark.slow
def test_no_more_than_the_limit_and_only_the_methods_asked_for(run, files, tmp_path):
    result = explain(str(run.path), [str(Path(files[0]).parent)], limit=2, methods=["occlusion"], output=tmp_path)
    assert [Path(i.name).name for i in result.images] == ["0.png", "2.png"] and result.left_out == 3
    assert result.notes == ("3 more files are not explained; limit is 2",) and [v.method for v in result.methods] == ["occlusion"]
    assert result.page.name == "explanation-seen.html" and result.layer is None


def test_mistakes_are_named(run, files, tmp_path):
    with pytest.raises(ConfigError, match=r"classes: the run does not know risin, did you mean rising\? \(it knows falling, rising\)"):
        explain(run, files, classes=["risin"])
    with pytest.raises(ConfigError, match=r"methods: grad-cam is not one of .*did you mean gradcam"):
        explain(run, files, methods=["grad-cam"])
    with pytest.raises(ConfigError, match="limit: 0"):
        explain(run, files, limit=0)
    with pytest.raises(ConfigError, match="is a file, expected a folder"):
        explain(run, files, output=files[0])
    with pytest.raises(DataError, match="matches no file"):
        explain(run, [str(tmp_path / "nothing.jpg")])
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 1 files can be read; the first: .*bad.png: empty file"):
        explain(run, [str(tmp_path / "bad.png")])
    with pytest.raises(RunError, match="not a model directory"):
        explain(tmp_path, files)
    assert run.labels == LABELS


def test_weights_that_are_not_finite_are_refused(tmp_path, files):
    model = create_model("convmixer_8_1_k3_p2", num_classes=2)
    nn.init.constant_(model.head.bias, float("nan"))
    with pytest.raises(RunError, match="not finite"):
        explain(save_run(tmp_path / "run", model), files)


def test_orange_speaks_for_and_blue_against():
    pixels = np.full((3, 4, 4), 255, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0], heat[3, 3] = 1, -1
    shown = overlaid(pixels, heat)
    assert shown[0, 0, 0] > shown[0, 0, 2] and shown[3, 3, 2] > shown[3, 3, 0] and np.allclose(shown[1, 1], 1)
