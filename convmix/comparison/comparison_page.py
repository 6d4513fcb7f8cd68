"""The HTML pages of comparisons and ablations."""

from collections.abc import Mapping
from pathlib import Path

from convmix.comparison.effect import Ablation
from convmix.comparison.interval_plot import effects_picture, fronts_picture
from convmix.comparison.pareto import CandidateScore, Comparison
from convmix.comparison.table import NONE, change_header, change_rows, contender_header, contender_rows, failures, percent
from convmix.plots.html_page import Page

_INTERVALS = (
    "Over seeds: Student's 95 % interval of the mean over the trainings; it says what further trainings of the same model would give on "
    "the same test images. Over images: Wilson's 95 % interval of that mean for so many test images; it says what other images of the same "
    "kind would give with the same trainings. Neither covers the other. The test images are the same for everyone and were scored once per "
    "training, with the weights that it kept."
)
_BOOTSTRAPPED = _INTERVALS.replace(
    "Wilson's 95 % interval of that mean for so many test images", "the mean of the ends of each training's bootstrapped 95 % interval"
)


def comparison_page(comparison: Comparison, file: Path) -> list[Path]:
    """Write it with its picture; all files that were written."""
    page = Page(f"{comparison.data}: models compared", f"{len(comparison.scores)} models, {len(comparison.seeds)} seeds each")
    page.section("Result")
    if picture := fronts_picture(comparison):
        page.figure(
            picture, name="accuracy", alt=f"Test {comparison.title} against parameters, multiply-adds, throughput, memory and training time"
        )
    rows = contender_rows(comparison)
    header = contender_header(comparison)
    page.table(header[:4], [row[:4] for row in rows])
    page.text(_INTERVALS if comparison.title == "accuracy" else _BOOTSTRAPPED)
    costs = [(row[0], row[1], *row[4:]) for row in rows]
    caption = f"*: on the Pareto front, nobody is better in both this and {comparison.title}"
    page.table((*header[:2], *header[4:]), costs, caption=caption)
    page.text(
        "Images/s and MiB are of inference in batches of 32, eager in PyTorch, channels last, each model in a process of its own and all "
        "in turn: medians over the rounds, and the peak above what the imports take. Training is the time of the training steps alone."
    )
    _failed(page, failures(comparison.scores))
    page.section("Conditions")
    page.table(("", ""), list(comparison.facts.items()))
    rates = [(s.contender.name, f"{s.lr:g}", f"{s.weight_decay:g}") for s in comparison.scores]
    page.table(("", "learning rate", "weight decay"), rates, caption="what one recipe means for each model")
    for s in comparison.scores:
        if s.contender.note:
            page.text(f"{s.contender.name}: {s.contender.note}.")
    page.section("Every training")
    _trainings(page, {s.contender.name: s for s in comparison.scores}, comparison.seeds, title=comparison.title)
    return page.write(file)


def ablation_page(ablation: Ablation, file: Path) -> list[Path]:
    """Write it with its picture; all files that were written."""
    base = ablation.base.contender
    page = Page(
        f"{ablation.data}: which parts matter", f"one change at a time of {base.note or base.name}, {len(ablation.seeds)} seeds each"
    )
    page.section("Result", ablation.summary())
    if picture := effects_picture(ablation):
        page.figure(picture, name="differences", alt=f"Difference of test {ablation.title} to the base for every change, with intervals")
    page.table(
        change_header(ablation), change_rows(ablation),
        caption=f"difference: percentage points of test {ablation.title}, change minus base, paired by seed",
    )  # fmt: skip
    page.text(
        "95 %: Student's interval of the mean difference over the seeds. Of twenty intervals about one leaves zero outside by chance. "
        "holds, fails: the interval leaves zero outside; in sign: only the mean is on this side."
    )
    page.text(
        "Paper: what Trockman and Kolter (arXiv 2201.09792) found for this change of ConvMixer-256/8 on the whole of CIFAR-10 in a long "
        "training, at equal width, so that smaller patches and larger kernels had more multiply-adds; with a question mark where that sign "
        "is from memory and was not read again. A short training on few images is another experiment: what regularises hurts there."
    )
    for note in ablation.notes:
        page.note(note)
    scores = (ablation.base, *(e.score for e in ablation.effects))
    _failed(page, failures(scores))
    page.section("Conditions")
    page.table(("", ""), list(ablation.facts.items()))
    rows = [(s.contender.name, _said(s.contender.settings), s.contender.note or NONE) for s in scores]
    page.table(("", "settings", "note"), rows, caption="what each change is, as settings of convmix train")
    page.section("Every training")
    _trainings(page, {s.contender.name: s for s in scores}, ablation.seeds, title=ablation.title)
    return page.write(file)


def _failed(page: Page, lines: list[str]) -> None:
    if lines:
        page.section("Not trained or not measured", "Remove a training's folder under trials/ and call again to try it once more.")
        for line in lines:
            page.note(line)


def _trainings(page: Page, scores: Mapping[str, CandidateScore], seeds: tuple[int, ...], *, title: str = "accuracy") -> None:
    rows = [
        (name, *(percent(s.accuracies[seed]) if seed in s.accuracies else NONE for seed in seeds)) for name, s in scores.items()
    ]  # fmt: skip
    page.table(("", *(f"seed {seed}" for seed in seeds)), rows, caption=f"test {title}, %")


def _said(settings: Mapping[str, object]) -> str:
    def text(value: object) -> str:
        return ",".join(map(str, value)) if isinstance(value, list) else str(value) or "''"

    return " ".join(f"--{key.replace('_', '-')} {text(value)}" for key, value in settings.items())
