"""Names to models: convmix's own and timm's, arguments checked, mistakes named."""

import copy
import json

import pytest
import timm
import torch
from torch import nn

from convmix.errors import ModelError, WeightsError
from convmix.models import catalog, weights
from convmix.models.catalog import create_model, list_models, needs_convmix, published_input, timm_config
from convmix.models.convmixer import ConvMixer
from convmix.models.convmlp import ConvMLP
from convmix.models.layers import DropPath

SMALL = {
    "convmixer": ("convmixer_16_3_k4_p4", {}),
    "convmlp": ("convmlp", {"blocks": [1, 2, 1], "dims": [8, 12, 16], "mlp_ratios": [2, 2, 2], "channels": 4}),
    "multiscale": ("multiscale_convmixer", {"dim": 16, "depth": 4, "stem_dim": 8}),
}


def _drop_rates(model: nn.Module) -> list[float]:
    return [m.drop_prob for m in model.modules() if isinstance(m, (DropPath, timm.layers.DropPath))]


def test_convmixer_of_any_size_by_name():
    model = create_model("convmixer_24_3_k8_p4_relu", num_classes=5, in_chans=2)
    assert isinstance(model, ConvMixer)
    assert model.arguments | {"act": "relu"} == model.arguments
    assert model.stem[0].weight.shape == (24, 2, 4, 4) and model.blocks[2][0].fn[0].kernel_size == (8, 8)
    assert any(isinstance(m, nn.GELU) for m in create_model("convmixer_24_3_k8_p4").modules())


def test_every_name_builds():
    for name in catalog.NAMED:
        with torch.device("meta"):
            model = create_model(name)
        assert model.num_classes == (10 if name in ("convmixer_256_8", "multiscale_convmixer_t") else 1000)
        assert model.pretrained_cfg["classifier"] == "head"
        assert isinstance(model.get_submodule(model.pretrained_cfg["first_conv"]), nn.Conv2d)


@pytest.mark.parametrize("name", [*catalog.NAMED, "convmixer_24_3_k8_p4"])
def test_a_model_built_without_timm_says_to_timm_what_its_factory_says(name):
    spec = catalog.find(name)
    own = None if name in catalog.NAMED else catalog.describe_for_timm(name, spec)
    with torch.device("meta"):
        model = create_model(name)
        theirs = timm.models.build_model_with_cfg(catalog._family_class(spec.family), name, False, pretrained_cfg=own, **spec.arguments)
    for copied in (model, copy.deepcopy(model)):
        assert copied.pretrained_cfg == copied.default_cfg == theirs.pretrained_cfg
    assert (model.num_classes, model.in_chans) == (theirs.num_classes, theirs.in_chans)
    config, expected = (timm.data.resolve_data_config(model=m) for m in (model, theirs))
    assert config == expected


def test_a_network_that_no_factory_has_built_has_no_description():
    assert not hasattr(ConvMixer(8, 1, 3, 4), "pretrained_cfg")


@pytest.mark.parametrize("family", SMALL)
def test_features_of_every_family(family):
    name, args = SMALL[family]
    model = create_model(name, features_only=True, model_args=args)
    features = model(torch.randn(1, 3, 32, 32))
    assert [f.shape[1] for f in features] == model.feature_info.channels()
    assert [32 // f.shape[2] for f in features] == model.feature_info.reduction()
    first = create_model(name, features_only=True, out_indices=[0], model_args=args)
    assert len(first(torch.randn(1, 3, 32, 32))) == 1
    with pytest.raises(ModelError, match="out of range"):
        create_model(name, features_only=True, out_indices=[9], model_args=args)


def test_dropout_and_drop_path_arrive():
    model = create_model("convmlp_s", drop_path=0.3, dropout=0.2)
    assert max(_drop_rates(model)) == pytest.approx(0.3) and model.head_drop.p == 0.2
    assert max(_drop_rates(create_model("convmlp_s"))) == pytest.approx(0.1)
    assert not _drop_rates(create_model("convmlp_s", drop_path=0.0))
    assert max(_drop_rates(create_model("multiscale_convmixer_t", drop_path=0.2))) == pytest.approx(0.2)
    assert max(_drop_rates(create_model("test_vit", drop_path=0.2))) == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["convmixer_256_8", "vgg11"])
def test_drop_path_is_refused_where_there_is_none(name):
    with pytest.raises(ModelError, match=r"drop_path|stochastic depth"):
        create_model(name, drop_path=0.1)
    with torch.device("meta"):
        create_model(name, drop_path=0.0)


def test_unknown_names_say_the_nearest():
    with pytest.raises(ModelError, match="unknown model convmpl_s, did you mean convmlp_s"):
        create_model("convmpl_s")
    with pytest.raises(ModelError, match=r"did you mean .*resnet50"):
        create_model("resnet5O")
    with pytest.raises(ModelError, match="convmixer_DIM_DEPTH_kKERNEL_pPATCH"):
        create_model("convmixer_256_8_5_2")
    with pytest.raises(ModelError, match="nonsense"):
        create_model("test_resnet.nonsense")


