"""Workers die, clients come in crowds, and every request has its answer."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from convmix.serving.batching import Full, Queue
from convmix.serving.limits import RequestLimits
from tests.patience import PATIENCE_S, until
from tests.serving.live import Client, Reply
from tests.serving.obedient import digest
from tests.serving.rehearsal import rehearsal


def taken(queue: Queue) -> Future[list[str]]:
    """The orders of the next batch, which another thread waits for."""
    future: Future[list[str]] = Future()
    threading.Thread(target=lambda: future.set_result([job.order for job in queue.take()]), daemon=True).start()
    return future


def test_a_batch_goes_when_it_is_full_or_has_waited() -> None:
    patient = Queue(size=10, batch_size=3, wait_s=10 * PATIENCE_S)
    patient.submit("abcd")
    assert taken(patient).result(PATIENCE_S) == ["a", "b", "c"]
    queue = Queue(size=10, batch_size=3, wait_s=0.2)
    began = time.monotonic()
    queue.submit("d")
    assert taken(queue).result(PATIENCE_S) == ["d"]
    assert time.monotonic() - began >= 0.2


def test_images_of_several_requests_share_a_batch() -> None:
    queue = Queue(size=10, batch_size=3, wait_s=10 * PATIENCE_S)
    batch = taken(queue)
    for order in "abc":
        queue.submit(order)
    assert batch.result(PATIENCE_S) == ["a", "b", "c"]


def test_a_full_queue_takes_all_of_a_request_or_nothing() -> None:
    queue = Queue(size=3, batch_size=8, wait_s=0)
    first = queue.submit("ab")
    with pytest.raises(Full):
        queue.submit("cd")
    assert len(queue) == 2
    queue.abandon(first)
    assert [job.order for job in queue.submit("cd")] == ["c", "d"]
    assert [job.order for job in queue.take()] == ["c", "d"]


def test_suspects_go_alone_and_first() -> None:
    queue = Queue(size=3, batch_size=8, wait_s=0)
    queue.submit("ab")
    lost = queue.take()
    queue.submit("c")
    queue.put_back(lost)
    assert [[job.order for job in queue.take()] for _ in range(3)] == [["a"], ["b"], ["c"]]


def test_a_closed_queue_is_emptied_first() -> None:
    queue = Queue(size=3, batch_size=8, wait_s=60)
    queue.submit("a")
    queue.close()
    assert [job.order for job in queue.take()] == ["a"]
    assert queue.take() == []


@pytest.mark.slow
def test_only_the_image_that_kills_workers_is_given_up() -> None:
    with rehearsal(RequestLimits(batch_wait_ms=500, batch_size=8)) as server:
        first = server.answers.process_ids
        with ThreadPoolExecutor(8) as clients:
            orders = [b"one", b"two", b"die", b"three", b"four"]
            replies = list(clients.map(server.predict, orders))
        assert [reply.status for reply in replies] == [200, 200, 503, 200, 200]
        assert replies[2].code == "no_answer"
        for order, reply in zip(orders, replies, strict=True):
            if reply.status == 200:
                assert reply.json["predictions"][0]["label"] == digest(order)
        until(lambda: server.metric("convmix_worker_deaths_total") == 2)  # in the batch, and alone
        until(lambda: server.answers.is_ready)
        assert server.answers.process_ids != first
        assert server.predict(b"a").status == 200
        assert server.metric("convmix_worker_deaths_total") == 2


def test_readiness_ends_and_comes_back(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    with rehearsal(closed=closed) as server, ThreadPoolExecutor(1) as clients:
        assert server.get("/ready").status == 200
        closed.touch()
        dying = clients.submit(server.predict, b"die")
        until(lambda: server.get("/ready").status == 503)
        closed.unlink()
        assert dying.result().status == 503
        until(lambda: server.get("/ready").status == 200)


def test_a_full_queue_is_a_429_that_says_when_to_come_again(tmp_path: Path) -> None:
    go, begun = tmp_path / "go", tmp_path / "go.begun"
    with rehearsal(RequestLimits(queue=4, images=4, batch_size=1, time_s=PATIENCE_S)) as server, ThreadPoolExecutor(8) as clients:
        busy = clients.submit(server.predict, f"hold {go}".encode())
        until(begun.exists)  # it has come and left the queue
        assert len(server.answers.queue) == 0
        waiting = [clients.submit(server.predict, b"a%d" % i) for i in range(4)]
        until(lambda: server.metric("convmix_queued_images") == 4)
        reply = server.predict(b"b")
        go.touch()
        assert (reply.status, reply.code) == (429, "queue_full")
        assert int(reply.headers["retry-after"]) >= 1
        assert {future.result().status for future in [busy, *waiting]} == {200}


@dataclass
class Crowd:
    """Clients, each of which asks again as soon as it has its answer."""

    answered: list[list[tuple[bytes, Reply]]]  # what each of them has asked and was told
    clients: list[Future[None]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def go_on(self, times: int) -> None:
        """Wait until each has had so many answers more."""
        wanted = [len(had) + times for had in self.answered]
        until(lambda: all(len(had) >= n for had, n in zip(self.answered, wanted, strict=True)) or any(c.done() for c in self.clients))


@contextmanager
def crowd(server: Client, size: int) -> Iterator[Crowd]:
    """At the end everybody was answered, and with what was asked for."""
    asking = Crowd([[] for _ in range(size)])

    def ask(number: int, had: list[tuple[bytes, Reply]]) -> None:
        while not asking.over.is_set():
            order = b"%d/%d" % (number, len(had))
            had.append((order, server.predict(order)))

    with ThreadPoolExecutor(size) as pool:
        asking.clients += [pool.submit(ask, number, had) for number, had in enumerate(asking.answered)]
        try:
            yield asking
        finally:
            asking.over.set()
    for client in asking.clients:
        client.result()
    pairs = [pair for had in asking.answered for pair in had]
    assert {reply.status for _, reply in pairs} == {200}
    assert all(reply.json["predictions"][0]["label"] == digest(order) for order, reply in pairs)


def test_a_crowd_is_answered_and_nobody_gets_anothers_answer() -> None:
    with rehearsal(RequestLimits(batch_wait_ms=50), workers=2) as server:
        with crowd(server, 32) as asking:
            asking.go_on(4)
        assert server.metric("convmix_batch_images_sum") > server.metric("convmix_batch_images_count"), "no batch held two images"


@pytest.mark.slow
def test_a_crowd_is_answered_while_workers_are_killed() -> None:
    """One after the other: an image that is in two workers that die is given up, which another test shows."""
    with rehearsal(RequestLimits(time_s=PATIENCE_S), workers=2) as server, crowd(server, 16) as asking:
        for deaths in (1, 2):
            until(lambda: len(server.answers.process_ids) == 2)
            asking.go_on(2)  # so that none is left of those that were in the worker that died
            os.kill(server.answers.process_ids[0], signal.SIGKILL)
            until(lambda n=deaths: server.metric("convmix_worker_deaths_total") == n)  # type: ignore[misc]
        until(lambda: len(server.answers.process_ids) == 2)
        asking.go_on(2)
