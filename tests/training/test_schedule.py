import pytest

from convmix.config import Schedule
from convmix.training.budget import Budget
from convmix.training.schedule import StepPlan, full_plan, learning_rate

AUTHORS_LOG = {0: 0.005, 4: 0.025, 9: 0.05, 10: 0.04525, 14: 0.02625, 19: 0.0025, 22: 0.001, 24: 0.0}


@pytest.mark.parametrize("epoch", AUTHORS_LOG)
def test_triangular_rates_equal_the_authors_log(epoch: int) -> None:
    """locuslab/convmixer-cifar10 README: the rate of the last step of each epoch of the 25-epoch run at --lr-max 0.05."""
    schedule = Schedule(schedule="triangular", epochs=25)
    plan = full_plan(schedule, steps_per_epoch=98)
    assert learning_rate(schedule, 0.05, plan, epoch * 98 + 97) == pytest.approx(AUTHORS_LOG[epoch], abs=1e-9)


def test_linear_rises_for_a_fifth_and_falls_to_zero() -> None:
    schedule = Schedule(schedule="linear", epochs=5)
    plan = full_plan(schedule, steps_per_epoch=20)
    assert [learning_rate(schedule, 1.0, plan, s) for s in (0, 10, 20, 60)] == pytest.approx([0.1, 0.55, 1.0, 0.5])
    assert learning_rate(schedule, 1.0, plan.ending_at(60, now=20), 40) == pytest.approx(0.5)  # a budget moves the end


def test_cosine_warms_up_peaks_and_cools_down() -> None:
    schedule = Schedule(schedule="cosine", epochs=20, warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5, cooldown_epochs=4)
    plan = full_plan(schedule, steps_per_epoch=10)
    assert plan.total_steps == 240
    rates = [learning_rate(schedule, 1e-3, plan, s) for s in range(plan.total_steps)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[25] == pytest.approx((1e-6 + 1e-3) / 2)
    assert rates[100] == pytest.approx(1e-5 + (1e-3 - 1e-5) / 2)
    assert rates[200:] == pytest.approx([1e-5] * 40)


def test_steps_drop_by_gamma_every_step_size() -> None:
    schedule = Schedule(schedule="step", epochs=10, step_size=30, step_gamma=0.1)
    plan = full_plan(schedule, steps_per_epoch=10)
    assert [learning_rate(schedule, 1e-3, plan, s) for s in (0, 29, 30, 60)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])


def test_milestones_drop_after_their_epochs_and_scale_with_a_shorter_plan() -> None:
    """mmdetection's 1x schedule: a tenth after epochs 8 and 11 of 12, after a linear warm-up."""
    schedule = Schedule(schedule="step", epochs=12, milestones=(8, 11), warmup_epochs=0.5, warmup_lr=1e-7)
    plan = full_plan(schedule, steps_per_epoch=10)
    rates = [learning_rate(schedule, 1e-4, plan, s) for s in (0, 5, 79, 80, 109, 110)]
    assert rates == pytest.approx([1e-7, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6])
    half = plan.ending_at(60, now=0)
    assert [learning_rate(schedule, 1e-4, half, s) for s in (39, 40, 55)] == pytest.approx([1e-4, 1e-5, 1e-6])


def test_the_polynomial_rate_falls_to_zero() -> None:
    """mmsegmentation's: peak * (1 - step / steps) ** 0.9."""
    schedule = Schedule(schedule="poly", epochs=4)
    plan = full_plan(schedule, steps_per_epoch=100)
    rates = [learning_rate(schedule, 2e-4, plan, s) for s in (0, 100, 399)]
    assert rates == pytest.approx([2e-4, 2e-4 * 0.75**0.9, 2e-4 * 0.0025**0.9])


def test_replanning_never_makes_progress_jump() -> None:
    plan = StepPlan(steps_per_epoch=100, total_steps=1000)
    shorter = plan.ending_at(500, now=200)
    longer = shorter.ending_at(900, now=300)
    assert shorter.progress(200) == plan.progress(200) == pytest.approx(0.2)
    assert longer.progress(300) == shorter.progress(300)
    assert longer.progress(900) == 1.0
    assert plan.ending_at(50, now=200).progress(200) == 1.0


def measured(monkeypatch: pytest.MonkeyPatch, *, steps: int, step_s: float, **numbers: float) -> Budget:
    """A budget after `steps` steps of `step_s` seconds, on a clock of its own."""
    clock = [0.0]
    monkeypatch.setattr("convmix.training.budget.time.monotonic", lambda: clock[0])
    budget = Budget(started=0.0, batch_size=10, **numbers)
    for _ in range(steps):
        clock[0] += step_s
        budget.step_done()
    return budget


def test_budget_leaves_time_for_validation_calibration_and_test(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = measured(monkeypatch, steps=12, step_s=0.5, seconds=96.0, num_val=100, num_test=200)
    budget.eval_image_s = 0.1  # 10 s a validation, 20 s the test
    plan = budget.replan(StepPlan(steps_per_epoch=40, total_steps=4000), step=12, longest=4000)
    # 96 - 6 gone - 4 to finish - 20 test - 10 calibration - 10 last validation = 46 s: an epoch, validated (30), then 16 s = 32 steps
    assert plan.total_steps == 12 + 40 + 32
    assert budget.replan(StepPlan(40, 4000), step=12, longest=50).total_steps == 50


def test_time_between_steps_counts_but_validation_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = measured(monkeypatch, steps=12, step_s=1.0, seconds=100.0, num_val=0, num_test=0)
    budget.evaluation_took(5.0, 10)  # of the 10 s measured, so a step took half a second
    assert budget.replan(StepPlan(1000, 4000), step=12, longest=4000).total_steps == 12 + int((100 - 12 - 4) / 0.5)


def test_an_overdrawn_budget_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = measured(monkeypatch, steps=10, step_s=9.9, seconds=100.0, num_val=0, num_test=0)
    assert budget.replan(StepPlan(40, 4000), step=10, longest=4000).total_steps == 10
