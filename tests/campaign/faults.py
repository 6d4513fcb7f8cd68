"""A fault at every place where a verb touches the disk, asks for memory or has a process read for it: full disks, bad disks, kills, stops.

verb -> a run that notes each such place -> for each kind of place the faults that it can have -> one fork of this process per fault. What
comes out is success with the same files, or one sentence and exit code 2 (128 + the signal), and then the same command succeeds.
"""

import ctypes
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.campaign.forks import forked, import_everything
from tests.campaign.verbs import VERBS, Verb, copied_ground, make_ground

_READS, _WRITES, _ALLOCATIONS = 1, 2, 4
_SHORT, _KILL, _STOP, _SLOW, _INTERRUPT, _CLOCK, _TERMINATE = range(-1, -8, -1)
_SIGNALS = {_INTERRUPT: (130,), _TERMINATE: (143, -signal.SIGTERM), _KILL: (-signal.SIGKILL,)}
_ONCE_IN = {_ALLOCATIONS: 12}  # places with one name that are tried, evenly; of the others the first and the last
_LIMIT_S = 60.0
_NAMES = {
    _SHORT: "cut short",
    _KILL: "kill",
    _STOP: "stop",
    _SLOW: "slow",
    _INTERRUPT: "Ctrl-C",
    _CLOCK: "clock set back",
    _TERMINATE: "SIGTERM",
}


@dataclass(frozen=True)
class Place:
    """A call that a verb makes, the `number`-th of its kind."""

    verb: str
    kind: int  # _READS, _WRITES, _ALLOCATIONS
    number: int
    what: str  # operation and file


@dataclass(frozen=True)
class Shot:
    """One case."""

    place: Place
    fault: int  # an errno, or one of the above
    lasts: bool = False  # from then on
    whom: int = 0  # 0 anybody, 1 the process itself, 2 one that it started

    def __str__(self) -> str:
        name = _NAMES.get(self.fault) or errno.errorcode[self.fault]
        return f"{self.place.verb}: {name}{' that lasts' if self.lasts else ''} at {self.place.what}, {self.place.number}"


def environment(place: Path) -> dict[str, str]:
    """What a process needs to have faults injected: the compiled library before all others."""
    library = place / "faults.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}


def prepared(folder: Path) -> None:
    """The ground, a run of every verb without a fault, and the list of shots."""
    import_everything()
    code, said = forked(lambda: make_ground(folder / "ground"), folder / "said", limit_s=600)
    assert code == 0, said
    shots: list[Shot] = []
    reached = 0
    for name, verb in VERBS.items():
        places = _places(name, verb, folder)
        reached += len(places)
        shots += _shots(places, verb)
        print(f"faults: {name}: {len(places)} places", flush=True)
    random.Random(18).shuffle(shots)
    met: set[tuple[str, str, int, bool]] = set()
    shots.sort(key=lambda shot: _is_again(shot, met))  # a campaign that is cut short has had every kind once, where there was time for it
    (folder / "shots.json").write_text(json.dumps([asdict(shot) for shot in shots]))
    print(f"faults: {reached:,} places reached, {len(shots):,} faults to inject", flush=True)


def _is_again(shot: Shot, met: set[tuple[str, str, int, bool]]) -> bool:
    key = (shot.place.verb, shot.place.what, shot.fault, shot.lasts)
    again = key in met
    met.add(key)
    return again


def count(folder: Path) -> int:
    return len(json.loads((folder / "shots.json").read_text()))


def attack(folder: Path, rng: random.Random) -> tuple[str, str, int]:
    """What became of one fault; which one says the folder's name."""
    import_everything()
    written = json.loads((folder.parent / "prepared" / "shots.json").read_text())[int(folder.name.split("-")[1])]
    return fired(Shot(**{**written, "place": Place(**written["place"])}), folder, folder.parent / "prepared")


def fired(shot: Shot, folder: Path, prepared: Path) -> tuple[str, str, int]:
    """Outcome, words, cases."""
    verb = VERBS[shot.place.verb]
    ground = copied_ground(prepared / "ground", folder / "ground")
    code, said = _under(shot, verb, ground, folder / "said")
    if code is None:
        return "hang", str(shot), 1
    wrong = _what_is_wrong(code, said, shot)
    if wrong:
        return "traceback", f"{shot}: {wrong}", 1
    if code == 0:
        return _with_its_files(shot, verb, ground, prepared, "answered")
    for name in verb.stays:
        shutil.rmtree(ground / name, ignore_errors=True)
    again, words = forked(lambda: _run(verb, ground), folder / "said again", limit_s=_LIMIT_S)
    if again != 0:
        return "lost", f"{shot}: {code}, and then {again}: {_tail(words)}", 1
    return _with_its_files(shot, verb, ground, prepared, "refused" if code == 2 else "resumed")


def _what_is_wrong(code: int, said: str, shot: Shot) -> str:
    if "Traceback" in said or "Error: " in said.replace("error: ", ""):
        return _tail(said)
    if code in (0, *_SIGNALS.get(shot.fault, ())):
        return ""
    if code != 2:
        return f"exit code {code}: {_tail(said)}"
    return "" if said.count("error:") == 1 else f"{said.count('error:')} sentences: {_tail(said)}"


