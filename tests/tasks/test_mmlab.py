"""Files in the names of mmdetection and mmsegmentation, made by hand, become networks that compute the same."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from convmix.errors import WeightsError
from convmix.models.catalog import create_model
from convmix.tasks.maskrcnn import MaskRCNN
from convmix.tasks.mmlab import from_mmlab, is_mmlab, load_mmlab
from convmix.tasks.pyramid import DenseBackbone
from convmix.tasks.retinanet import RetinaNet
from convmix.tasks.semanticfpn import SemanticFpn

CONVMLP = {"blocks": [1, 1, 1], "dims": [8, 12, 16], "mlp_ratios": [2, 2, 2], "channels": 6, "n_conv_blocks": 1}
K, WIDTH = 3, 8  # classes, channels of the pyramid


def _network(kind, *, taps="authors", classes=K):
    strides = (8, 16, 32) if kind is RetinaNet else (4, 8, 16, 32)
    backbone = DenseBackbone("convmlp", taps=taps, strides=strides, model_args=CONVMLP)
    return kind(backbone, classes, pyramid_channels=WIDTH).eval()


def _backbone() -> dict[str, Tensor]:
    """The authors' names of a classifier, without norm and head: as their repository has them."""
    model = create_model("convmlp", num_classes=0, model_args=CONVMLP)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("norm.")}
    return {f"backbone.{k}": torch.rand_like(v) * 0.2 + 0.05 if v.is_floating_point() else v for k, v in state.items()}


def _conv(name: str, out: int, into: int, k: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.randn(out, into, k, k) * (into * k * k) ** -0.5, f"{name}.bias": torch.randn(out)}


def _linear(name: str, out: int, into: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.randn(out, into) * into**-0.5, f"{name}.bias": torch.randn(out)}


def _neck(channels: list[int], extra: int = 0) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for i, c in enumerate(channels):
        state |= _conv(f"neck.lateral_convs.{i}.conv", WIDTH, c, 1) | _conv(f"neck.fpn_convs.{i}.conv", WIDTH, WIDTH, 3)
    for i in range(extra):
        state |= _conv(f"neck.fpn_convs.{len(channels) + i}.conv", WIDTH, channels[-1] if i == 0 else WIDTH, 3)
    return state


def _retinanet() -> dict[str, Tensor]:
    state = _backbone() | _neck([8, 12, 16], extra=2)
    for i in range(4):
        state |= _conv(f"bbox_head.cls_convs.{i}.conv", WIDTH, WIDTH, 3) | _conv(f"bbox_head.reg_convs.{i}.conv", WIDTH, WIDTH, 3)
    return state | _conv("bbox_head.retina_cls", 9 * K, WIDTH, 3) | _conv("bbox_head.retina_reg", 36, WIDTH, 3)


def _maskrcnn() -> dict[str, Tensor]:
    state = _backbone() | _neck([6, 8, 12, 16])
    state |= _conv("rpn_head.rpn_conv", WIDTH, WIDTH, 3) | _conv("rpn_head.rpn_cls", 3, WIDTH, 1) | _conv("rpn_head.rpn_reg", 12, WIDTH, 1)
    box, mask = "roi_head.bbox_head", "roi_head.mask_head"
    state |= _linear(f"{box}.shared_fcs.0", 4 * WIDTH, 49 * WIDTH) | _linear(f"{box}.shared_fcs.1", 4 * WIDTH, 4 * WIDTH)
    state |= _linear(f"{box}.fc_cls", K + 1, 4 * WIDTH) | _linear(f"{box}.fc_reg", 4 * K, 4 * WIDTH)
    for i in range(4):
        state |= _conv(f"{mask}.convs.{i}.conv", WIDTH, WIDTH, 3)
    return state | _conv(f"{mask}.upsample", WIDTH, WIDTH, 2) | _conv(f"{mask}.conv_logits", K, WIDTH, 1)


