"""Damage, drawn from a seed: to bytes, to the parts of a file that have a meaning, and to JSON."""

import copy
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

ODD_NUMBERS = (0, -1, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, -(2**63), 10**30, 1e308, -1e308, 0.5, 10**400)
ODD_TEXTS = (
    "", " ", "\0", "..", "../../../../etc/passwd", "/dev/zero", "CON", "a" * 5000, "\ud800", "\u202e", "=1+1", "<script>alert(1)</script>",
    "\x1b[2J", "%s%n", "nan", "1e999", "null", "file:///etc/passwd", "http://127.0.0.1:1/x.png", "💥" * 50, "a\nb", "'; DROP TABLE x; --",
)  # fmt: skip


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A file with one to four kinds of damage, those of its own format among them."""
    for _ in range(rng.randint(1, 4)):
        content = rng.choice(_BYTES)(content, rng)
        if content.startswith(b"\x89PNG") and rng.random() < 0.6:
            content = _png(content, rng)
        elif content.startswith(b"\xff\xd8") and rng.random() < 0.6:
            content = _jpeg(content, rng)
    return content[: 2**22]


def _flip(b: bytes, rng: random.Random) -> bytes:
    changed = bytearray(b)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(b: bytes, rng: random.Random) -> bytes:
    return b[: rng.randrange(len(b) + 1)]


def _remove(b: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(b) + 1)
    return b[:at] + b[at + rng.choice((1, 2, 4, 100)) :]


def _insert(b: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(b) + 1)
    return b[:at] + rng.choice((b"\0" * 16, b"\xff" * 16, rng.randbytes(50), b"%PDF-1.7", b"PK\5\6", b"<html>")) + b[at:]


def _repeat(b: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(b) + 1), rng.choice((8, 100, 1000))
    return b[:at] + b[at : at + size] * rng.choice((2, 20)) + b[at + size :]


def _number(b: bytes, rng: random.Random) -> bytes:
    """Two or four bytes that may be a length, a size or an offset."""
    size = rng.choice((2, 4))
    if len(b) <= size:
        return b
    at = rng.randrange(min(len(b) - size, rng.choice((64, len(b)))))
    value = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, len(b))) % 256**size
    return b[:at] + value.to_bytes(size, rng.choice(("big", "little"))) + b[at + size :]


_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (_flip, _flip, _cut, _remove, _insert, _repeat, _number, _number)


def _png(b: bytes, rng: random.Random) -> bytes:
    """A chunk changed, its checksum right, so that the damage is met behind the check."""
    chunks, at = [], 8
    while at + 12 <= len(b) and len(chunks) < 1000:
        length = int.from_bytes(b[at : at + 4])
        chunks.append((b[at + 4 : at + 8], b[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return b
    i = rng.randrange(len(chunks))
    kind, body = chunks[i]
    what = rng.randrange(5)
    if what == 0:
        chunks[i] = kind, _flip(body, rng)
    elif what == 1:
        chunks.insert(i, (kind, body))
    elif what == 2:
        del chunks[i]
    elif what == 3 and kind == b"IHDR" and len(body) == 13:
        fields = list(struct.unpack(">IIBBBBB", body))
        field = rng.randrange(7)
        fields[field] = rng.choice((0, 1, 3, 1000, 30_000, 2**31 - 1)) if field < 2 else rng.randrange(256)
        chunks[i] = kind, struct.pack(">IIBBBBB", *fields)
    else:
        chunks[i] = kind, zlib.compress(b"\0" * rng.choice((0, 1, 10**6)))
    return b[:8] + b"".join(
        len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4) for kind, body in chunks
    )  # fmt: skip


def _jpeg(b: bytes, rng: random.Random) -> bytes:
    """A size or a table of its segments changed."""
    markers = [i for i in range(len(b) - 9) if b[i] == 0xFF and b[i + 1] in (0xC0, 0xC2, 0xC4, 0xDB, 0xDA, 0xE1)]
    if not markers:
        return b
    at = rng.choice(markers)
    changed = bytearray(b)
    for offset in rng.sample(range(2, 9), rng.randint(1, 3)):
        changed[at + offset] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
    return bytes(changed)


def mutated_json(value: Any, rng: random.Random) -> Any:
    """A deep copy with one to three of its values changed, wherever they are."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(value, ()))
        if not places:
            return _odd(value, rng)
        *way, last = rng.choice(places)
        inner = value
        for step in way:
            inner = inner[step]
        what = rng.randrange(6)
        if what == 0:
            del inner[last]
        elif what == 1 and isinstance(inner, list):
            inner.extend([inner[last]] * rng.choice((1, 1000)))  # no copies: it may be nested deeper than Python copies
        elif what == 2 and isinstance(inner, dict):
            inner[rng.choice(ODD_TEXTS)] = inner.pop(last)
        else:
            inner[last] = _odd(inner[last], rng)
    return value


def _places(value: Any, way: tuple[Any, ...]) -> Any:
    if len(way) > 40:  # within what an earlier change has nested; the ways to its depths alone would take minutes
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*way, key)
        yield from _places(inner, (*way, key))


def _odd(value: Any, rng: random.Random) -> Any:
    deep: Any = 0
    for _ in range(rng.choice((3, 50, 900))):
        deep = [deep]
    near = [value * 2, -value, value + 0.5] if isinstance(value, (int, float)) and not isinstance(value, bool) else [[value], {"a": value}]
    return rng.choice([None, True, [], {}, deep, rng.choice(ODD_NUMBERS), rng.choice(ODD_NUMBERS), rng.choice(ODD_TEXTS), *near])


def as_text(value: Any) -> bytes:
    """JSON as a careless program writes it: NaN, lone surrogates and huge numbers included."""
    try:
        return json.dumps(value).encode()
    except RecursionError:  # a list in a list, several times nested anew
        return b"[" * 5000 + b"]" * 5000
