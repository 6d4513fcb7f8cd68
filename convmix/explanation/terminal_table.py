"""An explanation for the terminal."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from convmix.data.formats import printable
from convmix.explanation.explanation_page import VERDICT_COLUMNS, verdict_rows
from convmix.explanation.explanation_result import Explanation


def table(explanation: Explanation) -> Group:
    """The verdicts, the receptive fields, what was left out, and where the page is."""
    parts: list[Table | Text] = []
    if explanation.methods:
        methods = Table(box=None, header_style="bold", pad_edge=False)
        for title in VERDICT_COLUMNS[:2]:
            methods.add_column(title, overflow="fold")
        for title in VERDICT_COLUMNS[2:]:
            methods.add_column(title, justify="right")
        for row in verdict_rows(explanation):
            methods.add_row(*(Text(cell) for cell in row))
        parts += [methods, Text("")]
    if explanation.anatomy.fields:
        fields = Table(box=None, header_style="bold", pad_edge=False)
        fields.add_column("stage", overflow="fold")
        for title in ("effective field", "half of it", "possible field"):
            fields.add_column(title, justify="right")
        for f in explanation.anatomy.fields:
            sides = ("not known" if side is None else f"{side} px" for side in (f.effective_px, f.half_px, f.possible_px))
            fields.add_row(Text(f.stage), *sides)
        parts += [fields, Text("")]
    lines = list(explanation.notes)
    if explanation.bad:
        name, reason = explanation.bad[0]
        lines.append(f"{len(explanation.bad)} files could not be read; the first: {printable(name)}: {reason}")
    return Group(*parts, *(Text(line) for line in (*lines, str(explanation.page))))
