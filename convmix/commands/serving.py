"""A trained model for other programs and for people: serve."""

from pathlib import Path

from convmix.artifacts.runtime import digests
from convmix.errors import ConfigError


def serve(
    run: Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    batch_size: int = 32,
    batch_wait_ms: float = 4.0,
    queue: int = 256,
    images: int = 32,
    image_mb: float = 20.0,
    request_mb: float = 64.0,
    megapixels: float = 50.0,
    time_s: float = 30.0,
    connections: int = 1000,
    head_s: float = 10.0,
    idle_s: float = 5.0,
    device: str | None = None,
    precision: str = "auto",
    optimize: str = "auto",
    api_key_file: Path | None = None,
    allow_origin: list[str] | None = None,
    allow_host: list[str] | None = None,
    verify: bool = True,
) -> None:
    """Answer HTTP requests about images, and show a page to try the model on.

    Parameters
    ----------
    run:
        A model directory or an exported model.
    host:
        The address to listen on; 0.0.0.0 lets other machines in.
    port:
        0 takes a free one; it is printed.
    workers:
        Processes that compute, each with the model.
    batch_size:
        Images that are computed at once, at most, of however many requests.
    batch_wait_ms:
        How long an image waits for others to be computed with.
    queue:
        Images that may wait; beyond it clients are asked to come back later (429).
    images:
        Images in one request, at most.
    image_mb:
        MiB of one encoded image, at most.
    request_mb:
        MiB of one request, at most.
    megapixels:
        Of one image, at most, in millions.
    time_s:
        Seconds for a request to arrive, and again to be answered.
    connections:
        Clients at once, at most; those that have asked nothing make room for others.
    head_s:
        Seconds for a client to say what it wants.
    idle_s:
        Seconds for which a connection is kept after an answer.
    precision:
        auto, fp32, bf16, fp16 or int8.
    optimize:
        auto, always or never run the model in the fastest engine that `convmix optimize` finds; auto: where one is kept.
    api_key_file:
        A file with the key that clients must show; the environment variable CONVMIX_API_KEY does the same.
    allow_origin:
        Another site whose pages may use the server, as https://example.org; may be given again.
    allow_host:
        A name under which clients reach the server, as models.example.org; may be given again. Without a key it answers to localhost and to
        addresses alone, with one to every name.
    verify:
        Whether the files of an exported model are compared with their digests; --no-verify takes a model that was changed on purpose.
    """
    if not verify:
        digests.skip()
    from convmix.serving import server
    from convmix.serving.limits import MIB, RequestLimits

    server.serve(
        run,
        host=host,
        port=port,
        workers=workers,
        limits=RequestLimits(
            image_bytes=round(image_mb * MIB), request_bytes=round(request_mb * MIB), pixels=round(megapixels * 1e6), images=images,
            queue=queue, connections=connections, head_s=head_s, idle_s=idle_s, time_s=time_s,
            batch_size=batch_size, batch_wait_ms=batch_wait_ms,
        ),
        device=device,
        precision=precision,
        optimize=optimize,
        api_key=None if api_key_file is None else _key(api_key_file),
        allow_origins=allow_origin or (),
        allow_hosts=allow_host or (),
    )  # fmt: skip


def _key(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api-key-file: {file} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
