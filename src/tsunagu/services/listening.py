"""What listening sockets mean: which of them takes what is sent to an address, and how they are named to a person.

May import the value `kernel.probes.Listener`; must never read a socket itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from tsunagu.kernel.probes import Listener

_ANY = ("0.0.0.0", "::")


def takes(listening: str, address: str) -> bool:
    """Whether a socket bound to `listening` gets what is sent to `address`; :: takes both families, unless told
    otherwise, which /proc does not show: the connection tells."""
    return listening in (address, "::") or (listening == "0.0.0.0" and ":" not in address)


def shown(found: Sequence[Listener]) -> str:
    """Return sockets as a person reads them, each once, by port."""
    rows = sorted(set(found), key=lambda one: (one.port, one.protocol, one.address))
    texts = []
    for one in rows:
        address = f"[{one.address}]" if ":" in one.address else one.address
        texts.append(
            f"port {one.port}/{one.protocol}" if is_any(one.address) else f"{address}:{one.port}/{one.protocol}"
        )
    return ", ".join(dict.fromkeys(texts))


def is_any(address: str) -> bool:
    return address in _ANY


def port_of(text: str) -> tuple[int, str]:
    """Return number and protocol of a text like `80/tcp`, to sort by."""
    number, _, protocol = text.partition("/")
    return int(number), protocol


def is_loopback(address: str) -> bool:
    return ip_address(address).is_loopback
