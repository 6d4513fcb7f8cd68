"""What Prometheus reads at /metrics: counted in the front process, of all workers."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class ServerMetrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "convmix_request_seconds", "From the first byte of a request to the last of its answer", ["route", "status"],
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram("convmix_batch_images", "Images computed at once", buckets=_IMAGES, registry=self._registry)
        self._errors = Counter("convmix_errors", "Requests answered with an error, by its code", ["code"], registry=self._registry)
        self._deaths = Counter("convmix_worker_deaths", "Workers that ended and were started again", registry=self._registry)

    def watch(self, *, queued: Callable[[], int], workers: Callable[[], int]) -> None:
        """Where the present state is asked for."""
        gauges = (
            ("convmix_queued_images", "Images that wait for a worker", queued),
            ("convmix_workers_ready", "Workers that answer", workers),
        )
        for name, words, ask in gauges:
            Gauge(name, words, registry=self._registry).set_function(ask)

    def answered(self, route: str, status: int, elapsed_s: float) -> None:
        """A request has its answer; `route` is one of the server's own, so that clients cannot invent series."""
        self._seconds.labels(route, str(status)).observe(elapsed_s)

    def failed(self, code: str) -> None:
        """A request was refused."""
        self._errors.labels(code).inc()

    def computed(self, images: int) -> None:
        """A batch has left a worker."""
        self._batches.observe(images)

    def died(self) -> None:
        """A worker has ended by itself."""
        self._deaths.inc()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
