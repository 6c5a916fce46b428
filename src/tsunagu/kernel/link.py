"""Links, addresses and routes: what one netlink message batch each does.

Functions take an open `netlink.Socket`, which decides the namespace; those that write sysctls act on the namespace in
which the calling thread is. May import `model`, `netlink` and `sysctl` only. Must never touch an interface that it was
not given by name.

Kernel facts used here: an interface's `disable_ipv6` must be set before it goes up, or it gets a link-local address;
a bridge keeps the MAC it was given, and takes its lowest port's otherwise; veth peers may be born in another namespace
with their final name (VETH_INFO_PEER with IFLA_NET_NS_FD); RTM_GETLINK makes the kernel finish pending carrier work.
"""

from __future__ import annotations

import errno
import hashlib
import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from tsunagu.model.errors import Conflict, KernelFailure
from tsunagu.model.network import BridgePlan, InterfacePlan, RoutePlan, port_group

from . import netlink, sysctl
from .netlink import Message, Socket

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_OPERSTATE, IFLA_LINKINFO = 1, 3, 4, 10, 16, 18
_IFLA_PROTINFO, _IFLA_TXQLEN, _IFLA_IFALIAS, _IFLA_GROUP, _IFLA_NET_NS_FD = 12, 13, 20, 27, 28
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_BRPORT_STATE, _BRPORT_MODE = 1, 4
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_PRIORITY = 1, 4, 5, 8, 6
_RTAX_MTU = 2
_IFF_UP = 1
_OPER_UP = 6
_GONE = frozenset({errno.ENODEV, errno.ENXIO})

_HALF = 1  # prefix lengths up to this are a default route, or one cut in two by a VPN: they take no pool away


class Link(NamedTuple):
    """What a link dump tells that we use."""

    ifindex: int
    name: str
    kind: str
    mtu: int
    mac: str
    alias: str
    is_up: bool
    master: int = 0  # index of the bridge it is a port of
    group: int = 0


# ---- bridges


def ensure_bridge(nl: Socket, plan: BridgePlan, mark: str) -> None:
    """Make the bridge of `plan` exist with its addresses, and be up; the thread must be in the host namespace.

    Bridges made here carry `mark` as their alias. One that exists with our mark is adopted and repaired; one that
    somebody else made is used as it is, with our addresses added (Docker's behaviour for bridge.name), and never
    removed. Raises Conflict when the name belongs to an interface that is no bridge, KernelFailure when IPv6 cannot be
    shut off on a bridge without it (CVE-2024-32473).
    """
    found = find(nl, plan.name)
    if found is not None and found.kind != "bridge":
        raise Conflict(
            f"interface {plan.name} exists and is not a bridge",
            hint=f"choose another name (option com.docker.network.bridge.name) or remove it: ip link del {plan.name}",
        )
    if found is None:
        nl.send([_new_bridge(plan), _mark(plan.name, mark)])
    try:
        sysctl.write_ipv6(plan.name, has_ipv6=plan.has_ipv6)
        # never switched off: on a bridge of somebody else it may be there for him
        if plan.routes_loopback:
            sysctl.write(f"net/ipv4/conf/{plan.name}/route_localnet", "1")
        if plan.is_silent:
            sysctl.write(f"net/ipv4/conf/{plan.name}/arp_ignore", "8")  # for all local addresses
        index = socket.if_nametoindex(plan.name)
        is_ours = found is None or found.alias == mark
        parts = [netlink.number(IFLA_MTU, plan.mtu)] if is_ours else []
        body = netlink.link_body(*parts, index=index, flags=_IFF_UP, change=_IFF_UP)
        batch = [Message(netlink.RTM_NEWLINK, 0, body, f"set bridge {plan.name} up with mtu {plan.mtu}")]
        batch += [_new_address(index, cidr, plan.name) for cidr in plan.addresses]
        if found is not None and is_ours:
            wanted = {_split(cidr) for cidr in plan.addresses}
            batch[:0] = [
                _delete_address(index, address, prefix)
                for owner, address, prefix, scope in addresses(nl)
                if owner == index and scope != "link" and (address, prefix) not in wanted
            ]
        nl.send(batch)
    except BaseException:
        if found is None:
            with suppress(OSError):
                delete(nl, [plan.name])
        raise


