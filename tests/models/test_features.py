"""What enters the classifier of any network is taken as it is, and turned into the network's own answer by the classifier alone."""

import pytest
import torch
from torch import Tensor, nn

from convmix.data.loaders import Batch
from convmix.errors import ModelError
from convmix.models.catalog import create_model
from convmix.models.features import VIEWS, Features, classifier_layers, extract, joined, seen

MODELS = (
    "convmixer_16_2_k3_p4", "multiscale_convmixer_t", "convmlp_t", "test_resnet", "test_vit", "test_efficientnet", "test_convnext",
    "test_mambaout", "test_nfnet", "test_vit4", "test_byobnet",
)  # fmt: skip


def batch(n: int, *, side: int = 32, first: int = 0) -> Batch:
    images = torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(first))
    return Batch(images, torch.arange(n) % 3, torch.arange(first, first + n), ((first + n, "broken"),))


@pytest.mark.parametrize("name", MODELS)
def test_the_classifier_makes_the_answer_of_the_features(name: str) -> None:
    side = 160 if name in ("test_vit", "test_vit4") else 64
    model = create_model(name, num_classes=3).train()
    some = batch(2, side=side)
    features = extract(model, [some], device=torch.device("cpu"), views=2)
    assert model.training
    [(layer, x)] = features.layers.items()
    head = model.get_submodule(layer)
    with torch.no_grad():
        model.eval()
        for view in (0, 1):
            given = x[:, view]
            logits = head(given[:, :, None, None] if isinstance(head, nn.Conv2d) else given).flatten(1)
            torch.testing.assert_close(logits, model(seen(some.images, VIEWS[view])), rtol=1e-4, atol=1e-5)
    assert features.labels.tolist() == [0, 1]
    assert features.bad == ((2, "broken"),)


def test_a_network_with_two_classifiers_gives_both_their_features() -> None:
    model = create_model("deit_tiny_distilled_patch16_224", num_classes=3, model_args={"img_size": 32, "depth": 1})
    features = extract(model, [batch(2)], device=torch.device("cpu"))
    assert list(features.layers) == ["head", "head_dist"]
    assert not torch.equal(features.layers["head"], features.layers["head_dist"])


def test_a_network_without_a_linear_classifier_is_refused() -> None:
    bare = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    assert classifier_layers(bare) == {}
    with pytest.raises(ModelError, match="Sequential does not end in a linear classifier"):
        extract(bare, [batch(1)], device=torch.device("cpu"))


def test_views_are_other_pictures_of_the_same_size() -> None:
    image = torch.arange(3 * 10 * 12, dtype=torch.float32).reshape(1, 3, 10, 12)
    views: dict[str, Tensor] = {view: seen(image, view) for view in VIEWS}
    assert all(v.shape == image.shape for v in views.values())
    assert torch.equal(views["plain"], image)
    assert torch.equal(views["mirrored"].flip(-1), image)
    assert views["upper left"].mean() < image.mean() < views["lower right, mirrored"].mean()
    assert views["lower right, mirrored"][0, 0, 0, 0] > views["lower right, mirrored"][0, 0, 0, -1]


def test_parts_of_several_processes_are_put_in_the_order_of_the_split() -> None:
    def part(indices: list[int]) -> Features:
        x = torch.tensor(indices, dtype=torch.float32)[:, None, None]
        return Features({"head": x}, torch.tensor(indices) * 10, torch.tensor(indices), ())

    nothing = Features({}, torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), ((7, "gone"),))
    whole = joined([part([0, 2, 4]), nothing, part([1, 3])])
    assert whole.indices.tolist() == [0, 1, 2, 3, 4]
    assert whole.main[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert whole.labels.tolist() == [0, 10, 20, 30, 40]
    assert whole.bad == ((7, "gone"),)
