"""How much of everything a request, and all requests together, may take."""

from dataclasses import dataclass, fields

from convmix.errors import ConfigError

MIB = 2**20
_FLOORS = {"batch_wait_ms": 0.0, "head_s": 0.01, "idle_s": 0.01}  # the others are at least 1
_WHOLE_REQUESTS = 8  # bodies of the largest size that may be in memory at once


@dataclass(frozen=True)
class RequestLimits:
    """Beyond each of them a request is refused with a 4xx that names the limit, and nothing of it is computed.

    Raises ConfigError for a limit that nothing could keep.
    """

    image_bytes: int = 20 * MIB  # one encoded image
    request_bytes: int = 64 * MIB  # a whole body; base64 makes images a third larger
    pixels: int = 50_000_000  # of one image, read from its header before it is decoded
    images: int = 32  # in one request
    queue: int = 256  # images that wait for a worker; more are answered 429
    connections: int = 1000  # at once; one that has asked nothing makes room for the next, and where none is left it is a 503
    head_s: float = 10.0  # from a connection, or the first byte of a further request, to the end of the request's head (408)
    idle_s: float = 5.0  # between an answer and the next request; then the connection is closed
    time_s: float = 30.0  # from the first byte of a body to its last (408), and from there to the answer (504)
    batch_size: int = 32  # images that are computed at once, of as many requests as are there
    batch_wait_ms: float = 4.0  # how long the first image of a batch waits for others

    def __post_init__(self) -> None:
        for field in fields(self):
            value, floor = getattr(self, field.name), _FLOORS.get(field.name, 1)
            if not floor <= value < float("inf"):
                raise ConfigError(f"{field.name}: {value} is not possible, expected a number from {floor:g}")
        if self.images > self.queue:
            raise ConfigError(f"images: a request of {self.images} never fits into a queue of {self.queue}; make queue larger")

    @property
    def held_bytes(self) -> int:
        """Of all bodies that are being read or answered; more are answered 429."""
        return _WHOLE_REQUESTS * self.request_bytes