def _new_bridge(plan: BridgePlan) -> Message:
    # Without an MTU: the kernel keeps only one that is set afterwards when the last port leaves (br_mtu_auto_adjust).
    body = netlink.link_body(
        netlink.text(IFLA_IFNAME, plan.name),
        netlink.attribute(IFLA_ADDRESS, _stable_mac(plan.name)),
        netlink.nested(IFLA_LINKINFO, netlink.text(_INFO_KIND, "bridge")),
    )
    return Message(netlink.RTM_NEWLINK, netlink.NLM_F_CREATE | netlink.NLM_F_EXCL, body, f"create bridge {plan.name}")


def _stable_mac(name: str) -> bytes:
    """A locally administered unicast address that follows from the name: neighbours may remember it over a restart."""
    digest = hashlib.sha256(name.encode()).digest()
    return bytes([0x02]) + digest[:5]


# ---- veth pairs


def create_veths(nl: Socket, plans: Sequence[InterfacePlan], namespace: int, mark: str) -> None:
    """Create each plan's pair: host end attached to its bridge and down, inner end born in `namespace`, down.

    The thread must be in the host namespace. Raises NetlinkError, KernelFailure for a missing bridge.
    """
    batch = []
    for plan in plans:
        try:
            master = socket.if_nametoindex(plan.bridge)
        except OSError as error:
            raise KernelFailure(
                f"bridge {plan.bridge} does not exist",
                hint="it was removed behind the engine's back: restart the engine",
            ) from error
        inner = netlink.link_body(
            netlink.text(IFLA_IFNAME, plan.name),
            netlink.attribute(IFLA_ADDRESS, mac_bytes(plan.mac)),
            netlink.number(IFLA_MTU, plan.mtu),
            netlink.number(_IFLA_TXQLEN, 0),  # no queue, as Docker's: `ip link` inside shows none
            netlink.number(_IFLA_NET_NS_FD, namespace),
        )
        body = netlink.link_body(
            netlink.text(IFLA_IFNAME, plan.host_name),
            netlink.number(IFLA_MTU, plan.mtu),
            netlink.number(_IFLA_TXQLEN, 0),
            netlink.number(IFLA_MASTER, master),
            netlink.number(_IFLA_GROUP, port_group(plan.bridge)),
            netlink.nested(
                IFLA_LINKINFO,
                netlink.text(_INFO_KIND, "veth"),
                netlink.nested(_INFO_DATA, netlink.attribute(_VETH_INFO_PEER, inner)),
            ),
        )
        batch.append(
            Message(
                netlink.RTM_NEWLINK,
                netlink.NLM_F_CREATE | netlink.NLM_F_EXCL,
                body,
                f"create {plan.host_name} on bridge {plan.bridge} with {plan.name} inside",
            )
        )
        batch.append(_mark(plan.host_name, mark))
    nl.send(batch)
    for plan in plans:
        sysctl.write_ipv6(plan.host_name, has_ipv6=False)  # a bridge port needs no address of its own
    nl.send([_hairpin(plan.host_name) for plan in plans if plan.has_hairpin])
    nl.send([_up(plan.host_name) for plan in plans])


def _hairpin(name: str) -> Message:
    body = netlink.link_body(
        netlink.nested(_IFLA_PROTINFO, netlink.attribute(_BRPORT_MODE, b"\1")),
        index=socket.if_nametoindex(name),
        family=netlink.AF_BRIDGE,
    )
    return Message(netlink.RTM_SETLINK, 0, body, f"let the bridge send frames of {name} back to it")


def attach_ports(nl: Socket, plans: Sequence[InterfacePlan]) -> None:
    """Put host ends that exist on their bridges again, up; the thread must be in the host namespace. Raises
    NetlinkError, and OSError for a missing bridge."""
    nl.send(
        [
            Message(
                netlink.RTM_SETLINK,
                0,
                netlink.link_body(
                    netlink.number(IFLA_MASTER, socket.if_nametoindex(plan.bridge)),
                    netlink.number(_IFLA_GROUP, port_group(plan.bridge)),
                    index=socket.if_nametoindex(plan.host_name),
                ),
                f"put {plan.host_name} on bridge {plan.bridge}",
            )
            for plan in plans
        ]
    )
    nl.send([_hairpin(plan.host_name) for plan in plans if plan.has_hairpin])
    nl.send([_up(plan.host_name) for plan in plans])