def _semanticfpn() -> dict[str, Tensor]:
    """Upsample modules, without tensors, stand between the convolutions of every level but the first."""
    state = _backbone() | _neck([6, 8, 12, 16])
    for level, convolutions in enumerate((1, 1, 2, 3)):
        for i in range(convolutions):
            name, into = f"decode_head.scale_heads.{level}.{2 * i}", WIDTH if i == 0 else WIDTH // 2
            state[f"{name}.conv.weight"] = torch.randn(WIDTH // 2, into, 3, 3) * 0.2
            for part in ("weight", "bias", "running_mean", "running_var"):
                state[f"{name}.bn.{part}"] = torch.rand(WIDTH // 2) + 0.1
            state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
    return state | _conv("decode_head.conv_seg", K, WIDTH // 2, 1)


FILES = {RetinaNet: _retinanet, MaskRCNN: _maskrcnn, SemanticFpn: _semanticfpn}
EVERY = pytest.mark.parametrize("kind", FILES, ids=lambda kind: kind.__name__)


def _state(kind) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return FILES[kind]()


def _neck_by_hand(state: dict[str, Tensor], maps: list[Tensor]) -> list[Tensor]:
    """mmdetection's FPN.forward, from its tensors by name."""

    def conv(name: str, x: Tensor, **how) -> Tensor:
        return F.conv2d(x, state[f"neck.{name}.conv.weight"], state[f"neck.{name}.conv.bias"], **how)

    laterals = [conv(f"lateral_convs.{i}", m) for i, m in enumerate(maps)]
    for i in range(len(maps) - 1, 0, -1):
        laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], laterals[i - 1].shape[2:], mode="nearest")
    outs = [conv(f"fpn_convs.{i}", m, padding=1) for i, m in enumerate(laterals)]
    last, i = maps[-1], len(maps)
    while f"neck.fpn_convs.{i}.conv.weight" in state:
        last, i = conv(f"fpn_convs.{i}", last, padding=1, stride=2), i + 1
        outs.append(last)
    return outs


def _loaded(kind):
    state, network = _state(kind), _network(kind)
    network.load_state_dict(from_mmlab(state, network))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        return state, network, images, network.backbone(images)


def test_retinanet_computes_what_mmdetections_tensors_say():
    state, network, images, maps = _loaded(RetinaNet)
    expected = []
    for level in _neck_by_hand(state, maps):
        x = level
        for i in range(4):
            x = F.conv2d(x, state[f"bbox_head.cls_convs.{i}.conv.weight"], state[f"bbox_head.cls_convs.{i}.conv.bias"], padding=1).relu()
        x = F.conv2d(x, state["bbox_head.retina_cls.weight"], state["bbox_head.retina_cls.bias"], padding=1)
        expected.append(x.permute(0, 2, 3, 1).reshape(1, -1, K))  # as AnchorHead flattens
    with torch.no_grad():
        torch.testing.assert_close(network.class_logits(images), torch.cat(expected, 1))
        deltas = network.head.regression_head(network.pyramid(maps))
    x = _neck_by_hand(state, maps)[0]
    for i in range(4):
        x = F.conv2d(x, state[f"bbox_head.reg_convs.{i}.conv.weight"], state[f"bbox_head.reg_convs.{i}.conv.bias"], padding=1).relu()
    x = F.conv2d(x, state["bbox_head.retina_reg.weight"], state["bbox_head.retina_reg.bias"], padding=1)
    torch.testing.assert_close(deltas[:, : 9 * 64], x.permute(0, 2, 3, 1).reshape(1, -1, 4))


def test_mask_rcnn_computes_what_mmdetections_tensors_say():
    state, network, _, maps = _loaded(MaskRCNN)
    levels = {str(i): m for i, m in enumerate(network.pyramid(maps))}
    for ours, theirs in zip(list(levels.values())[:4], _neck_by_hand(state, maps), strict=True):
        torch.testing.assert_close(ours, theirs)
    regions, sizes = [torch.tensor([[4.0, 4, 40, 50], [0, 0, 64, 64]])], [(64, 64)]
    box = "roi_head.bbox_head"
    x = network.roi_heads.box_roi_pool(levels, regions, sizes).flatten(1)
    for i in range(2):
        x = F.linear(x, state[f"{box}.shared_fcs.{i}.weight"], state[f"{box}.shared_fcs.{i}.bias"]).relu()
    classes = F.linear(x, state[f"{box}.fc_cls.weight"], state[f"{box}.fc_cls.bias"])  # background last
    moves = F.linear(x, state[f"{box}.fc_reg.weight"], state[f"{box}.fc_reg.bias"])
    logits, deltas = network.roi_heads.class_and_box(levels, regions, sizes)
    torch.testing.assert_close(logits, classes.roll(1, dims=1))
    torch.testing.assert_close(deltas[:, 4:], moves)
    mask = "roi_head.mask_head"
    x = network.roi_heads.mask_roi_pool(levels, regions, sizes)
    for i in range(4):
        x = F.conv2d(x, state[f"{mask}.convs.{i}.conv.weight"], state[f"{mask}.convs.{i}.conv.bias"], padding=1).relu()
    x = F.conv_transpose2d(x, state[f"{mask}.upsample.weight"], state[f"{mask}.upsample.bias"], stride=2).relu()
    drawn = F.conv2d(x, state[f"{mask}.conv_logits.weight"], state[f"{mask}.conv_logits.bias"])
    torch.testing.assert_close(network.roi_heads.mask_logits(levels, regions, sizes, torch.tensor([2, 0])), drawn[[0, 1], [2, 0]])
    objectness, _ = network.rpn.head([levels["1"]])
    x = F.conv2d(levels["1"], state["rpn_head.rpn_conv.weight"], state["rpn_head.rpn_conv.bias"], padding=1).relu()
    torch.testing.assert_close(objectness[0], F.conv2d(x, state["rpn_head.rpn_cls.weight"], state["rpn_head.rpn_cls.bias"]))


def test_semantic_fpn_computes_what_mmsegmentations_tensors_say():
    state, network, images, maps = _loaded(SemanticFpn)
    total: Tensor | float = 0.0
    for level, x in enumerate(_neck_by_hand(state, maps)):
        for i in range(max(1, level)):
            name = f"decode_head.scale_heads.{level}.{2 * i}"
            mean, var = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
            x = F.conv2d(x, state[f"{name}.conv.weight"], padding=1)
            x = F.batch_norm(x, mean, var, state[f"{name}.bn.weight"], state[f"{name}.bn.bias"]).relu()
            if level:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        total = total + x
    expected = F.conv2d(total, state["decode_head.conv_seg.weight"], state["decode_head.conv_seg.bias"])
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected)


