"""What a model does, how sure it may be, and what the data is like: evaluate, calibrate, explain, doctor."""

from typing import Any

from rich.console import Console

from convmix.artifacts.runtime import digests
from convmix.commands.derived import VERIFY, Changes, Work, command
from convmix.explanation.methods import NAMES


@command(Work("evaluation.score", "evaluate"), Changes(also=(VERIFY,)))
def evaluate(given: dict[str, Any]) -> None:
    """Score a model directory on its own test split, or on other labelled images."""
    if not given.pop("verify"):
        digests.skip()
    from convmix import evaluation

    Console().print(evaluation.table(evaluation.evaluate(given.pop("run"), given.pop("data", None), **given, console=Console())))


@command(Work("evaluation.calibrate", "calibrate"))
def calibrate(given: dict[str, Any]) -> None:
    """Choose below which probability an answer is "not sure"; predict honours it from then on."""
    from convmix.evaluation import calibrate, calibration_page

    Console().print(calibration_page.table(calibrate.calibrate(given.pop("run"), given.pop("data", None), **given)))


@command(Work("explanation.explain", "explain"), Changes(choices={"methods": lambda: NAMES}))
def explain(given: dict[str, Any]) -> None:
    """Show where in images a model finds its evidence, how far that can be trusted, and what the model is made of."""
    from convmix.explanation import explain, terminal_table

    Console().print(terminal_table.table(explain.explain(given.pop("run"), given.pop("files", ()), **given)))


@command(Work("audit.doctor", "doctor"))
def doctor(given: dict[str, Any]) -> None:
    """Examine a data set: broken and odd images, copies, leaks between splits, class balance, probable label errors."""
    from rich.progress import Progress

    from convmix.audit import doctor

    with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as bar:
        line = bar.add_task("images", total=None)
        result = doctor.doctor(
            given.pop("data"), **given, progress=lambda done, total: bar.update(line, completed=done, total=total), console=Console()
        )
    Console().print(doctor.table(result))
