"""Who reads what (benchmarks/readers.py), as a section of RESULTS.md; `tables.py` puts it into the page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
HEAD = """## Who reads what

`python benchmarks/readers.py CASES` gives every case of the shared `cases/make.py`, each after a public bug report, to convmix and to the
readers of its peers. "Right": the classes and the usable images that are there, or a refusal that says what is wrong where nothing there
is a data set as it stands. "Wrong": read without a word as something else, in brackets what. "Refused": ended with an error. "-": the peer
has no reader for what lies there. {versions}; {date}.
"""


def section(file: Path, table: Any) -> str:
    """A row per case, a column per reader; nothing where there is no record."""
    if not file.is_file():
        return ""
    record: Record = json.loads(file.read_text())
    readers = list(record["versions"])
    rows = [(f"`{case['name']}`", *(_cell(case["read"].get(reader)) for reader in readers)) for case in record["cases"]]
    right = (
        "right, of all",
        *(f"{sum(c['read'].get(r, {}).get('outcome') == 'right' for c in record['cases'])} of {len(record['cases'])}" for r in readers),
    )
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{HEAD.format(versions=versions, date=record['date'])}\n{table(('case', *readers), [*rows, right])}\n"


def _cell(found: Record | None) -> str:
    if found is None or found["outcome"] == "no reader":
        return "-"
    if found["outcome"] != "wrong":
        return str(found["outcome"])
    classes = found["classes"]
    named = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
    return f"wrong ({found['task']}, {len(classes)} class{'es' * (len(classes) != 1)}: {named}; {found['images']} images)"
