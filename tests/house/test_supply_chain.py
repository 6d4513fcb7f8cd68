"""What is installed is known: the lock file holds every package with its hashes, and what could not be audited is no clean bill."""

import re
import sys
import tomllib

import pytest

from tests.conftest import REPO

sys.path.insert(0, str(REPO / ".ci"))
import audit

LOCK = (REPO / "requirements.lock").read_text()
ENTRIES = re.split(r"\n(?=[a-z0-9])", re.sub(r"\A(#.*\n)+", "", LOCK))


def test_the_lock_file_holds_what_the_project_needs_each_with_hashes_and_names_no_index() -> None:
    locked = {}
    for entry in ENTRIES:
        head = re.match(r"([a-z0-9-]+)==(\S+)", entry)
        assert head and "--hash=sha256:" in entry, entry[:100]
        locked[head[1]] = tuple(map(int, re.findall(r"\d+", head[2])[:3]))
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    for name, least in re.findall(r"^([a-z0-9-]+)(?:\[\w+\])?>=([\d.]+)", "\n".join(needed), re.MULTILINE):
        assert locked[name] >= tuple(map(int, least.split("."))), f"{name} >= {least}: make lock"
    assert not re.search(r"https?://|file:|--index|--extra|--find|@ ", LOCK)


CLEAN = {"name": "a", "version": "1", "vulns": []}
KNOWN = {"name": "b", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}
UNASKED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([CLEAN], 0, "1 packages, no vulnerability known"),
        ([CLEAN, KNOWN], 1, "b 1: X-1, mended in 2"),
        ([CLEAN, UNASKED], 2, "error: 1 of 2 packages could not be audited, the first: not found"),
        ([KNOWN, UNASKED], 2, "b 1: X-1, mended in 2\nerror: 1 of 2 packages"),
    ],
)
def test_an_audit_says_what_is_known_and_what_could_not_be_found_out(packages: list[dict[str, object]], code: int, words: str) -> None:
    ended, said = audit.verdict({"dependencies": packages})
    assert ended == code and words in said
