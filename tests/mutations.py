"""Which faults would the tests notice? Puts them into a copy of the repository one by one and runs the tests that should fail.

    python tests/mutations.py                         all of them, an hour or more
    python tests/mutations.py --only resume-position  some by name; --list names all
    python tests/mutations.py --record before.json    written after every mutation; asked again, what did not change is not run again
    python tests/mutations.py --repo OTHER            the same faults in another checkout, with its own tests

The faults are in the `mutation_table_*.py` beside this file. No part of the suite: a fault that nobody notices is a test to be written.
"""

import argparse
import difflib
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from mutation import Mutation

HERE = Path(__file__).resolve().parent
LEAST_TIMEOUT_S, LONGEST_S = 180.0, 3600.0
TIMES_SLOWER = 6.0  # than without the fault, before a run counts as hanging; other work on the machine is part of it
HANGS = "timeout"
CAUGHT, SURVIVED = "caught", "SURVIVED"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
LIBRARIES = (
    "pytest", "hypothesis", "schemathesis", "torch", "torchvision", "timm", "pandas", "pyarrow.parquet", "datasets", "scipy.stats",
    "sklearn.metrics", "matplotlib.pyplot", "cyclopts", "accelerate", "safetensors.torch", "faster_coco_eval", "tifffile", "filelock",
    "fsspec", "rich.progress",
)  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """What became of a run of pytest."""

    status: int | None  # pytest's own; negative for a signal; None after a timeout
    passed: int
    failed: tuple[str, ...]  # node ids
    elapsed_s: float
    said: str  # the end of its output


@dataclass
class Record:
    """What was found so far, kept in a file where one is named."""

    path: Path | None
    unmutated: dict[str, dict[str, Any]] = field(default_factory=dict)  # node id -> digest, passed, elapsed_s, said
    mutations: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> digest, outcome, by, elapsed_s

    @classmethod
    def read(cls, path: Path | None) -> "Record":
        """Tests that failed unmutated are asked again: a busy machine may have been why."""
        held = json.loads(path.read_text()) if path and path.exists() else {"unmutated": {}, "mutations": {}}
        unmutated = {node: ran for node, ran in held["unmutated"].items() if ran["passed"]}
        return cls(path, unmutated, {name: it for name, it in held["mutations"].items() if it["outcome"] in (CAUGHT, SURVIVED)})

    def write(self) -> None:
        """Whole or not at all."""
        if self.path is not None:
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps({"unmutated": self.unmutated, "mutations": self.mutations}, indent=1, sort_keys=True) + "\n")
            part.replace(self.path)


