"""Every answer is what a person would call it: right, of the wrong class, badly placed, found twice or background; the rest is missed."""

import numpy as np
import pytest
from dense_answers import answers, objects

from convmix.evaluation.prediction_errors import BACKGROUND, BADLY_PLACED, IGNORED, RIGHT, TWICE, WRONG_CLASS, outcome

LABELS = ("cat", "dog")
CAT, DOG = (0, 0, 20, 20, 0), (40, 0, 60, 20, 1)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(
    ("said", "kind", "missed"),
    [
        ((0, 0, 20, 20, 0, 0.9), RIGHT, 1),
        ((0, 0, 20, 11, 0, 0.9), RIGHT, 1),  # IoU .55
        ((0, 0, 20, 9, 0, 0.9), BADLY_PLACED, 1),  # .45
        ((0, 0, 20, 1, 0, 0.9), BACKGROUND, 2),  # .05
        ((0, 0, 20, 20, 1, 0.9), WRONG_CLASS, 1),
        ((0, 0, 20, 9, 1, 0.9), BACKGROUND, 2),  # neither the class nor the place
        ((0, 40, 20, 60, 0, 0.9), BACKGROUND, 2),
    ],
)
def test_one_answer(said: tuple[float, float, float, float, int, float], kind: str, missed: int, masks: bool) -> None:
    o = outcome(answers(LABELS, said, masks=masks), objects(CAT, DOG, masks=masks), masks=masks)
    assert o.kinds == (kind,) and o.missed == missed and (o.objects, o.answers, o.right) == (2, 1, int(kind == RIGHT))
    assert o.f1 == pytest.approx(2 / 3 if kind == RIGHT else 0.0)


def test_the_surest_answer_is_right_and_the_others_are_repetitions() -> None:
    said = answers(LABELS, (0, 0, 20, 20, 0, 0.5), (0, 0, 20, 16, 0, 0.9), (0, 0, 20, 18, 0, 0.7))
    o = outcome(said, objects(CAT))
    assert o.kinds == (RIGHT, TWICE, TWICE) and o.missed == 0
    assert o.ious == pytest.approx([0.8, 0.9, 1.0]) and o.mean_iou == pytest.approx(0.8)  # of the right one alone
    assert o.f1 == pytest.approx(0.5)


def test_a_crowd_is_neither_missed_nor_background() -> None:
    truth = objects((0, 0, 40, 40, 0), DOG, crowd=(0,))
    o = outcome(answers(LABELS, (5, 5, 15, 15, 0, 0.9), (5, 5, 15, 15, 1, 0.8)), truth)
    assert o.kinds == (IGNORED, BACKGROUND) and (o.objects, o.answers, o.missed) == (1, 1, 1)


def test_an_answer_partly_in_a_crowd_is_not_badly_placed() -> None:
    o = outcome(answers(LABELS, (30, 0, 50, 20, 0, 0.9)), objects((0, 0, 36, 40, 0), crowd=(0,)))  # a third of it
    assert o.kinds == (BACKGROUND,) and o.missed == 0


def test_nothing_there_and_nothing_said_is_perfect() -> None:
    o = outcome(answers(LABELS), objects())
    assert (o.f1, o.mean_iou, o.objects, o.answers, o.missed) == (1.0, None, 0, 0, 0)
    assert outcome(answers(LABELS, (*CAT, 0.9)), objects()).f1 == 0.0


def test_every_answer_and_every_object_is_counted_once() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        corners = rng.uniform(0, 40, (12, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 20, (12, 2))], 1)
        truth = objects(*((*box, int(c)) for box, c in zip(boxes[:6], rng.integers(0, 2, 6), strict=True)), crowd=(0,))
        said = answers(LABELS, *((*box, int(c), s) for box, c, s in zip(boxes[3:], rng.integers(0, 2, 9), rng.random(9), strict=True)))
        o = outcome(said, truth)
        assert len(o.kinds) == 9 and o.kinds.count(RIGHT) == o.found.sum() <= o.touched.sum()
        assert o.missed + (o.touched & o.counted).sum() == o.objects == 5
        assert ((o.ious >= 0.5) >= np.isin(o.kinds, (RIGHT, TWICE, WRONG_CLASS))).all()
