"""`convmix compare`: models under one recipe and one budget, with the same splits and seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from convmix.comparison.candidates import Candidate, contenders, default_models
from convmix.comparison.comparison_page import comparison_page
from convmix.comparison.experiment_log import ExperimentLog, machine
from convmix.comparison.measurement import measure
from convmix.comparison.pareto import COSTS, Comparison, Speed, fronts, score
from convmix.comparison.run import RunOutcome
from convmix.comparison.runner import carry_out
from convmix.comparison.study import Study, open_study, short_name
from convmix.errors import ConfigError


def compare(
    data: str | Path,
    *,
    models: Sequence[str] = (),
    recipe: str | None = None,
    budget: str | None = None,
    epochs: int | None = None,
    seeds: int = 3,
    out: str | Path | None = None,
    device: str | None = None,
    console: Console | None = None,
    **settings: object,
) -> Comparison:
    """Train models on `data` under the same recipe and budget, and set their score against what they cost.

    data: as `train` takes it, of any task; the score is the task's own: accuracy, mean AP, AP, mask AP or mean IoU. Its
    splits are made once (settings: split_seed), the same for every training.
    models: names of `convmix models`; none: convmix's families and baselines of timm, sized for the images.
    recipe: one of `convmix recipes`, for all; a recipe that looks at the model, as "default" does, gives it its usual learning rate.
    budget: wall-clock time of every training, such as 10m: equal time. epochs: of every training: equal epochs. Neither: the recipe's.
    seeds: trainings per model; they differ in initialisation, order and augmentation. The first seed is the setting `seed`.
    out: the folder (None: runs/compare-NAME). Called again with the same folder and settings it goes on where it was interrupted; models
    and seeds may be added.
    device: cpu, cuda or mps; the accelerator where there is one.
    console: where progress is printed; None: nowhere.
    settings: any other field of `convmix.config.Run`, for all.

    Writes comparison.json, comparison.html with its picture, and a model directory per training under trials/. A model that cannot be
    trained is a row with the reason. Raises a ConvmixError for a mistake, Interrupted after SIGINT or SIGTERM with all that is done kept.
    """
    for name, why in (("model", "give models"), ("model_args", "they would be one model's; give models by name")):
        if any(key.replace("-", "_").split(".")[-1] == name for key in settings):
            raise ConfigError(f"{name}: a comparison has several models; {why}")
    for name in models:
        contenders([name], size=(224, 224))  # a mistyped name is said before the images are read
    say = console or Console(quiet=True)
    study = open_study(data, recipe=recipe, settings=settings, budget=budget, epochs=epochs, seeds=seeds, device=device, console=say)
    some = contenders(
        models or default_models(study.size, study.task.baselines), size=study.size, pretrained=study.run.net.pretrained == "yes"
    )
    runs = {c.name: study.resolved(c) for c in some}
    place = Path(out) if out is not None else Path("runs") / f"compare-{short_name(str(data))}"
    ledger = ExperimentLog(place, "comparison", begun_with={}, study=study)
    outcomes = carry_out(study, ledger, some)
    speeds = _speeds(study, ledger, some, outcomes)
    scores = tuple(
        score(
            c, outcomes[c.name], run=runs[c.name], test_images=study.counts["test"], speed=speeds.get(c.name), measure=study.task.score_name
        )
        for c in some
    )  # fmt: skip
    page = place / "comparison.html"
    best = fronts(scores)
    ledger.save(
        {
            "machine": machine(study),
            "scores": [{**s.to_dict(), "front": [cost.name for cost in COSTS if s.contender.name in best[cost.name]]} for s in scores],
        }
    )
    comparison = Comparison(study.name, scores, study.seeds, conditions(study, ledger), ledger.values, page, study.task.score_title)
    comparison_page(comparison, page)
    return comparison


def conditions(study: Study, ledger: ExperimentLog) -> dict[str, str]:
    """What all trainings share, for people: label -> text."""
    data, run, where = ledger.values["data"], study.run, machine(study)
    schedule = run.schedule
    limits = {"size", "budget", "epochs"}
    changed = ", ".join(f"{key}={value}" for key, value in study.settings.items() if key not in limits)
    images = ", ".join(f"{data[split]:,} {split}" for split in ("train", "val", "test") if split in data)
    return {
        "data": f"{data['name']}: {images} images, the same for everyone; fingerprint {data['fingerprint']}",
        "input": "{}x{} pixels, unless a model's note says otherwise".format(*study.size),
        "recipe": f"{study.recipe}: {run.source}" + (f"; changed: {changed}" if changed else ""),
        "length": f"{schedule.epochs} epoch{'s' * (schedule.epochs != 1)} each"
        if schedule.budget is None
        else f"{schedule.budget} of wall-clock time each",
        "kept weights": "of the best validation epoch" if schedule.keep == "best" and "val" in data else "of the last epoch",
        "seeds": ", ".join(map(str, study.seeds)) + ": of initialisation, order and augmentation",
        "machine": f"{where['name'].strip()}, {where['cores']} cores, {where['device']}",
        "versions": ", ".join(f"{name} {version}" for name, version in ledger.values["versions"].items()),
    }


def _speeds(
    study: Study, ledger: ExperimentLog, some: Sequence[Candidate], outcomes: Mapping[str, Mapping[int, RunOutcome]]
) -> dict[str, Speed]:  # fmt: skip
    """Measured in one round for all, and kept: measured anew only where other contenders take part."""
    trained = [c for c in some if any(ended.record is not None for ended in outcomes[c.name].values())]
    seeds = {c.name: next(seed for seed, ended in outcomes[c.name].items() if ended.record is not None) for c in trained}
    kept: dict[str, Any] = ledger.values.get("speed", {})
    if kept.keys() != seeds.keys():
        study.console.print("measuring inference")
        runs = {c.name: ledger.out / "trials" / f"{c.folder}-{seeds[c.name]}" for c in trained}
        ledger.save({"speed": {name: vars(speed) for name, speed in measure(study, runs).items()}})
        kept = ledger.values["speed"]
    return {name: Speed(**values) for name, values in kept.items()}
