"""What a second process gains: training steps of one process and of two that a network joins, in turn, one thread each.

    python benchmarks/distributed.py       writes benchmarks/results/distributed/NETWORK.json for every network this machine permits

alone: one process, a batch of its own.  weak: both, a batch each.  strong: both, half the batch each.
apart: both at once without talking, which shows what two processes cost each other on one machine whatever the network.

Two torchruns, as on two machines: on the loopback, and in network namespaces (root) whose cable carries all it can, then 1 Gbit/s.
A step is forward, loss, backward and update on random images; reading images and validation scale by themselves.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/distributed"
WORKLOADS = (("convmixer_256_8_k5_p2", 32, 16), ("convmlp_s", 64, 16))  # model, side in pixels, images per process
ROUNDS, STEPS = 5, 2  # of every way in turn; steps of one timing
GIGABIT = "1gbit"


def work(out: Path) -> None:
    """What each of the two processes does; the first one writes the record of its network."""
    import torch.distributed as dist
    from accelerate import PartialState

    from convmix.hardware import describe_machine

    state = PartialState(cpu=True)
    import torch

    workloads = [measure(*workload) for workload in WORKLOADS]
    if state.is_main_process:
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(torch.device("cpu")),
            "rounds": ROUNDS,
            "steps": STEPS,
            "workloads": workloads,
        }
        out.write_text(json.dumps(record, indent=1) + "\n")
    dist.destroy_process_group()


def measure(name: str, side: int, batch: int) -> dict[str, Any]:
    """Images per second of every way to train one model, each round's and their median."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from convmix.models.catalog import create_model

    torch.manual_seed(0)
    model = create_model(name, num_classes=10).to(memory_format=torch.channels_last)
    joined = DistributedDataParallel(create_model(name, num_classes=10).to(memory_format=torch.channels_last))
    images, labels = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last), torch.randint(10, (batch,))
    first = dist.get_rank() == 0

    def steps(module: torch.nn.Module, part: int) -> Callable[[], int]:
        optimizer = torch.optim.AdamW(module.parameters())

        def run() -> int:
            for _ in range(STEPS):
                torch.nn.functional.cross_entropy(module(images[:part]), labels[:part]).backward()
                optimizer.step()
                optimizer.zero_grad()
            return STEPS * part

        return run

    ways = {
        "alone": steps(model, batch) if first else lambda: 0,
        "apart": steps(model, batch),
        "weak": steps(joined, batch),
        "strong": steps(joined, batch // 2),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for round_ in range(ROUNDS + 1):  # the first warms up
        for way, run in ways.items():
            dist.barrier()
            began = time.perf_counter()
            count = torch.tensor([run()])
            dist.barrier()
            took = time.perf_counter() - began
            dist.all_reduce(count)
            if round_:
                rates[way].append(int(count) / took)
    return {
        "model": name,
        "side": side,
        "batch": batch,
        "parameters": sum(p.numel() for p in model.parameters()),
        "images_per_s": {way: statistics.median(some) for way, some in rates.items()},
        "all_images_per_s": rates,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="internal: be one of the processes")
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work)
        return
    sys.path.insert(0, str(ROOT))
    from tests.two_hosts import Host, loopback, namespaces

    RESULTS.mkdir(parents=True, exist_ok=True)

    def race(hosts: tuple[Host, Host], network: str) -> None:
        from tests.two_hosts import Agents

        file = RESULTS / f"{network}.json"
        command = [Path(__file__).stem, "--work", str(file)]
        with Agents(hosts, (command, command), path=Path(__file__).parent) as agents:
            ends = agents.wait(timeout_s=180)
        if any(code for code, _ in ends):
            sys.exit("\n".join(text for _, text in ends))
        print(file.read_text())

    race(loopback(), "loopback")
    with namespaces() as hosts:
        if isinstance(hosts, str):
            print(f"no namespaces: {hosts}")
            return
        race(hosts, "cable")
        for host in hosts:
            limit = f"tc -n {host.namespace} qdisc add dev {host.interface} root tbf rate {GIGABIT} burst 256kb latency 50ms"
            if subprocess.run(limit.split(), check=False).returncode:
                print("no limited cable: tc cannot shape here")
                return
        race(hosts, "gigabit")


if __name__ == "__main__":
    main()
