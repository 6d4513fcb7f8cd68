"""Fronts, intervals and verdicts on numbers made by hand."""

import pytest

from convmix.comparison.candidates import Candidate
from convmix.comparison.effect import Ablation, Effect, effects
from convmix.comparison.grid import Variation
from convmix.comparison.interval import Mean
from convmix.comparison.interval_plot import effects_picture, fronts_picture
from convmix.comparison.pareto import COSTS, CandidateScore, Comparison, Speed, front, fronts, score
from convmix.comparison.run import RunOutcome
from convmix.comparison.table import change_rows, contender_header, contender_rows
from convmix.config import Run
from convmix.metrics.classification import wilson_interval

COST = {cost.name: cost for cost in COSTS}


def made(
    name: str, accuracy: float | None, *, parameters: int | None = 10, images_per_s: float | None = None, **more: object
) -> CandidateScore:
    accuracies = {} if accuracy is None else {0: accuracy - 0.01, 1: accuracy + 0.01}
    values = {"macs": 5, "train_s": 1.0, "epochs": 2.0, "lr": 0.1, "weight_decay": 0.0, **more}
    return CandidateScore(Candidate(name, {"model": name}), accuracies, 100, parameters, speed=Speed(images_per_s), **values)  # type: ignore[arg-type]


def test_the_front_holds_whom_nobody_beats_in_both() -> None:
    scores = [made("a", 0.5, parameters=10), made("b", 0.6, parameters=20), made("c", 0.55, parameters=30), made("d", 0.9, parameters=99)]
    assert front(scores, COST["parameters"]) == {"a", "b", "d"}


def test_equals_are_both_on_the_front_and_ties_in_one_are_decided_by_the_other() -> None:
    twins = [made("a", 0.5, parameters=10), made("b", 0.5, parameters=10)]
    assert front(twins, COST["parameters"]) == {"a", "b"}
    assert front([made("a", 0.5, parameters=10), made("b", 0.6, parameters=10)], COST["parameters"]) == {"b"}
    assert front([made("a", 0.5, parameters=10), made("b", 0.5, parameters=20)], COST["parameters"]) == {"a"}


def test_of_throughput_more_is_better() -> None:
    scores = [made("slow", 0.5, images_per_s=10), made("fast", 0.5, images_per_s=20), made("slower, better", 0.6, images_per_s=5)]
    assert front(scores, COST["throughput"]) == {"fast", "slower, better"}


def test_who_has_no_result_is_on_no_front_and_last_in_the_table() -> None:
    scores = (made("failed", None, parameters=None), made("a", 0.5), made("b", 0.7))
    assert all("failed" not in names for names in fronts(scores).values())
    rows = contender_rows(Comparison("photos", scores, (0, 1), {}, {}))
    assert [row[0] for row in rows] == ["b", "a", "failed"]
    assert rows[0][4] == "10 *" and rows[1][4] == "10"
    assert set(rows[2][1:5]) == {"–"}
    assert fronts_picture(Comparison("photos", (scores[0],), (0, 1), {}, {})) is None


def test_both_intervals_are_given() -> None:
    s = score(
        Candidate("a"),
        {0: RunOutcome(record=record(0.5)), 2: RunOutcome(record=record(0.7)), 1: RunOutcome(failed="no")},
        run=Run(),
        test_images=99,
    )
    assert s.accuracies == {0: 0.5, 2: 0.7} and s.failures == {1: "no"}
    assert s.accuracy is not None and s.accuracy.value == pytest.approx(0.6) and s.accuracy.high == 1.0  # 0.6 + 12.7 * 0.1 cut at 1
    assert s.sampling == wilson_interval(30, 50)
    assert (s.parameters, s.macs, s.train_s, s.epochs, s.lr) == (7, 8, 3.0, 1.5, Run().optim.lr)


