"""Workers die, clients come in crowds, and every request has its answer."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from convmix.serving.batching import Full, Queue
from convmix.serving.limits import Limits
from tests.serving.live import Client, Reply
from tests.serving.obedient import digest
from tests.serving.rehearsal import rehearsal


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_a_batch_goes_when_it_is_full_or_has_waited() -> None:
    queue = Queue(size=10, batch_size=3, wait_s=0.2)
    queue.submit("abcd")
    began = time.monotonic()
    assert [job.order for job in queue.take()] == ["a", "b", "c"]
    assert time.monotonic() - began < 0.1
    assert [job.order for job in queue.take()] == ["d"]
    assert 0.1 < time.monotonic() - began < 1.0


def test_images_of_several_requests_share_a_batch() -> None:
    queue = Queue(size=10, batch_size=8, wait_s=0.3)
    for order in "abc":
        threading.Timer(0.02, queue.submit, [order]).start()
    assert sorted(job.order for job in queue.take()) == ["a", "b", "c"]


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


def test_only_the_image_that_kills_workers_is_given_up() -> None:
    with rehearsal(Limits(batch_wait_ms=500, batch_size=8)) as server:
        first = server.answers.process_ids
        with ThreadPoolExecutor(8) as clients:
            orders = [b"one", b"two", b"die", b"three", b"four"]
            replies = list(clients.map(server.predict, orders))
        assert [reply.status for reply in replies] == [200, 200, 503, 200, 200]
        assert replies[2].code == "no_answer"
        for order, reply in zip(orders, replies, strict=True):
            if reply.status == 200:
                assert reply.json["predictions"][0]["label"] == digest(order)
        assert server.metric("convmix_worker_deaths_total") == 2  # in the batch, and alone
        until(lambda: server.answers.is_ready)
        assert server.answers.process_ids != first
        assert server.predict(b"a").status == 200


def test_readiness_ends_and_comes_back() -> None:
    with rehearsal() as server:
        states: set[int] = set()
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                states.add(server.get("/ready").status)

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            assert server.predict(b"die").status == 503
            until(lambda: server.answers.is_ready)
            assert server.get("/ready").status == 200
        finally:
            done.set()
            watcher.join()
        assert states == {200, 503}


def test_a_full_queue_is_a_429_that_says_when_to_come_again() -> None:
    with rehearsal(Limits(queue=4, images=4, batch_size=1)) as server, ThreadPoolExecutor(8) as clients:
        busy = clients.submit(server.predict, b"sleep 2")
        time.sleep(0.5)  # it has come and left the queue
        assert len(server.answers.queue) == 0
        waiting = [clients.submit(server.predict, b"a%d" % i) for i in range(4)]
        until(lambda: server.metric("convmix_queued_images") == 4)
        reply = server.predict(b"b")
        assert (reply.status, reply.code) == (429, "queue_full")
        assert int(reply.headers["retry-after"]) >= 1
        assert {future.result().status for future in [busy, *waiting]} == {200}


def crowd(server: Client, clients: int, seconds: float) -> list[tuple[bytes, Reply]]:
    """What so many clients were answered, each asking again as soon as it has its answer."""
    end = time.monotonic() + seconds

    def one(number: int) -> list[tuple[bytes, Reply]]:
        had = []
        while time.monotonic() < end:
            order = b"%d/%d" % (number, len(had))
            had.append((order, server.predict(order)))
        return had

    with ThreadPoolExecutor(clients) as pool:
        return [pair for some in pool.map(one, range(clients)) for pair in some]


def test_a_crowd_is_answered_and_nobody_gets_anothers_answer() -> None:
    with rehearsal(workers=2) as server:
        answered = crowd(server, 32, 2.0)
        assert len(answered) >= 64
        assert {reply.status for _, reply in answered} == {200}
        assert all(reply.json["predictions"][0]["label"] == digest(order) for order, reply in answered)
        assert server.metric("convmix_batch_images_sum") > server.metric("convmix_batch_images_count"), "no batch held two images"


def test_a_crowd_is_answered_while_workers_are_killed() -> None:
    with rehearsal(workers=2) as server:

        def kill() -> None:
            os.kill(server.answers.process_ids[0], signal.SIGKILL)

        timers = [threading.Timer(delay, kill) for delay in (0.5, 1.5)]
        for timer in timers:
            timer.start()
        answered = crowd(server, 16, 3.0)
        assert server.metric("convmix_worker_deaths_total") >= 2
        assert {reply.status for _, reply in answered} == {200}
        assert all(reply.json["predictions"][0]["label"] == digest(order) for order, reply in answered)