class Copy:
    """A copy of a checkout, whose own tests import it and no installed package."""

    def __init__(self, repo: Path, place: Path) -> None:
        self.root, self.cache, self.temporary, self.output = (place / name for name in ("repo", "cache", "t", "output.txt"))
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=repo, capture_output=True, text=True, check=True
        )
        for name in set(listing.stdout.split("\0")) - {""}:
            if (repo / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(repo / name, self.root / name)
        shared = Path(os.environ.get("CONVMIX_SHARED", repo.parent / "shared"))
        self.environment = os.environ | {
            "PYTHONPATH": str(self.root), "CONVMIX_SHARED": str(shared.resolve()), "CONVMIX_CACHE": str(self.cache),
            "TMPDIR": str(self.temporary), **ONE_THREAD,
        }  # fmt: skip
        where = subprocess.run(
            [sys.executable, "-c", "import convmix; print(convmix.__file__)"],
            cwd=place,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if not Path(where.stdout.strip()).is_relative_to(self.root):
            sys.exit(f"tests would import {where.stdout.strip() or where.stderr}, not the copy")

    def text(self, name: str) -> str:
        """A file of the copy; "" where there is none."""
        path = self.root / name
        return path.read_text() if path.is_file() else ""

    @contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[None]:
        """With the fault inside; its time of change comes back too, so that no stale bytecode is run."""
        path = self.root / "convmix" / mutation.file
        text, status = path.read_text(), path.stat()
        path.write_text(text.replace(mutation.old, mutation.new))
        try:
            yield
        finally:
            path.write_text(text)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def run(self, node_ids: Sequence[str], *, timeout_s: float, until_failure: bool) -> Ran:
        self._forget()
        # in one process and with a summary, whatever pyproject.toml asks for
        arguments = ["-o", "addopts=", "-q", "-rfE", "-p", "no:cacheprovider", f"--basetemp={self.temporary / 'pytest'}"]
        arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning", *node_ids]  # of plugins that came with the libraries
        began = time.monotonic()
        process = os.fork()
        if not process:
            self._become_pytest([*arguments, *(["-x"] if until_failure else [])])
        try:
            status = _status(process, timeout_s)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)  # with what the tests left running
        output = self.output.read_text(errors="replace")
        passed = re.search(r"(\d+) passed", output)
        failed = tuple(m[1] for m in re.finditer(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", output, flags=re.MULTILINE))
        return Ran(status, int(passed[1]) if passed else 0, failed, time.monotonic() - began, output[-2000:])

    def _become_pytest(self, arguments: list[str]) -> NoReturn:
        """The rest of a forked process: as if Python had been started in the copy, but for the libraries that are imported already."""
        status = 3
        try:
            os.setsid()
            os.chdir(self.root)
            with self.output.open("wb") as file, Path(os.devnull).open("rb") as nothing:
                for number, stream in ((nothing, 0), (file, 1), (file, 2)):
                    os.dup2(number.fileno(), stream)
            os.environ.update(self.environment)
            tempfile.tempdir = None
            sys.modules["__main__"] = ModuleType("__main__")  # spawned processes would import this file
            sys.path[:] = [str(self.root), *(path for path in sys.path if path != str(HERE))]
            import pytest

            status = int(pytest.main(arguments))
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)

    def _forget(self) -> None:
        """Choices that were measured on other code. Compiled kernels stay: their names hold a digest of their source."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        for kept in self.cache.iterdir() if self.cache.is_dir() else ():
            if kept.name != "kernels":
                shutil.rmtree(kept)


def _status(process: int, timeout_s: float) -> int | None:
    """How a child ended; None, and it is killed, where it did not."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def import_libraries() -> None:
    """What nearly every test imports, once: eight seconds of a run that takes ten. None of it is ours."""
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)


def table() -> list[Mutation]:
    """All mutations, by file of the table."""
    found: list[Mutation] = []
    for path in sorted(HERE.glob("mutation_table_*.py")):
        found += importlib.import_module(path.stem).MUTATIONS
    names = [m.name for m in found]
    if twice := {name for name in names if names.count(name) > 1}:
        sys.exit(f"two mutations are called {', '.join(sorted(twice))}")
    return found


def chosen(mutations: list[Mutation], only: Sequence[str]) -> list[Mutation]:
    by_name = {m.name: m for m in mutations}
    for name in only:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.0)
            sys.exit(f"no mutation is called {name}, did you mean {near[0]}?")
    return [by_name[name] for name in only] if only else mutations


def digest_of(copy: Copy, node_ids: Sequence[str], *parts: str) -> str:
    """Of what an outcome depends on, as far as one can tell cheaply: the tests' own files and `parts`."""
    texts = [*parts, *node_ids, *(copy.text(name) for name in sorted({node.split("::")[0] for node in node_ids}))]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def check_unmutated(copy: Copy, node_ids: Sequence[str], record: Record) -> str | None:
    """Why tests prove nothing: they fail as it is, or none is run. Each is asked once."""
    for node in node_ids:
        digest = digest_of(copy, [node])
        if record.unmutated.get(node, {}).get("digest") != digest:
            ran = copy.run([node], timeout_s=LONGEST_S, until_failure=False)
            good = ran.status == 0 and ran.passed
            said = "" if good else ", ".join(ran.failed) or (ran.said.strip().splitlines() or ["it says nothing"])[-1]
            record.unmutated[node] = {"digest": digest, "passed": ran.passed if good else 0, "elapsed_s": ran.elapsed_s, "said": said}
            record.write()
        if not record.unmutated[node]["passed"]:
            return record.unmutated[node]["said"]
    return None