@EVERY
def test_the_backbones_tensors_arrive(kind):
    state, network, _, _ = _loaded(kind)
    ours = network.backbone.features.model.state_dict()
    theirs = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


@EVERY
def test_a_trainers_file_loads_whole(kind, tmp_path):
    """As mmcv saves it: the state dict beside what the trainer noted, with the prefix of a parallel training."""
    state, network = _state(kind), _network(kind)
    prefixed = OrderedDict((f"module.{k}", v) for k, v in state.items())
    torch.save({"meta": {"epoch": 12, "CLASSES": ("a", "b", "c")}, "state_dict": prefixed, "optimizer": {"state": {}}}, tmp_path / "f.pth")
    assert is_mmlab(tmp_path / "f.pth")
    (note,) = load_mmlab(network, tmp_path / "f.pth")
    assert "f.pth" in note
    expected = from_mmlab(state, network)
    assert all(torch.equal(v, expected[k]) for k, v in network.state_dict().items())


def test_files_without_batch_counters_load():
    network = _network(SemanticFpn)
    state = {k: v for k, v in _state(SemanticFpn).items() if not k.endswith("num_batches_tracked")}
    assert from_mmlab(state, network).keys() == network.state_dict().keys()


def test_a_classifiers_file_is_not_of_mmlab(tmp_path):
    torch.save(create_model("convmlp", num_classes=4, model_args=CONVMLP).state_dict(), tmp_path / "f.pth")
    assert not is_mmlab(tmp_path / "f.pth")
    with pytest.raises(WeightsError, match=r"f.pth: no names of mmdetection"):
        load_mmlab(_network(RetinaNet), tmp_path / "f.pth")


@EVERY
def test_missing_unexpected_and_misshapen_tensors_are_named(kind):
    state, network = _state(kind), _network(kind)
    lacking = {k: v for k, v in state.items() if k != "neck.lateral_convs.1.conv.bias"}
    with pytest.raises(WeightsError, match=r"1 missing: neck\.lateral_convs\.1\.conv\.bias\)"):
        from_mmlab(lacking, network)
    with pytest.raises(WeightsError, match=r"1 unexpected: neck\.lateral_convs\.9\.conv\.bias\)"):
        from_mmlab(state | {"neck.lateral_convs.9.conv.bias": torch.zeros(1)}, network)
    with pytest.raises(WeightsError, match=r"1 other shape: neck\.lateral_convs\.1\.conv\.bias \(5,\) for \(8,\)"):
        from_mmlab(state | {"neck.lateral_convs.1.conv.bias": torch.zeros(5)}, network)


def test_another_number_of_classes_is_said():
    with pytest.raises(WeightsError, match=r"RetinaNet on convmlp with 4 classes .*retina_cls.bias \(27,\) for \(36,\)"):
        from_mmlab(_state(RetinaNet), _network(RetinaNet, classes=4))


def test_a_detectors_file_does_not_fit_a_segmenter():
    with pytest.raises(WeightsError, match=r"does not fit SemanticFpn .*missing.*unexpected"):
        from_mmlab(_state(MaskRCNN), _network(SemanticFpn))


def test_other_taps_than_the_authors_are_refused():
    with pytest.raises(WeightsError, match="taps=authors"):
        from_mmlab(_state(RetinaNet), _network(RetinaNet, taps="blocks"))