def configure_inner(nl: Socket, plans: Sequence[InterfacePlan], *, with_loopback: bool) -> None:
    """Address the inner ends and set them up; the thread and `nl` must be inside the sandbox.

    Raises KernelFailure in Docker's words for a sysctl that is not there or does not take its value.
    """
    addressing, rising = [], [_up("lo")] if with_loopback else []
    for plan in plans:
        sysctl.write_ipv6(plan.name, has_ipv6=plan.has_ipv6)
        if plan.announcements:
            sysctl.write(f"net/ipv4/conf/{plan.name}/arp_notify", "1")
        if plan.announcements and plan.has_ipv6:
            sysctl.write(f"net/ipv6/conf/{plan.name}/ndisc_notify", "1")
        index = socket.if_nametoindex(plan.name)
        addressing += [_new_address(index, cidr, plan.name) for cidr in plan.addresses]
        rising.append(_up(plan.name))
    if any(plan.sysctls for plan in plans):
        nl.send(addressing)
        addressing = []
        for path, value in (one for plan in plans for one in plan.sysctls):
            sysctl.set_checked(path, value)
    nl.send(addressing + rising)


def announce(nl: Socket, plans: Iterable[InterfacePlan]) -> bool:
    """Let the kernel send a gratuitous ARP and an unsolicited neighbour advertisement for every address inside.

    Neighbours that remember the address under another MAC learn the new one at once (moby#36069). Setting the same MAC
    again is the event on which the kernel announces when `arp_notify` and `ndisc_notify` are on; before that we ask for
    the link, which makes the kernel finish the carrier work, so that the interface really sends.
    Returns False when an interface is not yet running.
    """
    plans = [plan for plan in plans if plan.announcements]
    if not all(is_running(nl, plan.name) for plan in plans):
        return False
    nl.send(
        [
            Message(
                netlink.RTM_SETLINK,
                0,
                netlink.link_body(
                    netlink.text(IFLA_IFNAME, plan.name), netlink.attribute(IFLA_ADDRESS, mac_bytes(plan.mac))
                ),
                f"announce {plan.name}",
            )
            for plan in plans
        ]
    )
    return True


def is_running(nl: Socket, name: str) -> bool:
    """True when the link's operational state is up (for a bridge port: it forwards)."""
    body = nl.get(netlink.RTM_GETLINK, netlink.link_body(netlink.text(IFLA_IFNAME, name)))
    return dict(netlink.attributes(body, 16)).get(IFLA_OPERSTATE) == bytes([_OPER_UP])


def silence(nl: Socket, names: Iterable[str]) -> None:
    """Stop the bridge from forwarding to and from these ports, at once (deleting them waits for RCU; this does not)."""
    batch = []
    for name in names:
        with suppress(OSError):
            batch.append(
                Message(
                    netlink.RTM_SETLINK,
                    0,
                    netlink.link_body(
                        netlink.nested(_IFLA_PROTINFO, netlink.attribute(_BRPORT_STATE, b"\0")),
                        index=socket.if_nametoindex(name),
                        family=netlink.AF_BRIDGE,
                    ),
                    f"silence {name}",
                )
            )
    # EOPNOTSUPP: the port is on no bridge any more
    nl.send(batch, ignore=_GONE | {errno.EOPNOTSUPP, errno.EINVAL, errno.ENETDOWN})


def delete(nl: Socket, names: Sequence[str], group: int = 0) -> None:
    """Delete links by name; no error for one that is gone. Waits for the kernel, about 20 ms per call.

    With a `group` number that nobody else uses, several links are gathered in that group and deleted by one message,
    which waits once instead of once per link.
    """
    if group and len(names) > 1:
        grouping = [
            Message(
                netlink.RTM_SETLINK,
                0,
                netlink.link_body(netlink.text(IFLA_IFNAME, name), netlink.number(_IFLA_GROUP, group)),
                f"doom {name}",
            )
            for name in names
        ]
        nl.send(grouping, ignore=_GONE)
        whole = Message(
            netlink.RTM_DELLINK, 0, netlink.link_body(netlink.number(_IFLA_GROUP, group)), "delete doomed links"
        )
        nl.send([whole], ignore=_GONE)
        return
    nl.send(
        [
            Message(netlink.RTM_DELLINK, 0, netlink.link_body(netlink.text(IFLA_IFNAME, name)), f"delete {name}")
            for name in names
        ],
        ignore=_GONE,
    )


