"""How often the curves of a training are drawn: seldom enough to cost next to nothing, and once more at the end."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from convmix.training import log
from convmix.training.log import TrainingLog

TAKES_S = 0.5


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """When curves were drawn, by a clock that stands still but for the drawing, and how many epochs they show."""
    pictures: list[tuple[float, int]] = []

    def draw(history: list[dict[str, float]], **titles: str) -> bytes:
        pictures.append((clock.now, len(history)))
        clock.now += TAKES_S
        return b"picture"

    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(log, "time", clock)
    monkeypatch.setattr(log, "curves_picture", draw)
    return pictures


@pytest.mark.parametrize("speaks", [True, False])
def test_curves_are_drawn_soon_then_seldom_and_at_the_end(tmp_path: Path, drawn: list[tuple[float, int]], speaks: bool) -> None:
    training = TrainingLog(tmp_path, Console(file=io.StringIO()), speaks=speaks, score="accuracy", score_title="accuracy")
    history: list[dict[str, float]] = []
    with training:
        for epoch in range(1, 61):
            log.time.now += 1.0  # type: ignore[attr-defined]
            history.append({"epoch": epoch, "step": epoch, "lr": 0.1, "train_loss": 1.0, "images_per_s": 9.0, "elapsed_s": epoch})
            training.epoch(history[-1], history, epochs=60, kept=True)
    if not speaks:
        assert drawn == []
        return
    assert [epochs for _, epochs in drawn] == [5, 30, 55, 60]
    (first, _), (second, _), *_ = drawn
    assert second - first >= TAKES_S / log.DRAW_SHARE
    assert (tmp_path / "curves.png").read_bytes() == b"picture"
