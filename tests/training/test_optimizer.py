"""Which parameters Muon takes, and at which rate AdamW takes the others."""

import pytest

from convmix.config import Optim
from convmix.models.catalog import create_model
from convmix.training.optimizer import create_optimizer

MUON = Optim(optimizer="muon", lr=0.04, adamw_share=0.25, weight_decay=0.1, decay_norm_bias=False)


@pytest.mark.parametrize(
    ("name", "arguments", "inner"),
    [
        ("convmixer_16_2_k3_p4", {}, ("blocks.0.1.weight", "blocks.1.1.weight")),
        ("multiscale_convmixer", {"dim": 16, "depth": 1, "patch_size": 4}, None),
        ("convmlp", {"blocks": [1, 1, 1], "dims": [16, 16, 32], "mlp_ratios": [1, 1, 1], "channels": 8, "n_conv_blocks": 1}, None),
    ],
)
def test_muon_takes_the_matrices_inside_the_network(name, arguments, inner):
    model = create_model(name, num_classes=7, model_args=arguments)
    optimizer = create_optimizer(model, MUON)
    names = {id(p): n for n, p in model.named_parameters()}
    taken = sorted(names[id(p)] for g in optimizer.param_groups if not g.get("use_fallback") for p in g["params"])
    left = {names[id(p)] for g in optimizer.param_groups if g.get("use_fallback") for p in g["params"]}
    assert taken and {*taken, *left} == set(names.values())
    assert inner is None or taken == sorted(inner)
    shapes = dict(model.named_parameters())
    assert all(shapes[n].ndim >= 2 and min(shapes[n].shape[:2]) > 1 for n in taken)
    assert not any(n.startswith(("stem", "reduce", "tokenizer", "head")) for n in taken)
    assert "head.weight" in left
    for group in optimizer.param_groups:
        assert group.get("lr_scale", 1.0) == (0.25 if group.get("use_fallback") else 1.0)


def test_other_optimisers_have_one_rate():
    optimizer = create_optimizer(create_model("convmixer_16_2_k3_p4", num_classes=7), Optim(adamw_share=0.25))
    assert all("lr_scale" not in group for group in optimizer.param_groups)
