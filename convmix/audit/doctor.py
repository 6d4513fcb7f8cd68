"""`convmix doctor`: examine a data set before a model learns it, and write what was found.

data -> facts of every image -> findings (faults, copies, balance, labels) -> JSON, CSV, page; on request a cleaned copy
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from convmix import config
from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.atomic import write_csv, write_json
from convmix.audit.audit_page import build_page, summary_rows
from convmix.audit.balance import class_counts, examine_balance
from convmix.audit.cleaning import Cleaned, check_target, mend, refuse_inside
from convmix.audit.duplicates import Copies, examine_copies, find_copies
from convmix.audit.finding import KINDS, Finding
from convmix.audit.image_checks import examine_images
from convmix.audit.image_facts import ImageFacts, collect
from convmix.audit.labels import LabelCheck, check_labels
from convmix.audit.near_duplicates import ALIKE
from convmix.audit.several import check_several, examine_labels
from convmix.cache import expanded
from convmix.config import Data
from convmix.data.examples import Source
from convmix.data.formats import printable
from convmix.data.inspection import announce
from convmix.data.parallel_map import Progress
from convmix.data.remote.urls import redact
from convmix.data.sources import open_source
from convmix.errors import ConfigError, DataError, RunError
from convmix.tasks import task_class

if TYPE_CHECKING:
    from rich.console import Group

_COLUMNS = ("image", "split", "class", "kind", "severity", "about", "other", "other_split", "other_class")


@dataclass(frozen=True)
class Examination:
    """What was found in a data set."""

    data: str
    images: dict[str, int]  # split -> images, the unreadable ones too
    classes: tuple[str, ...]
    class_counts: dict[str, list[int]] = field(repr=False)  # split -> readable images per class
    findings: tuple[Finding, ...] = field(repr=False)  # by kind, the most harmful first
    notes: tuple[str, ...]  # what a person should know, a line each
    remedy: Cleaned | None  # what `fix` wrote
    output: Path  # the JSON file; the CSV of the same name has a row per finding
    page: Path

    @property
    def counts(self) -> dict[str, int]:
        """Kind -> number of findings, for the kinds that were found."""
        return {kind: n for kind in KINDS if (n := sum(f.kind == kind for f in self.findings))}

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds: everything but the single findings."""
        r = self.remedy
        return {
            "data": self.data,
            "images": self.images,
            "classes": {
                name: {split: counts[i] for split, counts in self.class_counts.items()} for i, name in enumerate(self.classes)
            },
            "found": {kind: {"count": n, "severity": KINDS[kind].severity} for kind, n in self.counts.items()},
            "notes": list(self.notes),
            "fix": r
            and {
                "path": printable(str(r.path)), "changes": printable(str(r.changes)), "kept": r.kept, "left_out": r.left_out,
                "turned": r.turned, "renamed": r.renamed,
            },
        }  # fmt: skip


def doctor(
    data: str | Path,
    *,
    run: str | Path | Artifact | None = None,
    fix: str | Path | None = None,
    output: str | Path | None = None,
    near: bool = True,
    image_column: str | None = None,
    label_column: str | None = None,
    in_chans: int | None = None,
    device: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    layout: str | None = None,
    console: Console | None = None,
) -> Examination:
    """Examine a data set: broken and odd images, copies within and across splits and classes, class balance, label errors.

    data: a data set in any form that training reads. It is never changed.
    run: a model directory whose model checks the labels of the images that it was not trained on.
    fix: a folder to make and fill with a cleaned copy, or a .csv that lists what to keep; `audit.cleaning` has the rules.
    output: the folder for NAME-health.html, .json and .csv (None: doctor-NAME in the current directory).
    near: also look for near copies: resized, re-encoded, mirrored, of other brightness.
    image_column, label_column: of a table, as in training (None: those of the run, else found by name).
    in_chans: channels of the images (None: the run's, else 3).
    device: where the run computes. workers: processes that decode (None: one per core; 0: this one).
    progress: called with the images done and the images in all.
    layout: how the data is read, as in training. console: where it is said how it was read (None: nowhere).

    What is found is no error. Raises DataError for data that cannot be read, RunError for a folder that holds no run, ConfigError for a
    target that exists or is inside the data.
    """
    if workers is not None and workers < 0:
        raise ConfigError(f"workers: {workers} is too small, expected at least 0")
    data = redact(data) if isinstance(data, str) else data
    target = None if fix is None else Path(fix)
    if target is not None:
        check_target(target, str(data))
    name = _name_of(data)
    folder = Path(f"doctor-{name}" if output is None else output)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output: {folder} is a file, expected a folder")
    refuse_inside(folder, str(data), option="output")
    artifact = load_artifact(run) if isinstance(run, (str, Path)) else run
    if artifact is not None and artifact.engine:
        raise ConfigError(f"run: {artifact.path} is an exported model; give the run that it came from")
    if artifact is not None and task_class(artifact.task).places:
        raise ConfigError(f"run: {artifact.path} is for the task {artifact.task}; labels are checked by classifiers alone, leave it out")
    settings = _settings(artifact, image_column, label_column, in_chans, layout)
    source = open_source(data, settings)
    announce(source, data, console=console)
    facts = collect(source, settings, workers=workers, progress=progress)
    if not facts.ok.any():
        raise DataError(f"{data}: none of its {len(facts)} images can be read; the first: {facts.name(0)}: {facts.reason[0]}")
    copies = find_copies(facts, near=near)
    check = check_labels if facts.matrix is None else check_several
    labels = check(facts, copies, artifact, data=str(data), device=device, workers=workers) if artifact else None
    findings = _findings(source, facts, copies, labels)
    remedy = mend(facts, copies, target) if target is not None else None

    result = Examination(
        data=str(data),
        images={examples.split: len(examples) for examples in facts.parts},
        classes=facts.classes,
        class_counts={split: of_split.tolist() for split, of_split in class_counts(facts).items()},
        findings=findings,
        notes=tuple(_notes(facts, copies, labels, artifact, remedy)),
        remedy=remedy,
        output=folder / f"{name}-health.json",
        page=folder / f"{name}-health.html",
    )
    _write(result, facts, settings)
    return result


