"""Sockets that live inside a sandbox although the engine or the resolver holds them.

A socket stays in the network namespace in which it was opened, so the functions here must be called on the namespace
thread while it is inside. May import `model`, `firewall`. Must never bind port 53: that one is the container's.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from . import firewall

ADDRESS = "127.0.0.11"  # Docker's embedded DNS server
_SO_RCVBUFFORCE = 33
_RECEIVE_BUFFER = 2 << 20  # bytes; a burst of some thousand questions waits instead of being lost
_BACKLOG = 128

# Port 53 towards the server is ours without the container noticing. No connection tracking: every packet is rewritten
# on its own, in the output hook that both directions pass because both ends are in this namespace. The kernel updates
# the transport checksum, or leaves it alone on loopback packets whose checksum is still to be filled in.
# Deletions cost ten milliseconds, so a fresh sandbox does without.
_REMOVE = "table ip tsunagu { }\ndelete table ip tsunagu\n"
_REDIRECT = """\
table ip tsunagu {{
  chain output {{
    type filter hook output priority raw; policy accept;
    oifname != "lo" accept
    ip daddr {address} udp dport 53 notrack udp dport set {udp} accept
    ip daddr {address} tcp dport 53 notrack tcp dport set {tcp} accept
    ip saddr {address} udp sport {udp} notrack udp sport set 53 accept
    ip saddr {address} tcp sport {tcp} notrack tcp sport set 53 accept
  }}
}}
"""


class ResolverSockets(NamedTuple):
    """The two ends that answer at 127.0.0.11:53 of one sandbox; non-blocking, closed on exec."""

    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


def open_resolver(*, replaces: bool = False) -> ResolverSockets:
    """Open the sockets on random ports and redirect port 53 to them; `replaces` an earlier redirect, if any.

    Raises OSError, KernelFailure.
    """
    udp = _open(socket.SOCK_DGRAM)
    tcp = _open(socket.SOCK_STREAM)
    try:
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        udp.bind((ADDRESS, 0))
        tcp.bind((ADDRESS, 0))
        tcp.listen(_BACKLOG)
        start = _REMOVE if replaces else ""
        firewall.apply(start + _REDIRECT.format(address=ADDRESS, udp=udp.getsockname()[1], tcp=tcp.getsockname()[1]))
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return ResolverSockets(udp, tcp)


def open_plain(count: int, kind: int, family: int = socket.AF_INET, protocol: int = 0) -> list[socket.socket]:
    """Open `count` unbound sockets of `kind` (SOCK_DGRAM, SOCK_STREAM, …); all or none. Raises OSError."""
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            opened.append(_open(kind, family, protocol))
    except BaseException:
        for one in opened:
            one.close()
        raise
    return opened


def _open(kind: int, family: int = socket.AF_INET, protocol: int = 0) -> socket.socket:
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