def test_unknown_arguments_say_the_nearest():
    with pytest.raises(ModelError, match="takes no argument kernel, did you mean kernel_size"):
        create_model("convmixer_256_8", model_args={"kernel": 3})
    with pytest.raises(ModelError, match="test_resnet has no kernel"):
        create_model("test_resnet", model_args={"kernel": 3})
    with pytest.raises(ModelError, match="convmixer needs model_args dim, depth"):
        create_model("convmixer")
    with pytest.raises(ModelError, match="did you mean relu"):
        create_model("convmixer_256_8", model_args={"act": "rellu"})


def test_list_starts_with_our_own_and_holds_timms():
    names = list_models()
    assert names[: len(catalog.NAMED)] == list(catalog.NAMED)
    assert "resnet50" in names and len(names) == len(set(names))
    assert list_models("convmlp_*") == ["convmlp_t", "convmlp_s", "convmlp_m", "convmlp_l"]
    assert "convmixer" not in list_models("convmixer*")  # a family, not a size


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_timm_models_are_accepted(name):
    model = create_model(name, num_classes=7, in_chans=5).eval()
    h, w = published_input(name).size
    assert model(torch.randn(1, 5, h, w)).shape == (1, 7)


def test_timm_model_of_another_input_size_and_its_features():
    assert published_input("vit_tiny_patch16_224").fixed_size and not published_input("test_resnet").fixed_size
    model = create_model("test_vit", num_classes=3, in_chans=1, model_args={"img_size": 64}).eval()
    assert model(torch.randn(1, 1, 64, 64)).shape == (1, 3)
    features = create_model("test_resnet", features_only=True, out_indices=(1, 2))(torch.randn(1, 3, 64, 64))
    assert len(features) == 2


def test_published_input_of_our_own():
    assert published_input("convmlp_s").size == (224, 224)
    assert published_input("convmixer_256_8") is None and published_input("no_such_model") is None


@pytest.mark.parametrize("family", SMALL)
def test_timm_config_rebuilds_the_same_model(family):
    name, args = SMALL[family]
    model = create_model(name, num_classes=4, in_chans=2, model_args=args).eval()
    model.reset_classifier(6)
    architecture, model_args = timm_config(model)
    assert json.loads(json.dumps(model_args)) == model_args and needs_convmix(architecture, model_args)
    for again in (timm.create_model(architecture, **model_args), create_model(architecture, model_args=model_args)):
        again.load_state_dict(model.state_dict())
        assert again.num_classes == 6 and again.in_chans == 2
        x = torch.randn(1, 2, 32, 32)
        assert torch.equal(again.eval()(x), model(x))


@pytest.mark.parametrize("name", catalog.NAMED)
def test_timm_config_keeps_the_published_name(name):
    with torch.device("meta"):
        model = create_model(name, num_classes=4, dropout=0.5)
    architecture, args = timm_config(model)
    assert (architecture, args) == (name, {"drop_rate": 0.5, "num_classes": 4, "in_chans": 3})
    assert needs_convmix(architecture, args) == (name not in timm.list_models("convmixer_*", module="convmixer"))


def test_changed_published_size_does_not_keep_its_name():
    """timm's own entry would build the other activation."""
    with torch.device("meta"):
        architecture, args = timm_config(create_model("convmixer_768_32", model_args={"act": "gelu"}))
    assert architecture == "convmixer" and args["dim"] == 768 and args["kernel_size"] == 7


def test_timm_config_of_timm_models():
    model = create_model("test_vit", num_classes=3, in_chans=1, drop_path=0.1, model_args={"img_size": 64})
    architecture, args = timm_config(model)
    assert architecture == "test_vit" and not needs_convmix(architecture, args)
    assert args == {"img_size": 64, "num_classes": 3, "in_chans": 1, "drop_path_rate": 0.1}
    timm.create_model(architecture, **args).load_state_dict(model.state_dict())


def test_timm_config_refuses_what_json_cannot_hold():
    with pytest.raises(ModelError, match="cannot be written as JSON"):
        timm_config(create_model("test_resnet", model_args={"norm_layer": nn.BatchNorm2d}))
    with pytest.raises(ModelError, match="Linear was not built"):
        timm_config(nn.Linear(1, 1))


@pytest.mark.parametrize("features_only", [False, True])
def test_pretrained_fetches_through_weights_and_keeps_its_notes(monkeypatch, features_only):
    def fetch(model, name):
        assert name == "convmlp_s" and isinstance(model, ConvMLP)
        nn.init.constant_(model.tokenizer.block[0].weight, 0.25)
        return weights.LoadReport("there", ("a note",))

    monkeypatch.setattr(weights, "load_pretrained", fetch)
    model = create_model("convmlp_s", num_classes=5, pretrained=True, features_only=features_only)
    first = next(model.parameters())
    assert bool((first == 0.25).all()) and model.load_notes == ("a note",)
    assert timm.create_model("convmlp_s", pretrained=True).load_notes == ("a note",)


def test_pretrained_without_published_weights_is_an_error():
    with pytest.raises(ModelError, match="convmixer_256_8 has no published weights"):
        create_model("convmixer_256_8", pretrained=True)


def test_pretrained_timm_weights_out_of_reach_say_how_to_go_on(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network\nlong story")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(WeightsError, match=r"test_resnet: .*\(no network\); go online once, or give a file with weights=PATH"):
        create_model("test_resnet", pretrained=True)


def test_missing_model_folder_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json|Config file"):
        create_model(f"local-dir:{tmp_path}")
