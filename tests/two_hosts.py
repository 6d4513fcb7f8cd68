"""Two hosts on one machine, each with its own torchrun: network namespaces where the machine permits, else two agents on the loopback."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Host:
    """Where one half of a training runs."""

    address: str
    interface: str
    namespace: str | None = None

    @property
    def enter(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace] if self.namespace else []


@contextlib.contextmanager
def namespaces() -> Iterator[tuple[Host, Host] | str]:
    """Two network namespaces joined by a cable that is all they have; or why there are none."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        yield "network namespaces need root and the command ip"
        return
    names = [f"convmix{os.getpid()}{x}" for x in "ab"]
    hosts = (Host("10.213.7.1", "host0", names[0]), Host("10.213.7.2", "host0", names[1]))
    commands = [f"ip netns add {name}" for name in names]
    commands.append(f"ip link add host0 netns {names[0]} type veth peer name host0 netns {names[1]}")
    for host in hosts:
        within = f"ip -n {host.namespace}"
        commands += [f"{within} addr add {host.address}/24 dev host0", f"{within} link set host0 up", f"{within} link set lo up"]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                yield f"{command}: {done.stderr.strip()}"
                return
        yield hosts
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def loopback() -> tuple[Host, Host]:
    """Two agents that meet on 127.0.0.1."""
    return Host("127.0.0.1", "lo"), Host("127.0.0.1", "lo")


class Agents:
    """A torchrun on each host, as `torchrun --nnodes 2` on two machines; ends what it started."""

    def __init__(
        self, hosts: tuple[Host, Host], commands: tuple[list[str], list[str]], *, restarts: int = 0, path: Path | None = None
    ) -> None:
        """commands: module and arguments. path: a folder to find it in."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        more = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} if restarts else {}
        where = {"PYTHONPATH": os.pathsep.join(map(str, (path, *sys.path)))} if path else {}
        name = f"job-{os.getpid()}-{time.monotonic_ns()}"
        self.agents = [
            subprocess.Popen(
                [
                    *host.enter, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
                    "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{hosts[0].address}:{port}", "--rdzv-id", name,
                    "--rdzv-conf", f"is_host={host is hosts[0]}", "--local-addr", host.address,
                    "--max-restarts", str(restarts), "-m", *command,
                ],
                cwd=REPO, env={**os.environ, **where, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": host.interface, **more},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )
            for host, command in zip(hosts, commands, strict=True)
        ]  # fmt: skip

    def __enter__(self) -> "Agents":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def workers(self, host: int) -> list[int]:
        """Process ids of the training processes of one host."""
        pid = self.agents[host].pid
        with contextlib.suppress(OSError):
            return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def wait(self, *, timeout_s: float) -> list[tuple[int, str]]:
        """Exit code and output of each host's agent."""
        until = time.monotonic() + timeout_s
        said = [agent.communicate(timeout=max(1.0, until - time.monotonic()))[0] for agent in self.agents]
        return [(agent.returncode, text) for agent, text in zip(self.agents, said, strict=True)]

    def kill(self) -> None:
        """As a power cut: agents and workers at once."""
        every = [pid for host in range(len(self.agents)) for pid in self.workers(host)]
        for pid in [agent.pid for agent in self.agents if agent.poll() is None] + every:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for agent in self.agents:
            agent.wait()
            if agent.stdout:
                agent.stdout.close()
