"""All trainings of an experiment, one after the other; those that are done already are taken as they are."""

import signal
from collections.abc import Sequence

from convmix.comparison.candidates import Candidate
from convmix.comparison.experiment_log import ExperimentLog
from convmix.comparison.run import RunOutcome, TrainingRun, can_resume, clear, give_up, outcome, settle, splits_digest
from convmix.comparison.study import Study
from convmix.comparison.trainer import Order, Trainer
from convmix.config import parse_duration
from convmix.data.remote.urls import restore
from convmix.errors import ConfigError, RunError
from convmix.training.signals import Interrupted, StopRequests


def carry_out(study: Study, ledger: ExperimentLog, contenders: Sequence[Candidate]) -> dict[str, dict[int, RunOutcome]]:
    """Every contender trained with every seed, name -> seed -> outcome; raises Interrupted after a signal, with all that is done kept.

    All contenders with one seed, then with the next: an experiment that is cut short has whole rounds, and a machine that slows down over
    the hours slows everyone.
    """
    places = {c.name: ledger.out / "trials" / c.folder for c in contenders}
    trials = [TrainingRun(c, seed, places[c.name].with_name(f"{c.folder}-{seed}")) for seed in study.seeds for c in contenders]
    found: dict[str, dict[int, RunOutcome]] = {c.name: {} for c in contenders}
    _announce(study, trials)
    with StopRequests() as requests, Trainer() as trainer:
        for number, trial in enumerate(trials, start=1):
            ended = outcome(trial)
            if ended is None:
                label = f"{number}/{len(trials)} {trial.contender.name}, seed {trial.seed}"
                ended = None if requests.received else _train(study, trainer, trial, requests, label)
            if ended is None:
                done = sum(map(len, found.values()))
                raise Interrupted(
                    f"stopped with {done} of {len(trials)} trainings done; they are kept in {ledger.out}, and the same command resumes",
                    number=requests.received or signal.SIGTERM, out=ledger.out,
                )  # fmt: skip
            _check_splits(study, ledger, trial, ended)
            found[trial.contender.name][trial.seed] = ended
    return found


def _train(study: Study, trainer: Trainer, trial: TrainingRun, requests: StopRequests, label: str) -> RunOutcome | None:
    """The outcome of a trial, None where a signal ended it."""
    resume = can_resume(trial)
    if not resume:
        clear(trial)
    study.console.print(label + (", resumed" if resume else ""), highlight=False, markup=False)
    settings = {**study.settings, **trial.contender.settings, "seed": trial.seed}
    order = Order(restore(study.data), study.recipe, {} if resume else settings, trial.path, resume, study.device.type)
    answer = trainer.train(order, requests)
    if answer.kind == "stopped":
        return None
    if answer.kind == "mistake":
        raise ConfigError(f"{trial.contender.name}: {answer.reason}")
    if answer.kind == "failed":
        give_up(trial, answer.reason)
        study.console.print(f"    failed: {answer.reason}", highlight=False, markup=False)
    else:
        settle(trial)
    ended = outcome(trial)
    assert ended is not None  # written by the training or by give_up
    if ended.record is not None:
        r = ended.record
        task = study.task
        said = f"    test {task.score_title} {r['test'][task.score_name]:.2%} after {r['epochs_done']:.3g} epochs in {r['elapsed_s']:.0f} s"
        study.console.print(said, highlight=False)
    return ended


def _announce(study: Study, trials: Sequence[TrainingRun]) -> None:
    left = [trial for trial in trials if outcome(trial) is None]
    if not left:
        return
    budget = study.run.schedule.budget
    minutes = "" if budget is None else f", about {parse_duration(budget) * len(left) / 60:.0f} minutes"
    done = f"; {len(trials) - len(left)} more are done" if len(left) < len(trials) else ""
    study.console.print(f"{len(left)} trainings{minutes}{done}", highlight=False)


def _check_splits(study: Study, ledger: ExperimentLog, trial: TrainingRun, ended: RunOutcome) -> None:
    """The same images for everyone: a comparison on other test images would be none."""
    if ended.record is None:
        return
    splits = splits_digest(trial)
    if ledger.values["data"].setdefault("splits", splits) != splits:
        raise RunError(f"{trial.path} saw other images than the rest of {ledger.out}: {study.data} has changed meanwhile")
