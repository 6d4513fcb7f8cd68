"""Places that are URLs: which file system they are in, and what of them may be written down.

    https://ann:secret@host/set/train-0.tar?signature=...  ->  redact  ->  https://host/set/train-0.tar, which runs and messages say
    https://host/set/train-0.tar                           ->  restore   ->  what the user gave, which requests are made with

What is taken out stays in this process's memory: no file of a run holds it, and who resumes or evaluates gives it again.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from convmix.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

WEB = frozenset(("http", "https"))
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_given: dict[str, str] = {}  # URL without credentials -> as it was given


def is_url(place: str) -> bool:
    return _SCHEME.match(place) is not None


def scheme(url: str) -> str:
    match = _SCHEME.match(url)
    return match.group(1).lower() if match else "file"


def without_credentials(url: str) -> str:
    """The URL without what may open a door: of http all of user:password@ and ?signature; of other schemes the password, since theirs
    name accounts (abfs://container@account) and match with `?`."""
    if not is_url(url):
        return url
    if scheme(url) not in WEB:
        return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1@", url)
    return re.sub(r"^([^:]+://)(?:[^/?#]*@)?([^?#]*).*", r"\1\2", url, flags=re.DOTALL)


def redact(place: str | Path) -> str:
    """A place as it may be written down; where it is a URL, `restore` gives the rest of it back in this process."""
    told = os.fspath(place)
    shown = without_credentials(told)
    if shown != told:
        _given[shown] = told
    return shown


def restore(place: str) -> str:
    """The URL as this process was given it."""
    return _given.get(place, place)


def file_system(url: str) -> "tuple[AbstractFileSystem, str]":
    """The file system of a URL, and the path in it. ConfigError for a scheme that is unknown or whose package is missing.

    To be asked for anew after a fork: a connection belongs to one process.
    """
    import fsspec

    shown = without_credentials(url)
    try:
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)  # a cache of millions of names would stay in memory
    except ImportError as error:
        raise ConfigError(f"{shown}: {str(error).rstrip('.')}; {scheme(url)}:// is read through a package of its own") from None
    except ValueError:
        hint = did_you_mean(scheme(url), fsspec.available_protocols())
        raise ConfigError(f"{shown}: no file system is called {scheme(url)}{hint}; expected s3, gs, abfs or another of fsspec's") from None
    return fs, path
