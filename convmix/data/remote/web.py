"""Files behind http and https, by the standard library alone: how large a file is, which version, and its bytes from any place on.

Only GET is used, since a signed URL is signed for one method. What will not be better a moment later is a DataError, the rest an OSError.
"""

import http.client
import netrc
import re
import ssl
from base64 import b64encode
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from convmix.data.remote.urls import without_credentials
from convmix.errors import DataError

TIMEOUT_S = 60.0  # of silence
PIECE = 1 << 20  # bytes
_LATER = frozenset((408, 425, 429, 500, 502, 503, 504))


class AbsentError(DataError):
    """A file that is not there, or that one may not have: stores that hide what they have say the one for the other."""


@dataclass(frozen=True)
class RemoteFile:
    """What a server says of a file."""

    size: int  # bytes
    version: str  # another one where the file was written again; "" where the server does not say
    ranges: bool  # whether parts can be asked for


def ask(url: str) -> RemoteFile:
    """One request, of which the headers alone are read."""
    with _get(url, 0, 1) as answer:
        ranges = answer.status == HTTPStatus.PARTIAL_CONTENT
        size = _whole_size(answer)
        if size is None:
            raise DataError(f"{without_credentials(url)}: the server does not say how large it is (no Content-Length)")
        return RemoteFile(size, _version(answer), ranges)


def read(url: str, *, start: int, end: int, facts: RemoteFile) -> Generator[bytes, None, None]:
    """Bytes start to end (excluded), piece by piece; of a server that gives no parts the bytes before are read and thrown away.

    Raises DataError where the file is no longer the one that `facts` are about, ConnectionError where it breaks off.
    """
    with _get(url, start, end) as answer:
        if _whole_size(answer) != facts.size or _version(answer) != facts.version:
            raise DataError(f"{without_credentials(url)}: has changed since it was first looked at; start again")
        skip = 0 if answer.status == HTTPStatus.PARTIAL_CONTENT else start
        left = end - start
        while left:
            piece = answer.read(min(PIECE, skip or left))
            if not piece:
                raise ConnectionError(f"the connection ended {left:,} bytes too early")
            if skip:
                skip -= len(piece)
                continue
            left -= len(piece)
            yield piece


@contextmanager
def _get(url: str, start: int, end: int) -> Iterator[Any]:
    """The answer to a request for bytes start to end; 200 where the server gives the whole file all the same."""
    address, password = _login(url)
    headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity", "User-Agent": "convmix"}
    request = Request(address, headers=headers)
    if password:
        request.add_unredirected_header("Authorization", password)  # another server that this one points to does not get it
    shown = without_credentials(url)
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            yield answer
    except HTTPError as error:
        with error:
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and _whole_size(error) == 0:
                yield error  # an empty file has no first byte
                return
            said = f"{error.code} {HTTPStatus(error.code).phrase}" if error.code in set(HTTPStatus) else str(error.code)
        if error.code in _LATER:
            raise ConnectionError(f"the server answers {said}") from None
        if error.code in (401, 403):
            raise AbsentError(
                f"{shown}: access is denied ({said}); give the URL with its signature or user:password@, or use .netrc"
            ) from None
        if error.code in (404, 410):
            raise AbsentError(f"{shown}: there is no such file ({said})") from None
        raise DataError(f"{shown}: the server refuses ({said})") from None
    except ssl.SSLCertVerificationError as error:
        raise DataError(f"{shown}: the server's certificate is not to be trusted: {error.verify_message}") from None
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DataError(f"{shown}: the server's certificate is not to be trusted: {error.reason.verify_message}") from None
        raise ConnectionError(f"the server cannot be reached ({getattr(error.reason, 'strerror', None) or error.reason})") from None
    except ValueError:  # http.client.InvalidURL is one too
        raise DataError(f"{shown}: is no URL that can be asked for") from None
    except http.client.HTTPException as error:
        raise ConnectionError(f"the server does not speak HTTP as expected ({type(error).__name__})") from None


def _login(url: str) -> tuple[str, str | None]:
    """The address without user:password@, its path quoted, and what to say who asks; from .netrc where the URL says nothing."""
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    address = urlunsplit((parts.scheme, host, quote(parts.path, safe="/%:=~+,;@!$&'()*"), parts.query, ""))
    if not login:
        try:
            known = netrc.netrc().authenticators(parts.hostname or "")
        except (OSError, netrc.NetrcParseError):
            known = None
        login = f"{quote(known[0], safe='')}:{quote(known[2] or '', safe='')}" if known else ""
    return address, f"Basic {b64encode(unquote(login).encode()).decode()}" if login else None


def _whole_size(answer: Any) -> int | None:
    """Bytes of the file, of which the answer may hold a part."""
    of_parts = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", answer.headers.get("Content-Range", ""))
    if of_parts:
        return int(of_parts.group(1))
    told = answer.headers.get("Content-Length", "")
    return int(told) if told.isdigit() and answer.status == HTTPStatus.OK else None


def _version(answer: Any) -> str:
    return str(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
