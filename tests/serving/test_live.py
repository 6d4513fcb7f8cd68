"""The server with a real model: hostile files, crowds, signals, and its own document checked by schemathesis."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from convmix.inference.prediction import Prediction, predict
from tests.command_line import Command
from tests.patience import PATIENCE_S, until
from tests.serving.live import Live, live
from tests.serving.pictures import bomb, picture, polyglots, truncated

GOOD = 4  # images that clients send while others misbehave
Known = list[tuple[bytes, str | None, float]]  # an image, its label and the probability


@pytest.fixture(scope="module")
def expected(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Images with what `predict` says of them."""
    folder = tmp_path_factory.mktemp("good")
    images = [picture(i) for i in range(GOOD)]
    for i, data in enumerate(images):
        (folder / f"{i}.png").write_bytes(data)
    rows = [row for row in predict(run, [str(folder)]) if isinstance(row, Prediction)]
    return [(data, row.label, row.probability or 0.0) for data, row in zip(images, rows, strict=True)]


def asks(server: Live, expected: Known, stop: Callable[[], bool]) -> int:
    """A client that sends good images until it is told to stop, and checks every answer; how many it had."""
    count = 0
    while not stop():
        data, label, probability = expected[count % GOOD]
        reply = server.predict(data)
        assert reply.status == 200, reply.body
        [row] = reply.json["predictions"]
        assert row["label"] == label and row["probability"] == pytest.approx(probability, abs=1e-5)
        count += 1
    return count


@pytest.mark.slow
def test_hostile_files_are_4xx_while_others_are_served(server: Live, expected: Known) -> None:
    rng, deaths = np.random.default_rng(0), server.metric("convmix_worker_deaths_total")
    cut = picture(9, size=(30, 30))
    random = [rng.bytes(int(n)) for n in rng.integers(1, 4000, 100)]
    headed = [cut[:40] + rng.bytes(int(n)) for n in rng.integers(1, 4000, 100)]  # a PNG's beginning, and noise
    hostile = [bomb(8_000), *polyglots().values(), *truncated().values(), *random, *headed]
    done = threading.Event()
    with ThreadPoolExecutor(5) as pool:
        others = pool.submit(asks, server, expected, done.is_set)
        try:
            replies = list(pool.map(server.predict, hostile))
        finally:
            done.set()
        assert others.result() > 0
    assert [reply.body for reply in replies if not 400 <= reply.status < 500] == []
    assert replies[0].code == "image_too_large"
    assert {reply.code for reply in replies} <= {"image_too_large", "unreadable_image", "not_only_an_image"}
    assert server.metric("convmix_worker_deaths_total") == deaths


@pytest.mark.slow
def test_a_crowd_with_a_real_model_loses_nothing_when_a_worker_is_killed(server: Live, expected: Known) -> None:
    over = threading.Event()
    deaths, images = server.metric("convmix_worker_deaths_total"), server.metric("convmix_batch_images_sum")
    with ThreadPoolExecutor(32) as pool:
        clients = [pool.submit(asks, server, expected, over.is_set) for _ in range(32)]
        try:
            until(lambda: server.metric("convmix_batch_images_sum") >= images + 64)
            worker = min(server.workers(), key=psutil.Process.create_time)  # there may be one that explains, which begins later
            os.kill(worker.pid, signal.SIGKILL)
            until(lambda: server.metric("convmix_worker_deaths_total") == deaths + 1 and server.get("/ready").status == 200)
        finally:
            over.set()
        assert min(client.result() for client in clients) >= 1
        assert server.metric("convmix_worker_deaths_total") == deaths + 1


def listens(server: Live) -> bool:
    """Whether it takes connections."""
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_when_everything_accepted_is_answered(run: Path, how: int) -> None:
    """Its worker stands still meanwhile, with one image in its hands and seven that wait."""
    with live(run, "--batch-size", "1", "--time-s", str(PATIENCE_S)) as server, ThreadPoolExecutor(8) as pool:
        [worker] = workers = server.workers()
        worker.suspend()
        waiting = [pool.submit(server.predict, picture(i)) for i in range(8)]
        until(lambda: server.metric("convmix_queued_images") == 7)
        for process in (server.process, worker):  # as a supervisor does that signals the whole group
            process.send_signal(how)
        until(lambda: not listens(server))
        assert not any(future.done() for future in waiting)
        worker.resume()
        assert server.process.wait(PATIENCE_S) == 0
        assert [future.result().status for future in waiting] == [200] * 8
        assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
        said = server.log.read_text()
        assert "Traceback" not in said and "a worker died" not in said


@pytest.mark.timeout(60)  # a mistake that is none starts a server
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--port", "99999"), "port: 99999"),
        (("--workers", "0"), "workers: 0"),
        (("--image-mb", "0"), "image_bytes: 0"),
        (("--api-key-file", "nowhere"), "nowhere cannot be read"),
    ],
)
def test_mistakes_are_one_line(command: Command, run: Path, options: tuple[str, str], words: str) -> None:
    ended = command("serve", run, *options)
    assert ended.code == 2 and words in ended.err


@pytest.mark.slow
def test_schemathesis_finds_nothing(server: Live, tmp_path: Path) -> None:
    """`positive_data_acceptance` is left out: no schema tells text in base64 from text in base64 that is an image."""
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("schemathesis is not installed")
    assert server.form("/v1/explain", "image", (picture(0),), {}).status == 200  # its worker is there
    command = [
        program, "run", f"{server.address}/openapi.json", "--exclude-checks", "positive_data_acceptance", "--max-examples", "25", "--seed",
        "1", "--request-timeout", str(PATIENCE_S), "--no-color", "--continue-on-failure",
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=550)
    assert ended.returncode == 0, ended.stdout[-6000:]
    tried = re.search(r"(\d+) generated, (\d+) passed", ended.stdout)
    assert tried and int(tried[1]) == int(tried[2]) > 100, ended.stdout[-3000:]


@pytest.mark.slow
def test_memory_stays_flat(server: Live, expected: Known) -> None:
    def requests(n: int) -> int:
        """Resident bytes of all processes after n more."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: server.predict(expected[i % GOOD][0]), range(n)))
        return sum(p.memory_info().rss for p in (psutil.Process(server.process.pid), *server.workers()))

    warm = requests(1000)
    assert requests(2000) - warm < 10 * 2**20
