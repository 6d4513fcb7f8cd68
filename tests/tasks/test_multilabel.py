"""Several labels per image: losses, batches that are mixed, answers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from convmix.config import Augment, Dense, Optim
from convmix.data.augment.mixing import LabelMix
from convmix.data.targets import UNKNOWN
from convmix.results import ImageLabels
from convmix.tasks.label_calibration import LabelCalibration
from convmix.tasks.label_losses import Asymmetric, label_loss
from convmix.tasks.label_picture import said_within
from convmix.tasks.multilabel import Multilabel

LABELS = ("a", "b", "c")


def drawn(n: int = 6) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return 2 * torch.randn(n, 3, generator=draw), torch.randint(0, 2, (n, 3), generator=draw, dtype=torch.int8)


def test_binary_cross_entropy_is_torchs_summed_over_the_labels() -> None:
    logits, targets = drawn()
    expected = F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none").sum(1).mean()
    torch.testing.assert_close(label_loss(logits, targets, asymmetric=None), expected)


def test_the_asymmetric_loss_is_the_papers() -> None:
    logits, targets = drawn()
    p, y = logits.sigmoid(), targets.float()
    shifted = (p - 0.05).clamp(min=0)
    by_hand = -(y * (1 - p) ** 1 * p.log() + (1 - y) * shifted**4 * (1 - shifted).log()).sum(1).mean()
    torch.testing.assert_close(label_loss(logits, targets, asymmetric=Asymmetric(1, 4, 0.05)), by_hand)
    plain = label_loss(logits, targets, asymmetric=Asymmetric(0, 0, 0))
    torch.testing.assert_close(plain, label_loss(logits, targets, asymmetric=None), rtol=1e-4, atol=1e-5)


def test_an_easy_negative_costs_nothing_and_a_lost_positive_much() -> None:
    asymmetric = Asymmetric(0, 4, 0.05)
    one = torch.zeros(1, 1, dtype=torch.int8)
    assert label_loss(torch.tensor([[-4.0]]), one, asymmetric=asymmetric) == 0
    assert label_loss(torch.tensor([[-4.0]]), one + 1, asymmetric=asymmetric) > 4


@pytest.mark.parametrize("asymmetric", [None, Asymmetric(1, 4, 0.05)])
def test_unknown_labels_give_no_gradient(asymmetric: Asymmetric | None) -> None:
    logits, targets = drawn()
    targets[1, 2] = targets[4, 0] = UNKNOWN
    logits.requires_grad_()
    label_loss(logits, targets, asymmetric=asymmetric).backward()
    assert logits.grad is not None
    assert logits.grad[1, 2] == logits.grad[4, 0] == 0
    known = targets != UNKNOWN
    assert (logits.grad[known] != 0).sum() >= known.sum() - 3  # negatives within the margin have none


@pytest.mark.parametrize("extreme", [-80.0, 80.0])
def test_losses_stay_finite_far_out(extreme: float) -> None:
    for asymmetric in (None, Asymmetric(1, 4, 0.05), Asymmetric(0, 2, 0.0)):
        logits = torch.full((2, 3), extreme, requires_grad=True)
        loss = label_loss(logits, torch.tensor([[0, 1, UNKNOWN]] * 2, dtype=torch.int8), asymmetric=asymmetric)
        loss.backward()
        assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()


def test_balanced_weights_make_rare_labels_count_more() -> None:
    task = Multilabel(LABELS)
    truth = torch.zeros(100, 3, dtype=torch.int8)
    truth[:10, 0], truth[:50, 1], truth[:60, 2] = 1, 1, 1
    truth[60:, 2] = UNKNOWN
    task.prepare_training(Optim(class_weights="balanced"), Augment(), truth)
    assert task.class_weights is not None
    torch.testing.assert_close(task.class_weights, torch.tensor([9.0, 1.0, 1 / 60]))


@pytest.mark.parametrize("augment", [Augment(mixup=1.0), Augment(cutmix=1.0), Augment(mixup=0.5, cutmix=0.5)])
def test_mixed_labels_are_the_parts_of_the_images_that_have_them(augment: Augment) -> None:
    """Every image is of one grey value of its own, so that its pixels say how much of which image is in it."""
    n, targets = 7, torch.eye(7, dtype=torch.int8)
    images = torch.arange(n).float().reshape(n, 1, 1, 1).expand(n, 1, 16, 16) * 10
    mixed, soft = LabelMix(augment)(images, targets, seed=3)
    for i in range(n):
        partner = n - 2 - i if i < 6 else i  # timm leaves the odd one out
        np.testing.assert_allclose(
            float(mixed[i].mean()), float(soft[i, i]) * 10 * i + float(soft[i].sum() - soft[i, i]) * 10 * partner, atol=1e-3
        )
        np.testing.assert_allclose(float(soft[i].sum()), 1, atol=1e-6)
    assert ((soft > 0) & (soft < 1)).any()
    torch.testing.assert_close(images[3].mean(), torch.tensor(30.0))  # the batch itself is left alone
    again = LabelMix(augment)(images, targets, seed=3)
    assert torch.equal(again[0], mixed) and torch.equal(again[1], soft)


def test_a_label_of_which_nobody_knows_in_one_image_is_unknown_in_the_mixture() -> None:
    targets = torch.tensor([[1, 0, UNKNOWN], [1, 1, 1], [0, 0, 0], [0, 1, 0]], dtype=torch.int8)
    _, soft = LabelMix(Augment(mixup=1.0))(torch.zeros(4, 3, 8, 8), targets, seed=0)
    assert soft[0, 2] == UNKNOWN == soft[3, 2]  # image 0 is mixed with image 3
    assert (soft[1:3] >= 0).all() and (soft[:, :2] >= 0).all() and soft[0, 0] < 1


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="targets N,K"):
        LabelMix(Augment(mixup=1.0))(torch.zeros(4, 3, 8, 8), torch.zeros(4), seed=0)
    with pytest.raises(TypeError, match="N,k of labels"):
        Multilabel(LABELS).loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="expected 3 of both"):
        ImageLabels(torch.zeros(3), torch.zeros(2), LABELS)
    with pytest.raises(ValueError, match=r"expected 0\.\.1"):
        ImageLabels(torch.tensor([0.0, 0.5, 1.5]), torch.zeros(3), LABELS)


def test_answers_follow_slopes_offsets_and_thresholds() -> None:
    c = LabelCalibration((1.0, 2.0, 1.0), (0.0, 0.0, 1.0), (0.5, 0.9, 0.2), (True,) * 3, None, "val", 10, 0, 0, 0, 0)
    [first, second] = Multilabel(LABELS, c).decode(torch.tensor([[0.1, 1.0, -2.0], [-0.1, 2.0, -3.0]]))
    torch.testing.assert_close(first.probabilities, torch.tensor([0.1, 2.0, -1.0]).sigmoid())
    assert [label for label, _ in first.said()] == ["a", "c"] and [label for label, _ in second.said()] == ["b"]
    [loose] = Multilabel(LABELS, c).decode(torch.tensor([[0.1, 1.0, -2.0]]), threshold=0.0)
    assert [label for label, _ in loose.said()] == ["b", "a", "c"]
    assert Multilabel(LABELS, c).shown(first.probabilities) == [0, 2]
    assert Multilabel(LABELS).shown(torch.tensor([0.1, 0.3, 0.2])) == [1]  # none is said: the most probable


def test_certainty_is_of_every_label_of_which_something_is_known() -> None:
    """What is said of a label is that it is there or that it is not, each with its own probability."""
    targets = torch.tensor([[1, 0, UNKNOWN], [0, UNKNOWN, 1]], dtype=torch.int8)
    logits = torch.tensor([[2.0, 1.0, 5.0], [-3.0, 0.0, -1.0]])
    said, right = Multilabel(LABELS).certainty(logits, targets)
    np.testing.assert_allclose(said, torch.tensor([2.0, 1.0, 3.0, 1.0]).sigmoid(), atol=1e-6)
    assert right.tolist() == [True, False, True, False]


def test_an_untrained_classifier_says_how_frequent_every_label_is() -> None:
    """Also where nobody knows a label of some images, where all have it and where none has."""
    task = Multilabel(LABELS)
    model = task.build("convmixer_8_1_k3_p4", in_chans=3, dense=Dense())
    known = torch.tensor([[1, 1, 0], [0, 1, 0], [UNKNOWN, 1, 0], [0, 1, 0]], dtype=torch.int8)
    task.start_classifier(model, known)
    torch.testing.assert_close(model.head.bias.sigmoid(), torch.tensor([2 / 5, 5 / 6, 1 / 6]))


@pytest.mark.parametrize(
    ("room", "text"),
    [(99, "deer 99 %, dog 71 %, bird 59 %"), (24, "deer, dog, bird"), (13, "deer, dog + 1"), (8, "deer + 2")],
)
def test_a_caption_keeps_whole_labels_as_long_as_there_is_room(room: int, text: str) -> None:
    assert said_within([("deer", 0.99), ("dog", 0.71), ("bird", 0.59)], room) == text
    assert said_within([], room) == "no label"
