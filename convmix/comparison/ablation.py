"""`convmix ablate`: patches or attention? Which parts of a ConvMixer, and of its recipe, matter on the user's data."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from convmix.comparison.compare import conditions
from convmix.comparison.comparison_page import ablation_page
from convmix.comparison.effect import Ablation, effects
from convmix.comparison.experiment_log import ExperimentLog, machine
from convmix.comparison.grid import AXES, base_of, check, unequal_macs, variations
from convmix.comparison.pareto import score
from convmix.comparison.runner import carry_out
from convmix.comparison.study import open_study, short_name
from convmix.errors import ConfigError


def ablate(
    data: str | Path,
    *,
    model: str = "convmixer_256_8",
    axes: Sequence[str] = AXES,
    equal: str = "macs",
    recipe: str | None = None,
    budget: str | None = None,
    epochs: int | None = None,
    seeds: int = 3,
    images: int | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    console: Console | None = None,
    **settings: object,
) -> Ablation:
    """Change one thing at a time of a ConvMixer and of its recipe, train each change, and give its difference to the base.

    data: as `train` takes it, of any task, whose own score is compared: accuracy, mean AP, AP, mask AP or mean IoU. Its splits
    are made once (settings: split_seed), the same for every training.
    model: the base, a ConvMixer by its size.
    axes: what is varied, any of patch, kernel, depth, residual, norm, act, scales, augment, optim.
    equal: what all trainings have in common. macs: multiply-adds per image (of the backbone), by adapting the width, and epochs; time, the
    wall-clock `budget`, or epochs, nothing but these. Depth against width is always at equal multiply-adds.
    recipe: one of `convmix recipes`, for all. epochs: of every training; None: the recipe's. seeds: trainings per change.
    budget: wall-clock time of every training, with equal="time". device: cpu, cuda or mps; the accelerator where there is one.
    console: where progress is printed; None: nowhere.
    images: train on so many images, every class in proportion, and test on all test images; None: on all.
    out: the folder (None: runs/ablate-NAME). Called again with the same folder and settings it goes on where it was interrupted; axes and
    seeds may be added.
    settings: any other field of `convmix.config.Run`, for the base and all changes.

    Writes ablation.json, ablation.html with its picture, and a model directory per training under trials/. A change that cannot be
    trained is a row with the reason. Raises a ConvmixError for a mistake, Interrupted after SIGINT or SIGTERM with all that is done kept.
    """
    check(axes, equal)
    if (equal == "time") != (budget is not None):
        raise ConfigError("budget is the time of every training at equal time: give budget with equal=time, epochs with macs and epochs")
    shared = {"model": model, **settings} | ({"train_images": images} if images is not None else {})
    say = console or Console(quiet=True)
    study = open_study(data, recipe=recipe, settings=shared, budget=budget, epochs=epochs, seeds=seeds, device=device, console=say)
    base = base_of(model, study.run, study.facts)
    asked, notes = variations(base, axes, equal=equal)
    changes = [change for change in asked if study.refusal(change.contender) is None]
    notes += [f"{c.contender.name}: left out, {study.refusal(c.contender)}" for c in asked if c not in changes]
    everyone = [base.contender, *(change.contender for change in changes)]
    runs = {c.name: study.resolved(c) for c in everyone}
    place = Path(out) if out is not None else Path("runs") / f"ablate-{short_name(str(data))}"
    ledger = ExperimentLog(place, "ablation", begun_with={"equal": equal}, study=study)
    outcomes = carry_out(study, ledger, everyone)
    scores = {
        c.name: score(c, outcomes[c.name], run=runs[c.name], test_images=study.counts["test"], measure=study.task.score_name)
        for c in everyone
    }  # fmt: skip
    base = replace(base, macs=scores[base.contender.name].macs or base.macs)  # heads and all
    adapted = changes if equal == "macs" else [change for change in changes if change.axis == "depth"]
    notes += unequal_macs(base, {change.contender.name: scores[change.contender.name].macs for change in adapted})
    found = effects(changes, scores, scores[base.contender.name])
    ledger.save(
        {
            "machine": machine(study),
            "base": scores[base.contender.name].to_dict(),
            "effects": [effect.to_dict() for effect in found],
            "notes": notes,
        }
    )
    page = place / "ablation.html"
    equally = {"macs": "multiply-adds per image, by the width, and epochs", "time": "wall-clock time", "epochs": "epochs"}[equal]
    facts = {**conditions(study, ledger), "equal": equally}
    ablation = Ablation(
        study.name, scores[base.contender.name], found, tuple(notes), study.seeds, facts, ledger.values, page, study.task.score_title
    )
    ablation_page(ablation, page)
    return ablation
