"""Forget tracked flows that would go on as they began, although the rules would judge them otherwise now.

A flow keeps its translation, or that it has none, while packets come (nf_conntrack; moby#8795). So when a UDP port is
published or withdrawn, flows to it are deleted and the next packet is judged anew; and the same for what entered
networks of ours while somebody had flushed the rules. May import `netlink` only. Must never touch flows to other
machines.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from . import netlink
from .netlink import Message, NetlinkError, Socket

_NETLINK_NETFILTER = 12
_GET, _DELETE = 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, _DELETE
_TUPLE_ORIG, _FILTER, _FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 25, 1, 2
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4
_PROTO_NUM, _PROTO_DST_PORT = 1, 3
_BY_PROTOCOL = 1 << 3  # CTA_FILTER_F_CTA_PROTO_NUM
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def forget_udp(ports: Collection[tuple[int, int]], addresses: Collection[str]) -> int:
    """Delete UDP flows to `ports` (address family, number) at `addresses`, the host's own; returns how many.

    Acts on the namespace of the calling thread. Raises OSError.
    """
    gone = 0
    with Socket(_NETLINK_NETFILTER) as nl:
        for family in sorted({family for family, _ in ports}):
            wanted = {number for one, number in ports if one == family}
            gone += _delete(nl, family, [raw for raw in _udp(nl, family) if _is_to(raw, family, wanted, addresses)])
    return gone


def forget_entered(prefixes: Iterable[str], addresses: Collection[str]) -> int:
    """Delete flows, of any protocol, that were sent to an address in one of `prefixes` from outside that prefix, other
    than by the host at `addresses`; returns how many.

    What a published port leads there was sent to the host, and is left alone. Acts on the namespace of the calling
    thread. Raises OSError.
    """
    gone = 0
    networks = [ip_network(prefix) for prefix in prefixes]
    with Socket(_NETLINK_NETFILTER) as nl:
        for family in sorted({network.version for network in networks}):
            mine = [network for network in networks if network.version == family]
            found = []
            for raw in _tuples(nl.dump(_GET, _head(family))):
                source, destination = _ends(raw, family)
                if source is None or destination is None or str(source) in addresses:
                    continue
                entered = [network for network in mine if destination in network]
                if entered and source not in entered[0]:
                    found.append(raw)
            gone += _delete(nl, family, found)
    return gone


def _delete(nl: Socket, family: int, found: list[bytes]) -> int:
    head = _head(family)
    messages = [Message(_DELETE, 0, head + netlink.nested(_TUPLE_ORIG, raw), "forget a flow") for raw in found]
    for start in range(0, len(messages), 100):
        nl.send(messages[start : start + 100], ignore=frozenset({errno.ENOENT}))
    return len(found)


def _head(family: int) -> bytes:
    return struct.pack("!BBH", _FAMILIES[family], 0, 0)  # struct nfgenmsg


def _udp(nl: Socket, family: int) -> list[bytes]:
    """Return the original tuples of all UDP flows; kernels before 5.8 cannot choose, and send those of TCP as well."""
    udp = netlink.nested(_TUPLE_PROTO, netlink.attribute(_PROTO_NUM, bytes([socket.IPPROTO_UDP])))
    chosen = netlink.nested(_TUPLE_ORIG, udp) + netlink.nested(
        _FILTER, netlink.number(_FILTER_ORIG_FLAGS, _BY_PROTOCOL), netlink.number(_FILTER_REPLY_FLAGS, 0)
    )
    try:
        bodies = nl.dump(_GET, _head(family) + chosen)
    except NetlinkError:
        bodies = nl.dump(_GET, _head(family))
    return _tuples(bodies)


def _tuples(bodies: Iterable[bytes]) -> list[bytes]:
    """The original direction of each flow."""
    return [raw for body in bodies if (raw := dict(netlink.attributes(body, 4)).get(_TUPLE_ORIG))]


def _ends(raw: bytes, family: int) -> tuple[IPv4Address | IPv6Address | None, IPv4Address | IPv6Address | None]:
    """Source and destination of a flow's original direction."""
    found = dict(netlink.attributes(dict(netlink.attributes(raw)).get(_TUPLE_IP, b"")))
    source, destination = (found.get(kind) for kind in ((_V6_SRC, _V6_DST) if family == 6 else (_V4_SRC, _V4_DST)))
    return ip_address(source) if source else None, ip_address(destination) if destination else None


def _is_to(raw: bytes, family: int, ports: Collection[int], addresses: Collection[str]) -> bool:
    parts = dict(netlink.attributes(raw))
    protocol = dict(netlink.attributes(parts.get(_TUPLE_PROTO, b"")))
    if protocol.get(_PROTO_NUM) != bytes([socket.IPPROTO_UDP]):
        return False
    if int.from_bytes(protocol.get(_PROTO_DST_PORT, b""), "big") not in ports:
        return False
    _, destination = _ends(raw, family)
    return destination is not None and (str(destination) in addresses or destination.is_loopback)
