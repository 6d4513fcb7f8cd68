import dataclasses

import pytest
import torch
import torch.nn.functional as F

from convmix.config import Augment, Optim
from convmix.errors import ConvmixError
from convmix.tasks import create_task
from convmix.tasks.classify import Classify

LABELS = ("ant", "bee", "cat")
LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [0.5, 0.4, 0.3], [0.0, 0.0, 3.0]])
TARGETS = torch.tensor([0, 1, 2, 2])


def prepared(optim: Optim | None = None, augment: Augment | None = None) -> Classify:
    task = Classify(LABELS)
    task.prepare_training(optim or Optim(), augment or Augment(), TARGETS)
    return task


def test_loss_is_cross_entropy_with_the_label_smoothing_asked_for() -> None:
    assert prepared().loss(LOGITS, TARGETS) == F.cross_entropy(LOGITS, TARGETS)
    smooth = F.cross_entropy(LOGITS, TARGETS, label_smoothing=0.1)
    assert prepared(Optim(label_smoothing=0.1)).loss(LOGITS, TARGETS) == smooth


def test_mixed_targets_are_smoothed_once() -> None:
    task = prepared(Optim(label_smoothing=0.1), Augment(mixup=0.4))
    _, targets = task.augment_batch(torch.rand(4, 3, 4, 4), TARGETS, seed=3)
    assert targets.shape == (4, 3)
    assert torch.allclose(targets.sum(1), torch.ones(4))
    assert targets.min() >= 0.1 / 3 - 1e-6
    assert task.loss(LOGITS, targets) == pytest.approx(float(-(targets * LOGITS.log_softmax(1)).sum(1).mean()), rel=1e-5)


def test_balanced_class_weights_are_inverse_frequencies() -> None:
    task = prepared(Optim(class_weights="balanced"))
    expected = F.cross_entropy(LOGITS, TARGETS, weight=torch.tensor([4 / 3, 4 / 3, 2 / 3]))
    assert task.loss(LOGITS, TARGETS) == pytest.approx(float(expected), rel=1e-6)


def test_correct_images_are_counted_for_hard_and_mixed_targets() -> None:
    task = prepared()
    assert task.count_correct(LOGITS, TARGETS) == 3
    assert task.count_correct(LOGITS, F.one_hot(TARGETS, 3).float()) == 3


def test_decoded_outputs_are_probabilities_of_the_labels() -> None:
    classes = prepared().decode(LOGITS)
    assert classes.labels == LABELS
    assert [row[0][0] for row in classes.top(1)] == ["ant", "bee", "ant", "cat"]


def test_a_calibration_scales_the_logits_and_says_what_is_sure() -> None:
    found = prepared().calibrate(LOGITS, TARGETS, split="val")
    assert (found.split, found.n, found.threshold) == ("val", 4, None)
    plain, calibrated = (create_task("classify", LABELS, c) for c in (None, dataclasses.replace(found, temperature=2.0, threshold=0.6)))
    assert torch.equal(calibrated.decode(LOGITS).probabilities, (LOGITS / 2).softmax(1))
    assert torch.equal(plain.decode(LOGITS).probabilities, LOGITS.softmax(1))
    assert plain.decode(LOGITS).sure.all()
    assert calibrated.decode(LOGITS).sure.tolist() == [True, False, False, True]
    assert calibrated.decode(LOGITS, threshold=0.0).sure.all()
    assert plain.decode(LOGITS, threshold=0.99).sure.sum() == 0


def test_certainty_is_how_probable_the_answer_is_and_whether_it_is_right() -> None:
    confidence, correct = prepared().certainty(LOGITS, TARGETS)
    assert confidence == pytest.approx(LOGITS.softmax(1).amax(1).numpy())
    assert correct.tolist() == [True, True, False, True]


def test_metrics_are_those_of_the_model_whatever_the_calibration() -> None:
    task = prepared()
    before = task.metrics(LOGITS, TARGETS)
    task.calibration = task.calibrate(LOGITS, TARGETS, split="val")
    assert task.metrics(LOGITS, TARGETS) == before


def test_tasks_have_the_names_that_model_directories_store() -> None:
    assert isinstance(create_task("classify", LABELS), Classify)
    with pytest.raises(ConvmixError, match="clasify"):
        create_task("clasify", LABELS)