def set_up(nl: Socket, name: str) -> None:
    """Set one link up. Raises NetlinkError."""
    nl.send([_up(name)])


# ---- default routes


def set_default_routes(nl: Socket, routes: Sequence[RoutePlan]) -> None:
    """Make `routes` the default routes of this namespace, at most one per family, without a moment without one.

    The thread and `nl` must be inside the sandbox. A family without a route in `routes` loses the one it has.
    """
    wanted = {(6 if ":" in route.gateway else 4): route for route in routes}
    batch = []
    for family, route in wanted.items():
        number = socket.AF_INET6 if family == 6 else socket.AF_INET
        body = netlink.route_body(
            netlink.attribute(_RTA_GATEWAY, socket.inet_pton(number, route.gateway)),
            netlink.number(_RTA_OIF, socket.if_nametoindex(route.ifname)),
            family=number,
        )
        batch.append(
            Message(
                netlink.RTM_NEWROUTE,
                netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE,
                body,
                f"default route via {route.gateway} on {route.ifname}",
            )
        )
    for family in {4, 6} - set(wanted):
        number = socket.AF_INET6 if family == 6 else socket.AF_INET
        batch.append(Message(netlink.RTM_DELROUTE, 0, netlink.route_body(family=number), "remove the default route"))
    nl.send(batch, ignore=frozenset({errno.ESRCH, errno.EAFNOSUPPORT}))


# ---- reading


def find(nl: Socket, name: str) -> Link | None:
    """Return one link, None when there is none of that name."""
    try:
        return _parse_link(nl.get(netlink.RTM_GETLINK, netlink.link_body(netlink.text(IFLA_IFNAME, name))))
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def links(nl: Socket) -> list[Link]:
    """Return every link of the socket's namespace."""
    return [_parse_link(body) for body in nl.dump(netlink.RTM_GETLINK, netlink.link_body())]


def _parse_link(body: bytes) -> Link:
    _, index, flags, _ = struct.unpack_from("=HxxiII", body)
    found = dict(netlink.attributes(body, 16))
    kind = dict(netlink.attributes(found.get(IFLA_LINKINFO, b""))).get(_INFO_KIND, b"")
    return Link(
        ifindex=index,
        name=found[IFLA_IFNAME].rstrip(b"\0").decode(errors="replace"),
        kind=kind.rstrip(b"\0").decode(),
        mtu=int.from_bytes(found.get(IFLA_MTU, b""), "little"),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        alias=found.get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
        is_up=bool(flags & _IFF_UP),
        master=int.from_bytes(found.get(IFLA_MASTER, b""), "little"),
        group=int.from_bytes(found.get(_IFLA_GROUP, b""), "little"),
    )


def addresses(nl: Socket) -> list[tuple[int, str, int, str]]:
    """Return (interface index, address, prefix length, scope) of every address; scope is "link" or ""."""
    result = []
    for body in nl.dump(netlink.RTM_GETADDR, netlink.address_body(family=0, prefix=0, index=0)):
        family, prefix, _, scope, index = struct.unpack_from("=BBBBI", body)
        found = dict(netlink.attributes(body, 8))
        raw = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))
        if raw is not None and family in {socket.AF_INET, socket.AF_INET6}:
            result.append((index, socket.inet_ntop(family, raw), prefix, "link" if scope == 253 else ""))
    return result


