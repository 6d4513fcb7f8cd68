"""Shards that lie elsewhere: which ones a URL means, and their bytes, asked for again where a server is gone for a moment.

https://host/set/train-{000..009}.tar     web.py       a web server lists nothing, so the names are written out
s3://bucket/set/train-*.tar, gs://, ...   fsspec       patterns, and folders with their train/, val/ and test/
"""

import glob
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

from convmix.data.formats import SPLIT_WORDS, braces
from convmix.data.remote import web
from convmix.data.remote.urls import WEB, file_system, scheme, without_credentials
from convmix.errors import ConfigError, DataError, first_line

T = TypeVar("T")
AT_ONCE = 16  # requests
BRIEFLY = (0.5, 2.0)  # seconds between the attempts before the work has begun: a mistyped host is to be said soon
LONG = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # and in the middle of it: a server may begin again
_VERSIONS = ("ETag", "etag", "md5Hash", "crc32c", "content_settings", "mtime", "LastModified", "last_modified", "updated", "modified")


@dataclass(frozen=True)
class Shard:
    """A shard as it was when it was first asked for."""

    url: str  # credentials included: for requests alone
    size: int  # bytes
    version: str = ""  # another one where it was written again; "" where the store does not say
    ranges: bool = True  # whether parts of it can be asked for

    @property
    def name(self) -> str:
        """The URL as it may be written down."""
        return without_credentials(self.url)

    @property
    def path(self) -> PurePosixPath:
        """Host or bucket and the path in it."""
        return PurePosixPath(self.name.partition("://")[2])


def version_of(info: Mapping[str, Any]) -> str:
    """What fsspec says of a file that another content would change; "" where it says nothing."""
    return next((str(info[key]) for key in _VERSIONS if info.get(key) is not None), "")


def find(spec: str) -> list[Shard]:
    """The shards that a URL means. DataError where there are none, or where one that is named is missing."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        urls = [url for named in pool.map(_named, braces(spec)) for url in named]
        if not urls:
            raise DataError(
                f"{without_credentials(spec)}: has no shards; expected files whose names end in .tar, in it or in its train/, val/, test/"
            )
        return list(pool.map(_look, dict.fromkeys(urls)))


def read(shard: Shard, start: int, end: int) -> Iterator[bytes]:
    """Bytes start to end (excluded), piece by piece: whatever happens on the way, each once and in their order.

    Raises DataError where the shard is gone, refused or another one by now, or its store has been silent for about a minute.
    """
    pieces: Iterator[bytes] | None = None
    done = start

    def next_piece() -> bytes | None:
        nonlocal pieces
        if pieces is None:
            pieces = _pieces(shard, done, end)
        try:
            return next(pieces, None)
        except Exception:
            pieces = None
            raise

    while done < end:
        piece = patiently(next_piece, shard.name, waits=LONG)
        if piece is None:
            raise DataError(f"{shard.name}: ends after {done:,} bytes where it had {shard.size:,}")
        done += len(piece)
        yield piece


def small_file(url: str) -> bytes | None:
    """A file that is read whole, into memory; None where there is none, or none for us. DataError where the store fails."""

    def fetch() -> bytes:
        if scheme(url) in WEB:
            facts = web.ask(url)
            return b"".join(web.read(url, start=0, end=facts.size, facts=facts))
        fs, path = file_system(url)
        return bytes(fs.cat_file(path))

    try:
        return patiently(fetch, without_credentials(url), waits=LONG)
    except web.AbsentError:
        return None


def patiently(ask: Callable[[], T], name: str, *, waits: tuple[float, ...]) -> T:
    """What `ask` returns, tried again after each of `waits` seconds; DataError in a line at the end."""
    for wait in (*waits, None):
        try:
            return ask()
        except (DataError, ConfigError):
            raise
        except FileNotFoundError:
            raise web.AbsentError(f"{name}: there is no such file") from None
        except PermissionError:
            raise web.AbsentError(f"{name}: access is denied; {scheme(name)}:// takes its credentials from the environment") from None
        except Exception as error:  # each store's library has its own
            if wait is None:
                what = first_line(error) if isinstance(error, ConnectionError) else f"{type(error).__name__}: {first_line(error)}"
                raise DataError(f"{name}: {what}; tried {len(waits) + 1} times") from None
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _look(url: str) -> Shard:
    """What the store says of a shard now. Listings may say it in other words, so each is asked for by its name."""

    def ask() -> Shard:
        if scheme(url) in WEB:
            facts = web.ask(url)
            return Shard(url, facts.size, facts.version, facts.ranges)
        fs, path = file_system(url)
        info = fs.info(path)
        return Shard(url, int(info["size"]), version_of(info))

    return patiently(ask, without_credentials(url), waits=BRIEFLY)


def _named(url: str) -> list[str]:
    """The URLs of the shards that a URL without braces means."""
    if scheme(url) in WEB:
        _check_web_name(without_credentials(url))
        return [url]
    return patiently(lambda: _listed(url), without_credentials(url), waits=BRIEFLY)


def _listed(url: str) -> list[str]:
    fs, path = file_system(url)
    if glob.has_magic(path):
        infos = [info for info in fs.glob(path, detail=True).values() if info["type"] == "file"]
    elif path.lower().endswith(".tar"):
        return [url]
    else:
        infos = _in_folder(fs, path)
    whole = url.rstrip("/")
    before = whole.removesuffix(path) if whole.endswith(path) else f"{scheme(url)}://"  # what stands before the file system's names
    return sorted(f"{before}{info['name']}" for info in infos if str(info["name"]).lower().endswith(".tar"))


def _in_folder(fs: Any, folder: str) -> list[Any]:
    """The files of a folder and of those in it that are called data or like a split, as of local folders."""
    try:
        infos = fs.ls(folder, detail=True)
    except FileNotFoundError:
        return []
    inner = [i["name"] for i in infos if i["type"] == "directory" and PurePosixPath(i["name"]).name.lower() in {"data", *SPLIT_WORDS}]
    return [i for i in infos if i["type"] == "file"] + [i for name in inner for i in fs.ls(name, detail=True) if i["type"] == "file"]


def _check_web_name(shown: str) -> None:
    if shown.endswith("/"):
        raise DataError(f"{shown}: a web server does not list what it has; name the shards, such as {shown}train-{{000..009}}.tar")
    if not shown.lower().endswith(".tar"):
        raise DataError(f"{shown}: of what lies behind URLs only WebDataset shards are read: plain .tar files; unpack compressed ones")
    if "*" in shown:
        raise DataError(f"{shown}: a web server does not list what it has; name the shards, as in train-{{000..009}}.tar")


def _pieces(shard: Shard, start: int, end: int) -> Iterator[bytes]:
    if scheme(shard.url) in WEB:
        facts = web.RemoteFile(shard.size, shard.version, shard.ranges)
        with closing(web.read(shard.url, start=start, end=end, facts=facts)) as pieces:
            yield from pieces
        return
    fs, path = file_system(shard.url)
    if version_of(fs.info(path)) != shard.version:
        raise DataError(f"{shard.name}: has changed since it was first looked at; start again")
    while start < end:
        piece = bytes(fs.cat_file(path, start=start, end=min(end, start + 16 * web.PIECE)))
        if not piece:
            return
        start += len(piece)
        yield piece
