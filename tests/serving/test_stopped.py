"""A worker that is stopped, not dead, is replaced too, however large what it should have taken."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from convmix.serving import worker_pool
from convmix.serving.batching import Queue
from convmix.serving.limits import RequestLimits
from convmix.serving.worker_pool import WorkerPool
from tests.patience import PATIENCE_S, until
from tests.serving.obedient import make_obedient
from tests.serving.rehearsal import rehearsal

LARGER_THAN_THE_PIPE = b"a" * 2_000_000


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signal here")
@pytest.mark.parametrize("order", [b"a", LARGER_THAN_THE_PIPE])
def test_a_stopped_worker_is_replaced_and_readiness_tells_the_truth(order: bytes) -> None:
    with rehearsal(RequestLimits(time_s=2.0)) as server, ThreadPoolExecutor(1) as clients:
        [stopped] = server.answers.process_ids
        assert server.get("/ready").status == 200
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: server.get("/ready").status == 503)
        asked = clients.submit(server.predict, order)
        until(lambda: server.answers.process_ids not in ((), (stopped,)))
        until(lambda: server.get("/ready").status == 200)
        assert asked.result(PATIENCE_S).status in (200, 504)  # its time was over when the next worker came, or not
        until(lambda: server.predict(order).status == 200)
        assert server.metric("convmix_worker_deaths_total") == 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signal here")
def test_what_a_stopped_worker_holds_is_answered_in_time() -> None:
    with rehearsal(RequestLimits(time_s=PATIENCE_S)) as server:
        [stopped] = server.answers.process_ids
        os.kill(stopped, signal.SIGSTOP)
        assert server.predict(b"a").status == 200


def test_a_worker_that_never_comes_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "_START_S", 0.01)
    deaths: list[int] = []
    pool = WorkerPool(Queue(size=1, batch_size=1, wait_s=0), make_obedient, size=1, silent_s=1, died=lambda: deaths.append(1))
    pool.start()
    until(lambda: len(deaths) > 1)
    assert not pool.is_ready
    monkeypatch.setattr(worker_pool, "_START_S", PATIENCE_S)
    until(lambda: pool.is_ready)
    pool.close()