def record(accuracy: float) -> dict[str, object]:
    test = {"accuracy": accuracy, "n": 50}
    return {"test": test, "parameters": 7, "macs": 8, "train_elapsed_s": 3.0, "epochs_done": 1.5}


@pytest.mark.parametrize(
    ("expected", "found", "verdict"),
    [
        ("better", Mean(0.1, 3, 0.05, 0.15), "holds"),
        ("better", Mean(0.1, 3, -0.05, 0.25), "holds in sign"),
        ("better", Mean(-0.1, 3, -0.25, 0.05), "fails in sign"),
        ("better", Mean(-0.1, 3, -0.15, -0.05), "fails"),
        ("worse", Mean(-0.1, 3, -0.15, -0.05), "holds"),
        ("worse", Mean(0.1, 1, None, None), "fails in sign"),
        ("better", Mean(0.0, 3, 0.0, 0.0), "no difference"),
        ("same", Mean(0.1, 3, -0.05, 0.25), "no difference"),
        ("same", Mean(0.1, 3, 0.05, 0.15), "fails"),
        ("", Mean(0.1, 3, 0.05, 0.15), ""),
        ("better", None, ""),
    ],
)
def test_a_finding_holds_or_fails_surely_or_in_sign(expected: str, found: Mean | None, verdict: str) -> None:
    effect = Effect(Variation("kernel", Candidate("kernel 3"), expected), made("kernel 3", 0.5), found)  # type: ignore[arg-type]
    assert effect.verdict == verdict


def ablation() -> Ablation:
    names = {"kernel 3": ("worse", 0.45), "kernel 9": ("better", 0.4), "no residual": ("", None)}
    some = [Variation("kernel", Candidate(name), expected, name != "kernel 9") for name, (expected, _) in names.items()]  # type: ignore[arg-type]
    scores = {name: made(name, accuracy) for name, (_, accuracy) in names.items()}
    base = CandidateScore(Candidate("base", note="convmixer_8_2_k5_p2"), {0: 0.5, 1: 0.5}, 100, 10, 5, 1.0, 2.0, 0.1, 0.0)
    return Ablation("photos", base, effects(some, scores, base), (), (0, 1), {}, {})


def test_effects_are_differences_to_the_base() -> None:
    a = ablation()
    assert [e.difference and pytest.approx(e.difference.value) for e in a.effects] == [-0.05, -0.1, None]
    assert a.summary() == "Of 2 changes on which the paper has a finding on CIFAR-10: holds in sign: 1; fails in sign: 1."
    rows = change_rows(a)
    assert rows[1][:6] == ("kernel 3", "45.0", "-5.0", "-17.7 to +7.7", "worse", "holds in sign")  # 12.706 * 0.01414 / 1.414
    assert rows[2][4] == "better?"
    assert rows[3][1:4] == ("–", "–", "–")
    assert effects_picture(a) is not None and effects_picture(Ablation("photos", a.base, (), (), (0,), {}, {})) is None


def test_runs_of_several_labels_are_scored_by_their_mean_ap() -> None:
    """With the mean of the ends of their own intervals over the images: Wilson's is for shares of images."""
    ended = {
        seed: RunOutcome({
            "test": {"n": 50, "map": value, "map_interval": [value - 0.1, value + 0.05]}, "parameters": 10, "macs": 5,
            "train_elapsed_s": 1.0, "epochs_done": 2.0,
        })
        for seed, value in ((0, 0.6), (1, 0.8))
    }  # fmt: skip
    found = score(Candidate("a", {"model": "a"}), ended, run=Run(), test_images=50, measure="map")
    assert found.accuracies == {0: 0.6, 1: 0.8} and found.sampling == pytest.approx((0.6, 0.75))
    comparison = Comparison("photos", (found,), (0, 1), {}, {}, title="mean AP")
    assert contender_header(comparison)[1] == "mean AP %" and contender_rows(comparison)[0][:4:3] == ("a", "60.0 to 75.0")
