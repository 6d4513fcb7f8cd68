"""Every planted fault is found, and the clean photos are left alone."""

from collections import defaultdict

import pytest
from planted import Planted

from convmix.audit.doctor import Examination
from convmix.audit.finding import KINDS

EXACT = ("truncated", "unreadable", "no example", "EXIF rotation", "odd mode", "wrong extension", "tiny", "extreme aspect", "constant",
         "near-constant", "duplicate", "leak", "label conflict")  # fmt: skip


def found(examined: Examination) -> dict[str, set[str]]:
    names: dict[str, set[str]] = defaultdict(set)
    for f in examined.findings:
        names[f.kind].add(f.image)
    return names


@pytest.mark.parametrize("kind", EXACT)
def test_every_planted_fault_is_found(examined: Examination, planted: Planted, kind: str) -> None:
    assert planted.names[kind] - found(examined)[kind] == set()


@pytest.mark.parametrize("kind", ["duplicate", "leak", "label conflict", "near duplicate", "near leak"])
def test_copies_are_named_with_their_original(examined: Examination, planted: Planted, kind: str) -> None:
    pairs = {frozenset((f.image, f.other)) for f in examined.findings if f.kind == kind}
    missing = {pair for pair in planted.pairs[kind] if frozenset(pair) not in pairs}
    assert len(missing) <= 0.05 * len(planted.pairs[kind]), missing


def test_in_a_leak_the_first_named_is_the_held_out_image(examined: Examination) -> None:
    leaks = [f for f in examined.findings if f.kind in ("leak", "near leak")]
    assert leaks and all((f.split, f.other_split) == ("test", "train") for f in leaks)
    assert all(f.image.startswith("test/") and f.other.startswith("train/") for f in leaks)


@pytest.mark.parametrize("kind", [*EXACT[:10], "label conflict", "duplicate", "leak"])
def test_nothing_else_is_accused(examined: Examination, planted: Planted, kind: str) -> None:
    # One file may show two faults: a palette is a mode and grey, a grey near copy is a mode.
    planted_ones = {name for names in planted.names.values() for name in names}
    accused = found(examined)[kind] - planted.names[kind]
    assert {name for name in accused if name in planted.clean} == set()
    assert accused <= planted_ones
    allowed = {"odd mode": 3, "tiny": 0, "wrong extension": 0, "unreadable": 0, "truncated": 0}
    assert len(accused) <= allowed.get(kind, 0), accused


def test_near_copies_among_clean_photos_are_rare(examined: Examination, planted: Planted) -> None:
    near = [f for f in examined.findings if f.kind.startswith("near ") and {f.image, f.other} <= planted.clean]
    assert len(near) <= 2, [(f.image, f.other, f.about) for f in near]


def test_kinds_are_listed_harmful_first(examined: Examination) -> None:
    severities = [KINDS[f.kind].severity for f in examined.findings]
    assert severities == sorted(severities)  # "harmful" < "look"
    assert list(examined.counts) == [kind for kind in KINDS if kind in examined.counts]