def _with_its_files(shot: Shot, verb: Verb, ground: Path, prepared: Path, good: str) -> tuple[str, str, int]:
    if missing := [name for name in verb.leaves if not (ground / name).is_file()]:
        return "lost", f"{shot}: no {missing[0]}", 1
    if shot.place.kind == _READS and shot.fault > 0 and good == "answered":
        return good, "", 1  # an image may have become a bad one, which the files then say
    whole = prepared / "whole" / shot.place.verb
    if other := [name for name in verb.same if _content(ground, name) != (whole / name).read_bytes()]:
        return "differs", f"{shot}: {other[0]}", 1
    return good, "", 1


def _content(ground: Path, file: str) -> bytes:
    """Without the name of this copy of the ground."""
    return (ground / file).read_bytes().replace(os.fsencode(ground), b"@")


def _places(name: str, verb: Verb, folder: Path) -> list[Place]:
    """Every place that the verb reaches; what it leaves is kept for comparison."""
    ground = copied_ground(folder / "ground", folder / "noted")
    notes = folder / "notes"
    descriptor = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)

    def noted() -> None:
        _shorten_waits()
        _arm(ground, kinds=_READS | _WRITES | _ALLOCATIONS, notes=descriptor)
        _run(verb, ground)

    code, said = forked(noted, folder / "said", limit_s=_LIMIT_S)
    os.close(descriptor)
    assert code == 0, f"{name}: {said}"
    for file in verb.same:
        kept = folder / "whole" / name / file
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(_content(ground, file))
    numbers: dict[tuple[int, str], int] = defaultdict(int)
    places = []
    for line in notes.read_text(errors="replace").splitlines():
        kind, operation, path, child = line.split("\t")
        whom = child if verb.workers else "0"
        key = (int(kind), whom)
        role = re.sub(r"\.\w{8}\.unfinished|[0-9a-f]{8,}|\d+", "#", path.removeprefix(f"{ground}"))
        places.append(Place(name, int(kind), numbers[key], f"{operation} {role}{' by a worker' if whom == '1' else ''}".strip()))
        numbers[key] += 1
    subprocess.run(["rm", "-rf", str(ground)], check=True)
    return places


def _shots(places: Sequence[Place], verb: Verb) -> list[Shot]:
    """The faults of the first and the last of all places with one name."""
    alike: dict[tuple[int, str], list[Place]] = defaultdict(list)
    for place in places:
        alike[place.kind, place.what].append(place)
    shots = []
    for (kind, what), some in alike.items():
        most = _ONCE_IN.get(kind, 2)
        picked = {round(i * (len(some) - 1) / max(1, most - 1)) for i in range(most)}
        by_worker = what.endswith("by a worker")
        whom = 0 if not verb.workers else 2 if by_worker else 1
        for place in (some[i] for i in sorted(picked)):
            shots += [Shot(place, fault, lasts, whom) for fault, lasts in _faults(kind, what.split()[0], by_worker=by_worker)]
    return shots


def _faults(kind: int, operation: str, *, by_worker: bool) -> list[tuple[int, bool]]:
    if by_worker:
        return [(errno.EIO, False), (_KILL, False), (_STOP, False), (_SLOW, False)]
    if kind == _ALLOCATIONS:
        return [(errno.ENOMEM, False), (errno.ENOMEM, True)]
    part = [(_SHORT, False), (errno.EINTR, False)] if operation in ("read", "write") else []
    if kind == _READS:
        return [(errno.EIO, False), *part, *([(errno.EMFILE, False), (errno.EINTR, False)] if operation == "open" else [])]
    ends = [(_KILL, False), (_INTERRUPT, False), (_TERMINATE, False), (_CLOCK, False), (errno.EIO, False)]
    return [*ends, *part] if operation in ("unlink", "chmod") else [*ends, *part, (errno.ENOSPC, False), (errno.ENOSPC, True)]


def _arm(ground: Path, *, kinds: int, at: int = -1, fault: int = 0, lasts: bool = False, whom: int = 0, notes: int = -1) -> None:
    library = ctypes.CDLL(None)
    library.faults_arm(os.fsencode(ground), kinds, ctypes.c_long(at), fault, int(lasts), whom, notes)


def _under(shot: Shot, verb: Verb, ground: Path, said: Path) -> tuple[int | None, str]:
    def run() -> None:
        _shorten_waits()
        _arm(ground, kinds=shot.place.kind, at=shot.place.number, fault=shot.fault, lasts=shot.lasts, whom=shot.whom)
        _run(verb, ground)

    return forked(run, said, limit_s=_LIMIT_S)


def _shorten_waits() -> None:
    """What takes five minutes otherwise; and few images are worth a process."""
    from convmix.data import delivery, parallel_map

    delivery.LOOK_S, delivery.SILENT_S, parallel_map.SMALL, parallel_map.STUCK_S = 1, 8.0, 1, 8.0


def _run(verb: Verb, ground: Path) -> None:
    from convmix.cli import main

    os.chdir(ground)
    try:
        main(verb.arguments(ground))
    finally:
        ctypes.CDLL(None).faults_disarm()


def _tail(said: str) -> str:
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()]
    places = [line for line in lines if line.startswith("File") and "/convmix/" in line]
    where = re.sub(r'File ".*/(convmix/[^"]+)", line (\d+), in (\w+)', r"\1:\2 \3", places[-1]) if places else ""
    return f"{where} {lines[-1][:250] if lines else ''}".strip()