def prefixes(nl: Socket) -> set[str]:
    """Return the destinations of all routing tables as CIDR texts, without default routes, fe80::/10 and multicast."""
    seen: set[tuple[int, int, bytes]] = set()
    for body in nl.dump(netlink.RTM_GETROUTE, netlink.route_body(family=0, table=0, protocol=0, kind=0)):
        family, length = body[0], body[1]
        if length <= _HALF or family not in {socket.AF_INET, socket.AF_INET6}:
            continue
        for kind, raw in netlink.attributes(body, 12):
            if kind == _RTA_DST:
                seen.add((family, length, raw))
                break
    return {
        f"{socket.inet_ntop(family, raw)}/{length}"
        for family, length, raw in seen
        if not (family == socket.AF_INET6 and (raw[0] == 0xFF or (raw[0] == 0xFE and raw[1] & 0xC0 == 0x80)))
        and not (family == socket.AF_INET and 224 <= raw[0] <= 239)
    }


def default_mtu(nl: Socket) -> int:
    """Return the MTU of the host's IPv4 default route (its metric, else its interface's), 1500 without one."""
    best: tuple[int, int, int] | None = None  # metric, route mtu, interface
    for body in nl.dump(netlink.RTM_GETROUTE, netlink.route_body(family=socket.AF_INET, table=0, protocol=0, kind=0)):
        if body[1] != 0 or body[4] != 254:  # destination length, table main
            continue
        found = dict(netlink.attributes(body, 12))
        if _RTA_OIF not in found:
            continue
        metrics = dict(netlink.attributes(found.get(_RTA_METRICS, b"")))
        entry = (
            int.from_bytes(found.get(_RTA_PRIORITY, b""), "little"),
            int.from_bytes(metrics.get(_RTAX_MTU, b""), "little"),
            int.from_bytes(found[_RTA_OIF], "little"),
        )
        best = entry if best is None else min(best, entry)
    if best is None:
        return 1500
    if best[1]:
        return best[1]
    return _parse_link(nl.get(netlink.RTM_GETLINK, netlink.link_body(index=best[2]))).mtu


# ---- pieces


def mac_bytes(mac: str) -> bytes:
    """Six bytes of a colon-separated MAC address; raises ValueError."""
    return bytes.fromhex(mac.replace(":", ""))


def _split(cidr: str) -> tuple[str, int]:
    address, _, prefix = cidr.partition("/")
    number = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_ntop(number, socket.inet_pton(number, address)), int(prefix)


def _mark(name: str, mark: str) -> Message:
    # the kernel takes no alias at creation; in one batch with it, not even a kill can come between the two
    body = netlink.link_body(netlink.text(IFLA_IFNAME, name), netlink.text(_IFLA_IFALIAS, mark))
    return Message(netlink.RTM_SETLINK, 0, body, f"mark {name}")


def _up(name: str) -> Message:
    body = netlink.link_body(netlink.text(IFLA_IFNAME, name), flags=_IFF_UP, change=_IFF_UP)
    return Message(netlink.RTM_NEWLINK, 0, body, f"set {name} up")


def _new_address(index: int, cidr: str, name: str) -> Message:
    address, prefix = _split(cidr)
    if ":" in address:
        raw = socket.inet_pton(socket.AF_INET6, address)
        # no duplicate address detection: the engine hands addresses out, and a second of silence would be felt
        parts = [netlink.attribute(_IFA_ADDRESS, raw), netlink.number(_IFA_FLAGS, _IFA_F_NODAD)]
        family = socket.AF_INET6
    else:
        raw = socket.inet_pton(socket.AF_INET, address)
        parts = [netlink.attribute(_IFA_LOCAL, raw), netlink.attribute(_IFA_ADDRESS, raw)]
        if prefix <= 30:
            host_bits = (1 << (32 - prefix)) - 1
            parts.append(netlink.attribute(_IFA_BROADCAST, struct.pack("!I", struct.unpack("!I", raw)[0] | host_bits)))
        family = socket.AF_INET
    body = netlink.address_body(*parts, family=family, prefix=prefix, index=index)
    return Message(
        netlink.RTM_NEWADDR, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE, body, f"add address {cidr} to {name}"
    )


def _delete_address(index: int, address: str, prefix: int) -> Message:
    number = socket.AF_INET6 if ":" in address else socket.AF_INET
    raw = socket.inet_pton(number, address)
    kind = _IFA_ADDRESS if number == socket.AF_INET6 else _IFA_LOCAL
    body = netlink.address_body(netlink.attribute(kind, raw), family=number, prefix=prefix, index=index)
    return Message(netlink.RTM_DELADDR, 0, body, f"remove stale address {address}/{prefix}")
