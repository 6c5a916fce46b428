"""Looking at what is: listening sockets of a network namespace, packet sizes of its interfaces, routes of the host.

Nothing here needs a tool inside the container. May import `model` and its neighbours in `kernel`. Must never change
anything.
"""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from typing import NamedTuple

from . import link, netlink
from .netlink import Socket

_TCP_LISTEN, _UDP_UNCONNECTED = "0A", "07"  # include/net/tcp_states.h; an unconnected UDP socket is TCP_CLOSE
_RTA_OIF = 4
_RESOLVER = "127.0.0.11"


class Listener(NamedTuple):
    """A socket that waits for strangers. `address` is 0.0.0.0 or :: when it takes any."""

    protocol: str
    address: str
    port: int


class Surroundings(NamedTuple):
    """What the host is: its addresses; the address families (4, 6) that it forwards, has a default route for, and
    filters on bridges too (bridge netfilter); and the interface of its default route, "" without one."""

    addresses: tuple[str, ...]
    forwards: frozenset[int]
    outside: frozenset[int]
    bridge_netfilter: frozenset[int]
    uplink: str


def listeners(pid: int) -> list[Listener]:
    """Return what listens in the network namespace of a process, sorted; the resolver's own sockets are left out.

    Raises OSError when the process is gone. Source: proc(5), /proc/PID/net/{tcp,tcp6,udp,udp6}.
    """
    found = set()
    for protocol, state in (("tcp", _TCP_LISTEN), ("udp", _UDP_UNCONNECTED)):
        for suffix in ("", "6"):
            try:
                with open(f"/proc/{pid}/net/{protocol}{suffix}") as table:
                    lines = table.read().splitlines()[1:]
            except FileNotFoundError:
                if suffix and os.path.exists(f"/proc/{pid}/net/{protocol}"):
                    continue  # a kernel without IPv6
                raise
            for line in lines:
                fields = line.split()
                if fields[3] == state:
                    raw, _, port = fields[1].partition(":")
                    address = _address(raw)
                    if address != _RESOLVER:
                        found.add(Listener(protocol, address, int(port, 16)))
    return sorted(found)


def surroundings(nl: Socket) -> Surroundings:
    """Return the host's facts; `nl` and the thread are in its namespace."""
    addresses = tuple(
        sorted({a for _, a, _, scope in link.addresses(nl) if not scope and not ip_address(a).is_loopback})
    )
    forwards = {
        family
        for family, name in ((4, "ipv4/ip_forward"), (6, "ipv6/conf/all/forwarding"))
        if _read(f"/proc/sys/net/{name}") == "1"
    }
    outside: dict[int, int] = {}  # family to interface
    for body in nl.dump(netlink.RTM_GETROUTE, netlink.route_body(family=0, table=0, protocol=0, kind=0)):
        # destination length, table main, unicast
        found = dict(netlink.attributes(body, 12))
        if body[1] == 0 and body[4] == 254 and body[7] == 1 and _RTA_OIF in found:
            family = 6 if body[0] == socket.AF_INET6 else 4
            outside.setdefault(family, int.from_bytes(found[_RTA_OIF], "little"))
    bridged = {
        family
        for family, name in ((4, "iptables"), (6, "ip6tables"))
        if _read(f"/proc/sys/net/bridge/bridge-nf-call-{name}") == "1"
    }
    index = outside.get(4) or outside.get(6)
    uplink = socket.if_indextoname(index) if index else ""
    return Surroundings(addresses, frozenset(forwards), frozenset(outside), frozenset(bridged), uplink)


def mtus() -> dict[str, int]:
    """Return the packet size in bytes of every interface but the loopback one, in the thread's namespace."""
    with Socket() as nl:
        return {one.name: one.mtu for one in link.links(nl) if one.name != "lo"}


def _address(raw: str) -> str:
    """Decode an address as the kernel prints it: 32 bit words in the machine's order."""
    data = b"".join(int(raw[i : i + 8], 16).to_bytes(4, "little") for i in range(0, len(raw), 8))
    found = ip_address(data)
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""