def judge(copy: Copy, mutation: Mutation, record: Record) -> dict[str, Any]:
    """outcome: CAUGHT, SURVIVED, "did not apply" or "tests fail unmutated"; by: what noticed it, or why not."""
    count = copy.text(f"convmix/{mutation.file}").count(mutation.old)
    if count != 1:
        return {"outcome": "did not apply", "by": f"the old line stands {count} times in convmix/{mutation.file}", "elapsed_s": 0.0}
    if (reason := check_unmutated(copy, mutation.node_ids, record)) is not None:
        return {"outcome": "tests fail unmutated", "by": reason, "elapsed_s": 0.0}
    usual_s = sum(record.unmutated[node]["elapsed_s"] for node in mutation.node_ids)
    with copy.mutated(mutation):
        ran = copy.run(mutation.node_ids, timeout_s=max(LEAST_TIMEOUT_S, TIMES_SLOWER * usual_s), until_failure=True)
    if ran.status == 0:
        outcome, by = SURVIVED, f"{ran.passed} tests passed"
    elif ran.status is None:
        outcome, by = CAUGHT, f"{HANGS} after {ran.elapsed_s:.0f} s"
    else:
        outcome, by = CAUGHT, ran.failed[0] if ran.failed else f"pytest's end with status {ran.status}"
    return {"outcome": outcome, "by": by, "elapsed_s": ran.elapsed_s}


def totals(mutations: list[Mutation], record: Record) -> str:
    lines = [f"{'folder':<16} {'caught':>6} of"]
    for folder in sorted({m.folder for m in mutations}):
        here = [m for m in mutations if m.folder == folder]
        lines.append(f"{folder:<16} {sum(record.mutations[m.name]['outcome'] == 'caught' for m in here):>6} {len(here)}")
    missed = [m for m in mutations if record.mutations[m.name]["outcome"] != CAUGHT]
    lines.append(f"{'all':<16} {len(mutations) - len(missed):>6} {len(mutations)}")
    return "\n".join([*lines, *(f"{record.mutations[m.name]['outcome']}: {m.name} (convmix/{m.file})" for m in missed)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these mutations alone")
    parser.add_argument("--list", action="store_true", help="print the table and run nothing")
    parser.add_argument("--repo", type=Path, default=HERE.parent, metavar="DIR", help="the checkout that is copied; this one by default")
    parser.add_argument("--record", type=Path, metavar="FILE", help="JSON of the outcomes, read first where it is there")
    asked = parser.parse_args()
    mutations = chosen(table(), asked.only)
    if asked.list:
        for m in mutations:
            print(f"{m.name}  convmix/{m.file}\n    - {m.old.strip()}\n    + {m.new.strip()}\n    {' '.join(m.node_ids)}")
        return 0
    record = Record.read(asked.record)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that nothing is left running, nor in the copy
    os.environ.update(ONE_THREAD)  # before torch is imported
    import_libraries()
    with tempfile.TemporaryDirectory(prefix="mutate-") as place:
        copy = Copy(asked.repo.resolve(), Path(place))
        for number, m in enumerate(mutations, start=1):
            digest = digest_of(copy, m.node_ids, m.old, m.new, copy.text(f"convmix/{m.file}"))
            if record.mutations.get(m.name, {}).get("digest") != digest:
                record.mutations[m.name] = judge(copy, m, record) | {"digest": digest}
                record.write()
            found = record.mutations[m.name]
            link = " by" if found["outcome"] == CAUGHT else ":"
            print(
                f"{number:>3}/{len(mutations)}  {m.name}: {found['outcome']}{link} {found['by']}  ({found['elapsed_s']:.0f} s)", flush=True
            )
    print(totals(mutations, record))
    return int(any(record.mutations[m.name]["outcome"] != CAUGHT for m in mutations))


if __name__ == "__main__":
    sys.exit(main())
