"""How fast `convmix serve` answers, whether batching pays, and whether its memory stays where it is.

    python benchmarks/serving.py       writes benchmarks/results/serving/MODEL.json; about four minutes, alone on the machine

32 clients on kept connections, a JPEG of the model's own size each, every label compared. Two servers of the same model, one that batches
and one that computes one image at a time, take turns; the one without work waits. The batching one then serves all clients for a minute
(latencies, failed requests) and 10,000 requests (memory). Weights are untrained: time does not depend on them. The first model has many
small layers, the second fewer and wider ones. A gain holds all that a batch saves: the model's own time and the way to the worker and back.
"""

import asyncio
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import psutil

RESULTS = Path(__file__).parent / "results" / "serving"
MODELS = {"multiscale_convmixer_t": True, "convmixer_256_8": False}  # whether the minute and the 10,000 requests are measured too
SIDE, CLIENTS, ROUNDS, ROUND_S, WARM_S = 32, 32, 5, 4.0, 2.0
MINUTE_S, MANY = 60.0, 10_000
BATCHES = {"batched": 32, "one at a time": 1}


@dataclass
class Load:
    """What so many clients were answered."""

    elapsed_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    failed: int = 0


@contextmanager
def served(run: Path, batch_size: int) -> Any:
    """Port and process of a server that is ready."""
    command = [sys.executable, "-m", "convmix", "serve", str(run), "--port", "0", "--batch-size", str(batch_size)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield int(process.stdout.readline().strip().rpartition(":")[2]), process
    finally:
        process.terminate()
        if process.wait(60) != 0:
            raise RuntimeError(f"the server ended with {process.returncode}")


def request_of(seed: int) -> bytes:
    """A whole HTTP request with one image."""
    out = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(out, "JPEG")
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n' + out.getvalue() + b"\r\n--b--\r\n"
    head = "POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    return f"{head}Content-Length: {len(part)}\r\n\r\n".encode() + part


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str | None:
    """The label; None where the answer is no 200."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    return str(json.loads(body)["predictions"][0]["label"]) if head.startswith(b"HTTP/1.1 200") else None


async def load(port: int, *, seconds: float = 1e9, requests: int = 10**9) -> Load:
    """All clients at once, until the time is over or so many requests are answered."""
    done, began = Load(), time.perf_counter()

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = request_of(number)
        expected = await ask(reader, writer, request)
        while time.perf_counter() - began < seconds and len(done.latencies_s) + done.failed < requests:
            start = time.perf_counter()
            if await ask(reader, writer, request) == expected is not None:
                done.latencies_s.append(time.perf_counter() - start)
            else:
                done.failed += 1
        writer.close()

    await asyncio.gather(*map(client, range(CLIENTS)))
    done.elapsed_s = time.perf_counter() - began
    return done


def resident_mib(process: "subprocess.Popen[str]") -> float:
    """Of the server and its workers."""
    main = psutil.Process(process.pid)
    return sum(p.memory_info().rss for p in (main, *main.children(recursive=True))) / 2**20


def summary(rates: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(rates), "lowest": min(rates), "highest": max(rates)}


def measure(name: str, run: Path, *, long: bool) -> dict[str, Any]:
    """The record of one model."""
    rates: dict[str, list[float]] = {way: [] for way in BATCHES}
    failed = 0
    with served(run, BATCHES["batched"]) as (port, process), served(run, BATCHES["one at a time"]) as (single, _):
        ports = {"batched": port, "one at a time": single}
        for way in BATCHES:
            asyncio.run(load(ports[way], seconds=WARM_S))
        for turn in range(ROUNDS):
            for way in list(BATCHES)[:: 1 if turn % 2 else -1]:
                result = asyncio.run(load(ports[way], seconds=ROUND_S))
                rates[way].append(len(result.latencies_s) / result.elapsed_s)
                failed += result.failed
        record: dict[str, Any] = {
            "model": name, "size_px": SIDE, "clients": CLIENTS, "rounds": ROUNDS, "round_s": ROUND_S,
            "requests_per_s": {way: summary(some) for way, some in rates.items()},
            "speedup": summary([a / b for a, b in zip(rates["batched"], rates["one at a time"], strict=True)]),
        }  # fmt: skip
        if long:
            minute = asyncio.run(load(port, seconds=MINUTE_S))
            failed += minute.failed
            p50, p99 = np.percentile(minute.latencies_s, [50, 99])
            record["minute"] = {
                "requests": len(minute.latencies_s), "failed": minute.failed, "elapsed_s": minute.elapsed_s, "p50_ms": 1000 * p50,
                "p99_ms": 1000 * p99,
            }  # fmt: skip
            before = resident_mib(process)
            many = asyncio.run(load(port, requests=MANY))
            failed += many.failed
            record["memory"] = {"requests": len(many.latencies_s), "before_mib": before, "after_mib": resident_mib(process)}
    return record | {"failed": failed}


def main() -> None:
    """Measure and write every record."""
    import torch

    from convmix.artifacts.artifact import save_artifact
    from convmix.atomic import write_json
    from convmix.data.preprocessing import Preprocess
    from convmix.hardware import describe_machine
    from convmix.models.catalog import create_model
    from convmix.tasks.classify import Classify

    for name, long in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            run, labels = Path(folder) / name, tuple(f"class {i}" for i in range(10))
            prepare = Preprocess(size=(SIDE, SIDE), fit="stretch", interpolation="bilinear", crop_pct=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
            model = create_model(name, num_classes=len(labels))
            save_artifact(run, model=model, task=Classify(labels), preprocess=prepare, info={"model": name})
            record = measure(name, run, long=long)
        record |= {"machine": describe_machine(torch.device("cpu")), "command": "python benchmarks/serving.py"}
        write_json(RESULTS / f"{name}.json", record)
        print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
