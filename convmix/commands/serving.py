"""A trained model for other programs and for people: serve."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from convmix.artifacts.runtime import digests
from convmix.commands.derived import VERIFY, Also, Changes, Work, command
from convmix.errors import ConfigError

_LIMITS = (
    Also("batch_size", int, 32, "Images that are computed at once, at most, of however many requests."),
    Also("batch_wait_ms", float, 4.0, "How long an image waits for others to be computed with."),
    Also("queue", int, 256, "Images that may wait; beyond it clients are asked to come back later (429)."),
    Also("images", int, 32, "Images in one request, at most."),
    Also("image_mb", float, 20.0, "MiB of one encoded image, at most."),
    Also("request_mb", float, 64.0, "MiB of one request, at most."),
    Also("megapixels", float, 50.0, "Of one image, at most, in millions."),
    Also("time_s", float, 30.0, "Seconds for a request to arrive, and again to be answered."),
    Also("connections", int, 1000, "Clients at once, at most; those that have asked nothing make room for others."),
    Also("head_s", float, 10.0, "Seconds for a client to say what it wants."),
    Also("idle_s", float, 5.0, "Seconds for which a connection is kept after an answer."),
)
_KEY = Also(
    "api_key_file", Path | None, None,
    "A file with the key that clients must show; the environment variable CONVMIX_API_KEY does the same.",
)  # fmt: skip


@command(
    Work("serving.server", "serve"),
    Changes(
        also=(*_LIMITS, _KEY, VERIFY),
        aliases={"allow_origins": "--allow-origin", "allow_hosts": "--allow-host"},
        without=("api_key",),  # which other users of the machine could read in the list of processes
    ),
)
def serve(given: dict[str, Any]) -> None:
    """Answer HTTP requests about images, and show a page to try the model on."""
    if not given.pop("verify"):
        digests.skip()
    from convmix.serving import server
    from convmix.serving.limits import MIB, RequestLimits

    in_bytes = {name: round(given.pop(mib) * MIB) for name, mib in (("image_bytes", "image_mb"), ("request_bytes", "request_mb"))}
    named = {f.name: given.pop(f.name) for f in fields(RequestLimits) if f.name in given}
    limits = RequestLimits(**in_bytes, pixels=round(given.pop("megapixels") * 1e6), **named)
    key = given.pop("api_key_file")
    server.serve(given.pop("run"), **given, limits=limits, api_key=None if key is None else _key(key))


def _key(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api-key-file: {file} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
