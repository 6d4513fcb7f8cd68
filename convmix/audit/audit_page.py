"""The page of an examination: what was found, most harmful first, with the pictures that a person should look at."""

from collections.abc import Sequence

import numpy as np

from convmix.audit.balance import class_counts
from convmix.audit.balance_plot import balance_picture, encode, side_by_side, tile
from convmix.audit.finding import KINDS, Finding
from convmix.audit.image_facts import ImageFacts
from convmix.config import Data
from convmix.data.formats import printable
from convmix.plots.html_page import Page, Thumbnail

SHOWN = 24  # pictures per kind
LINES = 12  # of findings without a picture
LETTERS = 34  # of a name in a caption


def build_page(
    title: str, under: str, facts: ImageFacts, findings: Sequence[Finding], notes: Sequence[str], data: Data, csv_name: str
) -> Page:
    """The whole page; the images shown are read once more."""
    page = Page(title, under)
    page.section("Summary")
    for note in notes:
        page.note(note)
    rows = summary_rows(findings)
    if rows:
        page.table(("found", "what", "", "what to do"), rows)
        page.text(f"Every finding is a row of {csv_name}, with the names of the images.")
    else:
        page.text("Nothing was found.")
    _contents(page, facts)
    for name, kind in KINDS.items():
        of_kind = [f for f in findings if f.kind == name]
        if of_kind:
            page.section(f"{name[0].upper()}{name[1:]}:\u00a0{len(of_kind):,}", f"{kind.means} {kind.advice}")
            _show(page, facts, of_kind, data)
    return page


def summary_rows(findings: Sequence[Finding]) -> list[tuple[str, str, str, str]]:
    """Number, kind, severity and advice of what was found, in the order of KINDS: most harmful first."""
    counts = {name: sum(f.kind == name for f in findings) for name in KINDS}
    return [(f"{counts[name]:,}", name, kind.severity, kind.advice) for name, kind in KINDS.items() if counts[name]]


def _contents(page: Page, facts: ImageFacts) -> None:
    page.section("What the data holds")
    ok = facts.ok
    rows = []
    for part, examples in enumerate(facts.parts):
        of_part = ok & (facts.part == part)
        broken = len(examples) - int(of_part.sum())
        sizes = f"{_span(facts.width[of_part])} x {_span(facts.height[of_part])}" if of_part.any() else "–"
        rows.append(("all" if examples.split == "all" else examples.split, f"{len(examples):,}", f"{broken:,}", sizes))
    page.table(("split", "images", "unreadable", "size (pixels)"), rows)
    stored = [f"{name or 'unknown'} {n:,}" for name, n in _tally(facts.format[ok])]
    modes = [f"{name or 'array'} {n:,}" for name, n in _tally(facts.mode[ok])]
    page.text(f"Stored as {', '.join(stored)}; with the channels {', '.join(modes)}.")
    counts = class_counts(facts)
    page.figure(balance_picture(counts, facts.classes), name="classes", alt="Readable images per class and split; the JSON has the numbers")


def _show(page: Page, facts: ImageFacts, findings: Sequence[Finding], data: Data) -> None:
    pictures: list[Thumbnail] = []
    lines: list[Finding] = []
    for finding in _spread(findings)[: 2 * SHOWN]:
        if len(pictures) == SHOWN:
            break
        picture = _picture(facts, finding, data) if finding.at >= 0 else None
        if picture:
            pictures.append(picture)
        else:
            lines.append(finding)
    if pictures:
        page.gallery(pictures)
    if lines:
        rows = [(_cut(f.image, 90) or "–", f.split or "–", f.label or "–", f.about) for f in lines[:LINES]]
        page.table(("image", "split", "class", "what"), rows)
    hidden = len(findings) - len(pictures) - min(len(lines), LINES)
    if hidden > 0:
        page.text(f"{hidden:,} more are in the CSV.")


def _spread(findings: Sequence[Finding]) -> list[Finding]:
    """Near copies from the surest to the least sure ones, evenly: the doubtful ones must be seen. Others as they come."""
    if len(findings) > SHOWN and findings[0].kind.startswith("near ") and findings[0].beside >= 0:
        return [findings[i] for i in np.linspace(0, len(findings) - 1, SHOWN).round().astype(int)]
    return list(findings)


def _picture(facts: ImageFacts, finding: Finding, data: Data) -> Thumbnail | None:
    first = tile(facts.source(finding.at), in_chans=data.in_chans, max_pixels=data.max_pixels, value_range=facts.value_range)
    if first is None:
        return None
    if finding.beside < 0:
        where = "" if finding.split == "all" else f"{finding.split}, "
        return Thumbnail(encode(side_by_side(first)), f"{where}{finding.label}\n{_cut(finding.image, LETTERS)}\n{finding.about}")
    second = tile(facts.source(finding.beside), in_chans=data.in_chans, max_pixels=data.max_pixels, value_range=facts.value_range)
    if second is None:
        return None
    lines = (_told(finding.image, finding.split, finding.label), _told(finding.other, finding.other_split, finding.other_label))
    return Thumbnail(encode(side_by_side(first, second)), "\n".join((*lines, finding.about)), wide=True)


def _told(name: str, split: str, label: str) -> str:
    return f"{'' if split == 'all' else split + ', '}{label}: {_cut(name, LETTERS)}"


def _cut(name: str, letters: int) -> str:
    """The end of a long name tells it from the others."""
    name = printable(name)
    return name if len(name) <= letters else "…" + name[1 - letters :]


def _span(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _tally(values: np.ndarray) -> list[tuple[str, int]]:
    names, counts = np.unique(values, return_counts=True)
    return [(str(names[i]), int(counts[i])) for i in np.argsort(-counts, kind="stable")]
