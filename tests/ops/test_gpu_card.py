"""Which kernels a record turns on: all of the rule, and that confirmed.json is what the records say."""

import copy
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from convmix.ops.gpu import card
from convmix.ops.gpu.cases import KERNELS, published

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import cards  # noqa: E402

REQUIRED = {"mix": ["a", "b"], "depthwise": ["c"], "multiply": []}


def checks(**trusted: bool) -> dict[str, object]:
    return {"checks": [{"key": key, "trusted": good} for key, good in trusted.items()]}


@pytest.mark.parametrize(
    ("record", "confirmed"),
    [
        (checks(a=True, b=True, c=True), ["mix", "depthwise"]),
        (checks(a=True, b=False, c=True), ["depthwise"]),  # one is wrong or slow
        (checks(a=True, c=False), []),  # one is missing
        (checks(), []),
    ],
)
def test_every_required_check_has_to_be_good(record, confirmed):
    assert card.confirms(record, REQUIRED) == confirmed


def test_no_kernel_is_confirmed_on_any_card_without_a_record():
    assert cards.main(["--check"]) == 0, "run `python benchmarks/cards.py`"
    rows = json.loads(card.CONFIRMED.read_text())["cards"]
    assert bool(rows) == bool(cards.read(cards.RESULTS))


@pytest.fixture
def confirmed_file(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "CONFIRMED", tmp_path / "confirmed.json")
    card.confirmed.cache_clear()
    yield tmp_path / "confirmed.json"
    card.confirmed.cache_clear()


def row(**changed: object) -> str:
    return json.dumps({"cards": [{"card": "NVIDIA H200", "kernels": card.kernels_digest(), "confirmed": ["mix"], **changed}]})


@pytest.mark.parametrize(
    ("text", "kernels"),
    [(row(), {"mix"}), (row(card="NVIDIA L4"), set()), (row(kernels="of another source"), set()), ("{", set()), ('{"cards": 3}', set())],
)
def test_a_confirmation_holds_for_its_card_and_source(text, kernels, confirmed_file, caplog):
    confirmed_file.write_text(text)
    assert card.confirmed("NVIDIA H200") == kernels
    assert bool(caplog.records) is ("kernels" not in text)


def test_the_digest_is_of_the_kernels_and_what_calls_them(tmp_path, monkeypatch):
    for path in [*Path(card.__file__).parent.glob("*.py"), *(Path(card.__file__).parents[1] / name for name in card.OPERATORS)]:
        copied = tmp_path / path.relative_to(Path(card.__file__).parents[1])
        copied.parent.mkdir(exist_ok=True)
        copied.write_bytes(path.read_bytes())
    monkeypatch.setattr(card, "__file__", str(tmp_path / "gpu/card.py"))
    before = card.kernels_digest.__wrapped__()
    assert before == card.kernels_digest()
    for name in ("gpu/norm.py", "depthwise.py"):
        (tmp_path / name).write_text("changed")
        assert card.kernels_digest.__wrapped__() != before
        before = card.kernels_digest.__wrapped__()


def test_a_file_is_named_after_card_and_everything_it_depends_on():
    one = card.Card("NVIDIA H200", "570.1", "2.14", "3.7", "0123")
    names = {replace(one, **{key: "other"}).file_name for key in asdict(one)} | {one.file_name}
    assert len(names) == 6 and one.file_name.startswith("nvidia-h200-")


@pytest.mark.parametrize("found", [None, "/bin/false", "/nonexistent"])
def test_a_driver_that_does_not_tell_is_unknown(found, monkeypatch):
    monkeypatch.setattr(card, "shutil", SimpleNamespace(which=lambda name: found))
    assert card.driver_version.__wrapped__() == "unknown"


def good_record() -> dict[str, object]:
    verdict = {"trusted": True, "reason": "", "error": 1e-3, "bound": 1e-2, "ours_ms": 1.0, "pytorch_ms": 2.0}
    return {
        "kind": "card", "format": 1, "date": "2026-11-30", "capability": "9.0", "memory_gib": 140, "processor": "p", "system": "s",
        "versions": {},
        "card": {"name": "NVIDIA H200", "driver": "570", "torch": "2", "triton": "3", "kernels": "0123"},
        "checks": [{"key": case.key, "kernel": case.kernel, **verdict} for case in published()],
    }  # fmt: skip


def test_a_record_that_is_added_turns_its_kernels_on(tmp_path):
    sent, places = tmp_path / "sent.json", {"results": tmp_path / "cards", "confirmed": tmp_path / "confirmed.json"}
    record = good_record()
    slow = copy.deepcopy(record)
    next(check for check in slow["checks"] if check["kernel"] == "multiply")["trusted"] = False
    sent.write_text(json.dumps(slow))
    assert cards.main([str(sent)], **places) == 0 and cards.main(["--check"], **places) == 0
    (row,) = json.loads(places["confirmed"].read_text())["cards"]
    assert row == {"card": "NVIDIA H200", "kernels": "0123", "date": "2026-11-30", "confirmed": [k for k in KERNELS if k != "multiply"]}
    sent.write_text(json.dumps(record | {"date": "2026-12-01"}))  # measured again: the later one counts
    assert cards.main([str(sent)], **places) == 0
    assert json.loads(places["confirmed"].read_text())["cards"][0]["confirmed"] == list(KERNELS)
    places["confirmed"].write_text("{}")
    assert cards.main(["--check"], **places) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "no record of a card in format 1"),
        ({"user": "somebody"}, "expected the keys"),
        ({"card": {"name": "x"}}, "in card"),
        ({"checks": []}, "expected at least one"),
        ({"checks": [{"key": "a"}]}, "each with the keys"),
    ],
)
def test_what_is_no_record_is_refused(change, message, tmp_path):
    (tmp_path / "sent.json").write_text(json.dumps(good_record() | change))
    with pytest.raises(SystemExit, match=message):
        cards.main([str(tmp_path / "sent.json")], results=tmp_path / "cards", confirmed=tmp_path / "confirmed.json")
    assert not (tmp_path / "cards").exists()


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="cannot be read"):
        cards.main([str(tmp_path / "missing.json")], results=tmp_path / "cards", confirmed=tmp_path / "confirmed.json")
