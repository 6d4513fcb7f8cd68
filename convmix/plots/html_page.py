"""One self-contained HTML page: text, tables and pictures, opened without a network and without a script.

A page is built from top to bottom (`section`, `text`, `table`, `figure`, `gallery`) and written once: the HTML with its pictures inside,
and every figure as a PNG file beside it. All text is escaped; a class named <b> stays what it is.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from convmix.atomic import write_bytes

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --faint: #5c5c5c; --line: #d7d7d7; --tint: #f4f4f2; --mark: #b34700; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e6; --paper: #17181a; --faint: #a5a5a5; --line: #3c3d40; --tint: #222326; --mark: #ff9a57; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
       font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .2rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .4rem; padding-top: .6rem; border-top: 1px solid var(--line); }
.under, figcaption, footer { color: var(--faint); font-size: .9rem; }
nav a { margin-right: 1rem; color: inherit; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
         overflow-wrap: break-word; }
th { font-weight: 600; }
td.number, th.number { text-align: right; white-space: nowrap; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 4px; }
.gallery { display: flex; flex-wrap: wrap; gap: .8rem; margin: .8rem 0; }
.gallery figure { margin: 0; width: 8.5rem; }
.gallery figure.double { width: 17.5rem; }
.gallery img { width: 100%; image-rendering: auto; }
.gallery img.small { image-rendering: pixelated; }
.gallery figcaption { line-height: 1.3; font-size: .82rem; }
.note { border-left: 4px solid var(--mark); background: var(--tint); padding: .5rem .8rem; margin: .8rem 0; }
"""


@dataclass(frozen=True)
class Thumbnail:
    """One picture of a gallery."""

    png: bytes  # PNG or JPEG, as encoded
    caption: str  # lines are kept
    small: bool = False  # to be enlarged without smoothing
    wide: bool = False  # twice as wide: two images side by side


class Page:
    """A page that grows from top to bottom."""

    def __init__(self, title: str, under: str = "") -> None:
        self.title, self.under = title, under
        self._parts: list[str] = []
        self._sections: list[tuple[str, str]] = []  # anchor, title
        self._figures: dict[str, bytes] = {}

    def section(self, title: str, text: str = "") -> None:
        """Begin a section; it gets a line in the page's list of contents."""
        anchor = f"{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-') or 'section'}-{len(self._sections) + 1}"
        self._sections.append((anchor, title))
        self._parts.append(f'<h2 id="{anchor}">{escape(title)}</h2>')
        if text:
            self.text(text)

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def note(self, text: str) -> None:
        """A paragraph that must not be overlooked."""
        self._parts.append(f'<p class="note">{escape(text)}</p>')

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "") -> None:
        """A table; columns whose cells all begin with a digit, a sign or a dash stand to the right. A float is written as given."""
        numeric = [bool(rows) and all(re.match(r"[-+–]?\d|–$|$", str(row[i])) for row in rows) for i in range(len(header))]
        kind = [' class="number"' if n else "" for n in numeric]
        head = "".join(f"<th{k}>{escape(str(cell))}</th>" for k, cell in zip(kind, header, strict=True))
        body = "".join(
            "<tr>" + "".join(f"<td{k}>{escape(str(cell))}</td>" for k, cell in zip(kind, row, strict=True)) + "</tr>\n" for row in rows
        )
        # the caption stands outside what scrolls, else a wide table's is cut off on a phone
        title = f'<p class="under">{escape(caption)}</p>' if caption else ""
        self._parts.append(f'{title}<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>')

    def figure(self, png: bytes, *, name: str, alt: str, caption: str = "") -> None:
        """A picture, also written as PAGE-`name`.png beside the page. Raises ValueError for a name used twice."""
        if name in self._figures:
            raise ValueError(f"two figures of one page are named {name}")
        self._figures[name] = png
        self._parts.append(f'<figure><img src="{_data_uri(png)}" alt="{escape(alt)}">{_caption(caption)}</figure>')

    def gallery(self, pictures: Sequence[Thumbnail]) -> None:
        """Small pictures in rows, each with what is to be said of it."""
        figures = ""
        for p in pictures:
            kind = " class=small" if p.small else ""
            width = " class=double" if p.wide else ""
            figures += f'<figure{width}><img{kind} src="{_data_uri(p.png)}" alt="{escape(p.caption)}">{_caption(p.caption)}</figure>'
        self._parts.append(f'<div class="gallery">{figures}</div>')

    def write(self, path: Path) -> list[Path]:
        """Write the page to `path` (.html) and its figures beside it; all files that were written, the page first."""
        files = [path]
        for name, png in self._figures.items():
            files.append(path.with_name(f"{path.stem}-{name}.png"))
            write_bytes(files[-1], png)
        write_bytes(path, self.html().encode("utf-8", "backslashreplace"))
        return files

    def html(self) -> str:
        """The whole page."""
        links = "".join(f'<a href="#{anchor}">{escape(title)}</a>' for anchor, title in self._sections)
        contents = f'<nav aria-label="contents">{links}</nav>' if len(self._sections) > 1 else ""
        under = f'<p class="under">{escape(self.under)}</p>' if self.under else ""
        body = "\n".join(self._parts)
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(self.title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(self.title)}</h1>
{under}
{contents}
<main>
{body}
</main>
<footer><p>convmix, {datetime.now(UTC).date().isoformat()}</p></footer>
</body>
</html>
"""


def _data_uri(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text).replace(chr(10), '<br>')}</figcaption>" if text else ""
