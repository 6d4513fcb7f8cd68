"""How the API pages read the package's docstrings, without importing it: a griffe extension, named in mkdocs.yml.

top: labels per image.                        -> a list, an item for each argument (types are in the signature)
device, precision: where and how to compute.
lr: float = _setting(1e-3, "peak rate")       -> the default 1e-3, and the help as the field's docstring
boxes: Tensor  # n,4 float32 xyxy             -> the comment as the field's docstring
"""

import ast
import re
from typing import Any

import griffe

COMMENT = re.compile(r"  # (?P<text>.*)$")


class Docstrings(griffe.Extension):
    """Docstrings as Markdown: arguments as a list, the fields of a class as a table."""

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        if func.docstring is not None:
            func.docstring.value = with_list(func.docstring.value, [p.name for p in func.parameters])

    def on_class_members(self, *, cls: griffe.Class, node: Any, **_: Any) -> None:
        fields = [field for field in node.body if isinstance(field, ast.AnnAssign)] if isinstance(node, ast.ClassDef) else []
        source = cls.module.source.splitlines()
        rows = [row(field, source, cls.path) for field in fields if not ast.unparse(field.target).startswith("_")]
        if rows:
            text = cls.docstring.value if cls.docstring is not None else ""
            table = ["| field | type | default | what it is |", "| --- | --- | --- | --- |", *rows]
            cls.docstring = griffe.Docstring("\n".join([text, "", *table]), lineno=cls.lineno, parent=cls)


def row(field: ast.AnnAssign, source: list[str], owner: str) -> str:
    """The line of the table for one field of a class."""
    name = ast.unparse(field.target)
    text, default = setting(field.value)
    if not text:
        text = comment(field, source)
        default = "" if field.value is None else ast.unparse(field.value)
        if default.startswith("field("):
            [default] = [ast.unparse(k.value) for k in field.value.keywords if k.arg == "default"] or [""]  # type: ignore[union-attr]
    kind = ast.unparse(field.annotation).strip("'")
    return f"| [](){{#{owner}.{name}}}`{name}` | `{kind}` | {f'`{default}`' if default else ''} | {escaped(text)} |"


def escaped(text: str) -> str:
    """Text as a cell of a table: no bar divides it, and no brace is taken for an attribute."""
    parts = text.split("`")
    parts[::2] = [
        part.replace("|", "\\|").replace("{", "&#123;").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_") for part in parts[::2]
    ]
    return "`".join(parts)


def with_list(text: str, names: list[str]) -> str:
    """The docstring, each `name: what it is` (also `a, b: what they are`, and behind another on its line) an item of a list."""
    one = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    if not one:
        return text
    argument = re.compile(rf"(?P<before>^|(?<=[.:)]) )(?P<names>(?:{one})(?:, (?:{one}))*): ")
    lines: list[str] = []
    listing = False
    for line in text.splitlines():
        first = argument.match(line)
        if listing and line.startswith("Raises "):
            lines.append("")
        if not line.strip() or line.startswith("Raises "):
            listing = False
        if first or listing:
            pieces = argument.sub(lambda m: "\n- " + ", ".join(f"`{name}`" for name in m["names"].split(", ")) + ": ", line)
            if not listing:
                lines.append("")
            listing = True
            lines += [piece if piece.startswith("- ") else f"    {piece.strip()}" for piece in pieces.strip("\n").splitlines()]
        else:
            lines.append(line)
    return "\n".join(lines)


def setting(value: ast.expr | None) -> tuple[str, str]:
    """Help and default of a field of the settings, `_setting(default, help)`; two empty strings for another field."""
    match value:
        case ast.Call(func=ast.Name("_setting"), args=[default, ast.Constant(str(text))]):
            return text, ast.unparse(default)
    return "", ""


def comment(field: ast.AnnAssign, source: list[str]) -> str:
    """What stands behind a field on its last line, or nothing."""
    found = COMMENT.search(source[(field.end_lineno or 1) - 1].encode()[field.end_col_offset or 0 :].decode())
    return found["text"] if found else ""
