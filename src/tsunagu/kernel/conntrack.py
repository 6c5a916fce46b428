"""Forget tracked UDP flows to ports of the host: they would keep going where such packets went before.

A flow keeps its translation, or that it has none, while packets come (nf_conntrack; moby#8795). So when a UDP port is
published or withdrawn, flows to it are deleted and the next packet is judged anew. May import `netlink` only. Must
never touch flows to other machines.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection

from . import netlink
from .netlink import Message, NetlinkError, Socket

_NETLINK_NETFILTER = 12
_GET, _DELETE = 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, _DELETE
_TUPLE_ORIG, _FILTER, _FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 25, 1, 2
_TUPLE_IP, _TUPLE_PROTO, _V4_DST, _V6_DST = 1, 2, 2, 4
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
            found = [raw for raw in _flows(nl, family) if _is_to(raw, family, wanted, addresses)]
            head = _head(family)
            messages = [Message(_DELETE, 0, head + netlink.nested(_TUPLE_ORIG, raw), "forget a flow") for raw in found]
            for start in range(0, len(messages), 100):
                nl.send(messages[start : start + 100], ignore=frozenset({errno.ENOENT}))
            gone += len(found)
    return gone


def _head(family: int) -> bytes:
    return struct.pack("!BBH", _FAMILIES[family], 0, 0)  # struct nfgenmsg


def _flows(nl: Socket, family: int) -> list[bytes]:
    """Return the original tuples of all UDP flows; kernels before 5.8 cannot choose, and send those of TCP as well."""
    udp = netlink.nested(_TUPLE_PROTO, netlink.attribute(_PROTO_NUM, bytes([socket.IPPROTO_UDP])))
    chosen = netlink.nested(_TUPLE_ORIG, udp) + netlink.nested(
        _FILTER, netlink.number(_FILTER_ORIG_FLAGS, _BY_PROTOCOL), netlink.number(_FILTER_REPLY_FLAGS, 0)
    )
    try:
        bodies = nl.dump(_GET, _head(family) + chosen)
    except NetlinkError:
        bodies = nl.dump(_GET, _head(family))
    return [raw for body in bodies if (raw := dict(netlink.attributes(body, 4)).get(_TUPLE_ORIG))]


def _is_to(raw: bytes, family: int, ports: Collection[int], addresses: Collection[str]) -> bool:
    parts = dict(netlink.attributes(raw))
    protocol = dict(netlink.attributes(parts.get(_TUPLE_PROTO, b"")))
    if protocol.get(_PROTO_NUM) != bytes([socket.IPPROTO_UDP]):
        return False
    if int.from_bytes(protocol.get(_PROTO_DST_PORT, b""), "big") not in ports:
        return False
    address = dict(netlink.attributes(parts.get(_TUPLE_IP, b""))).get(_V6_DST if family == 6 else _V4_DST)
    if address is None:
        return False
    text = socket.inet_ntop(_FAMILIES[family], address)
    return text in addresses or text.startswith("127.")
