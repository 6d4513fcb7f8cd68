"""A page opens in a browser without a network, without an error, wide and on a phone."""

import io

import numpy as np
import pytest
from browser import look_at
from PIL import Image

from convmix.plots.html_page import Page, Thumbnail


def picture(side: int = 40) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 200, np.uint8)).save(out, "PNG")
    return out.getvalue()


def page() -> Page:
    p = Page("Evaluation of <b>runs</b>", "test split & more")
    p.section("Scores", "What the model gets right.")
    p.table(("class", "recall", "images"), [("<script>alert(1)</script>", "91.2 %", 12), ("b", "–", 3)], caption="per class")
    p.figure(picture(), name="reliability", alt="a diagram", caption="confidence and accuracy")
    p.section("Errors")
    p.note("3 images could not be read")
    p.gallery([Thumbnail(picture(8), 'a"quote\nsecond line', small=True)] * 30)
    return p


@pytest.mark.slow
def test_a_browser_shows_it_without_network_and_without_errors(tmp_path):
    files = page().write(tmp_path / "report.html")
    assert [f.name for f in files] == ["report.html", "report-reliability.png"]
    assert files[1].read_bytes() == picture()
    for width in (1100, 390):
        seen = look_at(tmp_path / "report.html", width=width)
        assert seen.errors == () and seen.requests == () and seen.broken_images == 0 and not seen.overflows
        assert "Evaluation of <b>runs</b>" in seen.text and "<script>alert(1)</script>" in seen.text and "second line" in seen.text


def test_numbers_stand_to_the_right_and_words_do_not():
    html = page().html()
    assert '<td class="number">91.2 %</td>' in html and '<th class="number">images</th>' in html and "<th>class</th>" in html


def test_a_figure_has_a_name_of_its_own():
    p = page()
    with pytest.raises(ValueError, match="named reliability"):
        p.figure(picture(), name="reliability", alt="again")


def test_the_browser_notices_what_it_is_there_for(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='file:///nowhere.png'><script>undefined_name()</script><div style='width:5000px'>x</div>")
    seen = look_at(bad)
    assert seen.errors and seen.requests and seen.broken_images == 1 and seen.overflows
