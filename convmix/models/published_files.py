"""Files with published weights: where each is, whether it is here already, how large it is, and bringing it here.

    name -> Place: a file of the Hub, or a URL -> in its cache? -> else size and hash asked for -> fetched, checked, in the cache

The caches are huggingface_hub's and torch.hub's, so a file that timm or another program fetched is found, and the other way round. A
download that breaks off goes on where it stopped, where the server gives parts of files. Nothing is asked of a network where
HF_HUB_OFFLINE is set.
"""

import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import torch

from convmix.cache import cache_dir
from convmix.data.remote import web
from convmix.errors import DataError, WeightsError
from convmix.models.published import PUBLISHED

TIMEOUT_S = 8.0  # for a connection and an answer about a file
HUB_ENDPOINT: str | None = None  # None: huggingface_hub's own
_HUB_FILE = "model.safetensors"
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+(?:\.\w+)?$")  # torch.hub's convention: the first digits of the SHA-256

Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where the published weights of a model are."""

    name: str  # of the model
    hub_id: str | None  # a repository of the Hub with model.safetensors; else
    url: str  # a file of its own

    @property
    def address(self) -> str:
        """For people, who may fetch it elsewhere."""
        return f"{_endpoint()}/{self.hub_id}" if self.hub_id else self.url


def place_of(name: str) -> Place | None:
    """Where the published weights of one of our models, or of timm's, are; None where nobody published any."""
    if name in PUBLISHED:
        return Place(name, PUBLISHED[name].hub_id, PUBLISHED[name].url)
    if ":" in name:
        return None
    from timm.models import get_pretrained_cfg, is_model

    try:
        found = get_pretrained_cfg(name) if is_model(name) else None
    except RuntimeError:  # an unknown tag: building the model says so
        return None
    hub_id, url = (getattr(found, key, None) or "" for key in ("hf_hub_id", "url"))
    return Place(name, hub_id or None, url) if hub_id or url else None


def cached(place: Place) -> Path | None:
    """The file where it is on this machine."""
    if place.hub_id:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(place.hub_id, _HUB_FILE)
        return Path(found) if isinstance(found, str) else None
    file = _of_url(place.url)
    return file if file.is_file() else None


def why_out_of_reach(place: Place) -> str:
    """Why the file could not be fetched now; "" where it could, or is here. Asks the server once at most, and waits for seconds only."""
    if cached(place) is not None:
        return ""
    if _offline():
        return "HF_HUB_OFFLINE is set"
    try:
        with _told(place):
            _size_and_hash(place)
    except WeightsError as error:
        cause = str(error).split("(", 1)[-1].rsplit(")", 1)[0]
        return f"it cannot be fetched ({cause})"
    return ""


def fetch(place: Place, *, say: Say = lambda text: None) -> Path:
    """The file, from the cache or fetched into it: its size is said before, its hash is checked where one is published.

    Raises WeightsError where it cannot be had, in one line with the address.
    """
    if (found := cached(place)) is not None:
        return found
    with _told(place):
        if _offline():
            raise OSError("HF_HUB_OFFLINE is set")
        size, digest = _size_and_hash(place)
        say(f"fetching the weights of {place.name}: {size / 1e6:.0f} MB from {place.address}, once")
        if place.hub_id:
            from huggingface_hub import hf_hub_download

            file = Path(hf_hub_download(place.hub_id, _HUB_FILE, etag_timeout=TIMEOUT_S, endpoint=_endpoint()))
        else:
            file = _download(place.url, _of_url(place.url))
        _check_hash(file, digest)
    return file


def _size_and_hash(place: Place) -> tuple[int, str]:
    """Bytes, and the first or all digits of the SHA-256, "" where none is published."""
    _check_reachable(_endpoint() if place.hub_id else "://".join(urlsplit(place.url)[:2]))
    if place.hub_id:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        of_file = get_hf_file_metadata(hf_hub_url(place.hub_id, _HUB_FILE, endpoint=_endpoint()), timeout=TIMEOUT_S)
        etag = of_file.etag or ""
        return of_file.size or 0, etag if re.fullmatch(r"[0-9a-f]{64}", etag) else ""  # the Hub's ETag of a large file is its SHA-256
    named = _HASH_IN_NAME.search(place.url)
    return web.ask(place.url).size, named.group(1) if named else ""


def _check_reachable(endpoint: str) -> None:
    """Raises OSError at once where nobody answers: the Hub's own client retries for half a minute."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError as e:  # an answer, whatever it says
        e.close()


def _download(url: str, file: Path) -> Path:
    """The file of `url`, complete; what there is of it stays where the server can give the rest another time."""
    from filelock import FileLock

    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(cache_dir("locks") / f"{hashlib.blake2b(str(file).encode(), digest_size=8).hexdigest()}.lock"):
        facts = web.ask(url)
        version = hashlib.blake2b(facts.version.encode(), digest_size=8).hexdigest()
        part = file.with_name(f"{file.name}.{version}.part")
        if not facts.ranges:
            part.unlink(missing_ok=True)
        try:
            with part.open("ab") as out:
                for piece in web.read(url, start=out.tell(), end=facts.size, facts=facts) if out.tell() < facts.size else ():
                    out.write(piece)
            part.replace(file)
        finally:
            if not facts.ranges:
                part.unlink(missing_ok=True)
    return file


def _check_hash(file: Path, digest: str) -> None:
    """OSError, and no file, where the SHA-256 does not begin with `digest`."""
    if not digest:
        return
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if not found.startswith(digest):
        file.resolve().unlink()
        file.unlink(missing_ok=True)
        raise OSError(f"its SHA-256 is {found[:16]}... and was published as {digest[:16]}...; it is thrown away")


def _of_url(url: str) -> Path:
    """Its place in torch.hub's cache."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def _endpoint() -> str:
    from huggingface_hub import constants

    return HUB_ENDPOINT or constants.ENDPOINT


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@contextmanager
def _told(place: Place) -> Iterator[None]:
    """WeightsError in a line for what the clients raise."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except (OSError, HfHubHTTPError, HFValidationError, ValueError, HTTPException, DataError) as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:160]
        raise WeightsError(
            f"the weights of {place.name} could not be fetched from {place.address} ({reason}); "
            "fetch the file elsewhere and give it with --weights FILE (Python: weights=FILE)"
        ) from None
