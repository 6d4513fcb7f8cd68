"""Which names of the server are answered: a page of the web must not reach it under a name of its own.

A page whose name is rebound to 127.0.0.1, or to an address of the local network, is for the browser the site that it came from, and reads
what the server says. It can only use names: addresses, and the names of this machine for itself, are beyond it.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from convmix.errors import ConfigError

_NAME = re.compile(r"[a-z0-9_.-]{1,253}")


@dataclass(frozen=True)
class Hosts:
    """What `Host` may say.

    allowed: names beside localhost; "*" is every one. addresses: whether every IP address is answered, or those of loopback alone.
    Raises ConfigError for a name that no client could send.
    """

    allowed: tuple[str, ...] = ()
    addresses: bool = False

    def __post_init__(self) -> None:
        for name in self.allowed:
            if name != "*" and not _NAME.fullmatch(name.lower()):
                raise ConfigError(f"allow-host: {name!r} is not a host name, expected one as models.example.org, without scheme and port")

    def answers(self, header: str | None) -> bool:
        """Whether a request with this header is answered. One without, of HTTP/1.0, comes from no browser."""
        if header is None or "*" in self.allowed:
            return True
        name = _without_port(header.strip().lower()).rstrip(".")
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name == "localhost" or name.endswith(".localhost") or name in map(str.lower, self.allowed)
        return self.addresses or address.is_loopback


def allowed_hosts(host: str, *, allow_hosts: Sequence[str], has_key: bool, is_loopback: bool) -> Hosts:
    """What follows from how the server was started: with a key, the key decides; without one, names have to be given."""
    if has_key and not allow_hosts:
        return Hosts(("*",))
    own = () if is_loopback or not _NAME.fullmatch(host.lower()) else (host,)
    return Hosts((*allow_hosts, *own), addresses=not is_loopback)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0] if host.count(":") == 1 else host