def _settings(
    artifact: Artifact | None, image_column: str | None, label_column: str | None, in_chans: int | None, layout: str | None
) -> Data:
    """How the data is read: as the run reads it where there is one."""
    if artifact is None:
        base = Data()
    else:
        try:
            base = config.from_dict(artifact.info["run"]).data
        except KeyError:
            raise RunError(f"{artifact.path / 'convmix.json'} has no run; expected a folder that `convmix train` made") from None
    if layout is not None:
        base = config.override(config.Run(data=base), {"layout": layout}).data
    return replace(
        base,
        image_column=image_column or base.image_column,
        label_column=label_column or base.label_column,
        in_chans=base.in_chans if in_chans is None else in_chans,
    )


def _findings(source: Source, facts: ImageFacts, copies: Copies, labels: LabelCheck | None) -> tuple[Finding, ...]:
    found = [
        *examine_images(facts),
        *examine_copies(facts, copies),
        *examine_balance(facts),
        *examine_labels(facts),
        *(labels.findings if labels else ()),
        *(Finding("no example", name, "", "", reason) for name, reason in source.dropped),
    ]
    rank = {kind: i for i, kind in enumerate(KINDS)}
    return tuple(sorted(found, key=lambda finding: rank[finding.kind]))


def _notes(
    facts: ImageFacts, copies: Copies, labels: LabelCheck | None, artifact: Artifact | None, remedy: Cleaned | None
) -> "Sequence[str]":
    notes = []
    if copies.searched and copies.limit > ALIKE + 1e-6:
        notes.append(
            f"the pictures of this data set are much alike: near copies had to have a correlation of {copies.limit:.3f}, "
            f"where {ALIKE} is usual"
        )
    if not copies.searched:
        notes.append("near copies were not looked for")
    if len(facts.parts) == 1 and facts.parts[0].split == "all":
        notes.append("the data has no splits: training makes them by chance, and near copies may end up on both sides")
    if labels and artifact:
        notes.append(
            f"labels were checked with {artifact.path} on {labels.examined:,} images that it was not trained on; what it says is the label "
            f"for {labels.right:.1%}, and what it gets wrong itself is among the suspicions: the first of them are the surest"
        )
    if remedy:
        also = [f"{remedy.turned:,} turned upright"] if remedy.turned else []
        also += [f"{remedy.renamed:,} renamed"] if remedy.renamed else []
        done = f"{remedy.kept:,} images kept, {remedy.left_out:,} left out{''.join(', ' + a for a in also)}"
        notes.append(f"{remedy.path}: {done}; {remedy.changes} says which and why")
    return notes


def _write(result: Examination, facts: ImageFacts, settings: Data) -> None:
    rows = ((f.image, f.split, f.label, f.kind, f.severity, f.about, f.other, f.other_split, f.other_label) for f in result.findings)
    csv = result.output.with_suffix(".csv")
    write_csv(csv, _COLUMNS, rows)
    write_json(result.output, result.to_dict())
    total = sum(result.images.values())
    under = f"{printable(result.data)}: {total:,} images, {len(result.classes):,} classes"
    build_page(f"Health of {_name_of(result.data)}", under, facts, result.findings, result.notes, settings, csv.name).write(result.page)


def _name_of(data: str | Path) -> str:
    path = expanded(data)
    name = path.resolve().name if path.exists() else str(data)
    if path.is_file():
        name = Path(name).stem
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "data"


def table(result: Examination) -> "Group":
    """The findings for a terminal, most harmful first, and what to do next."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    lines = [Text(note) for note in result.notes]
    total = sum(result.images.values())
    splits = "" if list(result.images) == ["all"] else f" ({', '.join(f'{n:,} {split}' for split, n in result.images.items())})"
    head = Text(f"{total:,} images{splits} in {len(result.classes):,} classes")
    rows = summary_rows(result.findings)
    if not rows:
        return Group(head, Text("nothing was found"), *lines, Text(f"page: {result.page}"))
    found = Table(box=None, header_style="bold", pad_edge=False)
    found.add_column("found", justify="right")
    found.add_column("what", no_wrap=True)
    found.add_column("")
    found.add_column("what to do", overflow="fold")
    for n, kind, severity, advice in rows:
        found.add_row(n, Text(kind), Text(severity, style="bold red" if severity == "harmful" else ""), Text(advice))
    if not result.remedy and any(f.severity == "harmful" for f in result.findings):
        lines.append(Text(f"a cleaned copy: convmix doctor {result.data} --fix {_name_of(result.data)}-clean"))
    return Group(head, "", found, "", *lines, Text(f"page: {result.page}"))
