"""A server for a run whose images may have several labels: answers, explanations, the model's description, and the page."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import convmix
from convmix.serving.schema import ExplainAnswer, ModelAnswer, PredictAnswer, SeveralLabels
from tests.label_scenes import LABELS
from tests.made_once import MadeOnce
from tests.serving.inside import inside
from tests.serving.tab import opened
from tests.trained_runs import labelled, multilabel

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def several(made_once: MadeOnce) -> Path:
    return multilabel(made_once)


@pytest.fixture(scope="module")
def pictures(made_once: MadeOnce) -> list[Path]:
    """Without any label, with two, with all of them."""
    return [labelled(made_once) / "images" / f"{i:03d}.png" for i in (8, 3, 7)]


def test_answers_are_those_of_predict(several: Path, pictures: list[Path]) -> None:
    expected = [row.to_dict() for row in convmix.predict(several, [str(p) for p in pictures])]
    with inside(several) as server:
        reply = server.predict(*(p.read_bytes() for p in pictures))
        loose = server.predict(pictures[0].read_bytes(), threshold=0.0).json["predictions"][0]
        facts = ModelAnswer.model_validate_json(server.get("/v1/model").body)
        shown = server.form("/v1/explain", "image", (pictures[1].read_bytes(),), {"label": "red", "method": "saliency"})
    rows = PredictAnswer.model_validate_json(reply.body).predictions
    for row, wanted in zip(rows, expected, strict=True):
        assert isinstance(row, SeveralLabels)
        assert [share.label for share in row.labels] == [share["label"] for share in wanted["labels"]]
        assert row.probabilities == pytest.approx(wanted["probabilities"], abs=1e-3)
    assert [len(row.labels) for row in rows if isinstance(row, SeveralLabels)] == [0, 2, 3]
    assert {share["label"] for share in loose["labels"]} == set(LABELS)
    assert facts.task == "multilabel" and facts.threshold is None and facts.thresholds is not None
    assert tuple(facts.thresholds) == LABELS and all(0 < t < 1 for t in facts.thresholds.values())
    answer = ExplainAnswer.model_validate_json(shown.body)
    assert answer.label == "red" and answer.probability == pytest.approx(expected[1]["probabilities"]["red"], abs=1e-3)


@pytest.mark.slow
def test_the_page_lists_what_is_said_and_what_nearly_is(browser: "Browser", several: Path, pictures: list[Path]) -> None:
    with inside(several) as server, opened(browser, server.address) as tab:
        tab.drop(*pictures)
        tab.done()
        first, second, third = tab.short_answers
        assert first == "no label" and all(label in third for label in LABELS)
        tab.page.locator(".option").nth(0).click()
        assert tab.verdict == "No label" and len(tab.bars) == 3  # all below their thresholds
        tab.page.locator(".option").nth(1).click()
        assert set(tab.verdict.split(", ")) == {"bar", "red"} and "spot" not in second
        tab.page.click("#why")
        tab.page.wait_for_selector("#heat", state="visible")
        options = tab.page.locator("#subject option").all_inner_texts()
        assert set(options) == {"bar", "red"}
        tab.page.select_option("#subject", options[1])
        tab.until(lambda: options[1] in tab.page.inner_text("#why-text"))
        assert not tab.errors
