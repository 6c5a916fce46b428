"""Walk a packet through the rule programme: the meaning that `rules.policy` gives to its values, and nothing else.

`reach` asks this about packets that nobody has sent; the differential test holds it against the kernel. Imports
`policy` only; pure. Must never know a network's options: whatever they mean stands in the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network

import msgspec

from tsunagu.model.network import PublishedPort

from .policy import LOOPBACK, LOOPBACK6, Frame, Hook, LinkedPort, Peer, Rule, Verdict

FOREIGN = "*"  # an interface of the host that is none of our bridges, and not the loopback

# The hooks in the order in which a packet passes them. Those of one stage are one hook of the kernel: the first rule
# that matches in any of them ends the stage.
STAGES: tuple[tuple[Hook, ...], ...] = (
    (Hook.BRIDGE_PREROUTING,),
    (Hook.BRIDGE_FORWARD,),
    (Hook.LOOPBACK, Hook.PREROUTING),
    (Hook.PUBLISHED,),
    (Hook.OWN,),
    (Hook.SEALED, Hook.ENTERING, Hook.LEAVING),
    (Hook.HAIRPIN, Hook.POSTROUTING),
)


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """A packet as the host sees it. `incoming` and `outgoing` are interfaces, "" for the host itself.

    One that a TRANSLATE rule gave a new destination goes on as another packet, which `is_translated`: it has passed the
    hooks before the translation already. So has the answer to one. `port` is that of the side that was asked: where the
    packet goes to, and where an answer comes from.
    """

    source: str
    destination: str
    incoming: str = ""
    outgoing: str = ""
    protocol: str = ""
    port: int = 0
    is_established: bool = False
    is_translated: bool = False
    is_kept_on_bridge: bool = False  # bridge netfilter translated it on its bridge, and its target is there too

    @property
    def is_bridged(self) -> bool:
        """From one port of a bridge to another: the host's own addresses have no part in it.

        What was translated was sent to the host, which routes it, back to the same bridge too; unless bridge
        netfilter translated it before the host had it (br_nf_pre_routing_finish)."""
        is_routed = self.is_translated and not self.is_kept_on_bridge
        return bool(self.incoming) and self.incoming == self.outgoing and not is_routed


def rulings(programme: Sequence[Rule], packet: Packet) -> tuple[Rule, ...]:
    """Return the rules that decide about the packet, one per stage that has one, up to the first that drops it or
    gives it another destination."""
    bridges = frozenset(rule.bridge for rule in programme)
    offered = frozenset(_entrance(rule.target, rule.port) for rule in programme if rule.port is not None)
    is_offered = (packet.destination, packet.protocol, packet.port) in offered
    decided = []
    for stage in STAGES:
        rule = next(_matching(programme, stage, packet, bridges, is_offered=is_offered), None)
        if rule is not None:
            decided.append(rule)
            if rule.verdict in (Verdict.DROP, Verdict.TRANSLATE):
                break
    return tuple(decided)


def _entrance(target: str, port: PublishedPort) -> tuple[str, str, int]:
    return target, port.protocol, port.container_port


def _matching(
    programme: Sequence[Rule], stage: tuple[Hook, ...], packet: Packet, bridges: frozenset[str], *, is_offered: bool
) -> Iterator[Rule]:
    for hook in stage:
        for rule in programme:
            if (
                rule.hook is hook
                and _concerns(rule, packet)
                and _fits(rule, packet, bridges)
                and (rule.frame is not Frame.OFFERED or is_offered)
            ):
                yield rule


def _concerns(rule: Rule, packet: Packet) -> bool:
    """Tell whether a packet passes the rule's hook and is "of its network" there (the texts of `policy.Hook`)."""
    is_forwarded = bool(packet.incoming and packet.outgoing)
    match rule.hook:
        case Hook.BRIDGE_PREROUTING:
            return packet.incoming == rule.bridge and not packet.is_translated
        case Hook.LOOPBACK:
            return packet.incoming == rule.bridge and not packet.is_translated and _is_in(packet.destination, LOOPBACK)
        case Hook.BRIDGE_FORWARD:
            return packet.is_bridged and packet.incoming == rule.bridge
        case Hook.PREROUTING:
            return bool(packet.incoming) and not packet.is_translated and _is_in(packet.destination, rule.prefix)
        case Hook.PUBLISHED:
            return bool(packet.incoming) and _is_offered(rule, packet)
        case Hook.OFFERED:
            return False
        case Hook.OWN:
            return not packet.incoming and _is_offered(rule, packet)
        case Hook.SEALED | Hook.LEAVING:
            return is_forwarded and packet.incoming == rule.bridge
        case Hook.ENTERING:
            return is_forwarded and packet.outgoing == rule.bridge
        case Hook.HAIRPIN:
            return (
                packet.is_translated
                and not packet.is_established
                and packet.outgoing == rule.bridge
                and _is_in(packet.source, rule.prefix)
            )
        case Hook.POSTROUTING:
            # the nat hooks see the first packet of a connection only
            return bool(packet.outgoing) and not packet.is_established and _is_in(packet.source, rule.prefix)


def _is_offered(rule: Rule, packet: Packet) -> bool:
    """Tell whether the rule's published port is what the first packet of a connection to the host is sent to."""
    port = rule.port
    if port is None or packet.outgoing or packet.is_established or packet.is_translated:
        return False
    if packet.destination == LOOPBACK6 or port.family != ip_address(packet.destination).version:
        return False
    if (port.protocol, port.host_port) != (packet.protocol, packet.port):
        return False
    return port.is_for_any_address or ip_address(port.host_ip) == ip_address(packet.destination)


def _fits(rule: Rule, packet: Packet, bridges: frozenset[str]) -> bool:
    if rule.family and rule.family != ip_address(packet.destination or packet.source).version:
        return False
    leaves = rule.hook in {Hook.SEALED, Hook.LEAVING, Hook.POSTROUTING}
    return _is_peer(rule, packet.outgoing if leaves else packet.incoming, bridges) and _is_frame(rule, packet)


def _is_peer(rule: Rule, other: str, bridges: frozenset[str]) -> bool:
    match rule.peer:
        case Peer.ANY:
            return True
        case Peer.SAME:
            return other == rule.bridge
        case Peer.OTHER:
            return other != rule.bridge
        case Peer.OURS:
            return other in bridges
        case Peer.FOREIGN:
            return other not in bridges
        case Peer.TRUSTED:
            return other in rule.interfaces


def _is_frame(rule: Rule, packet: Packet) -> bool:
    match rule.frame:
        case Frame.ANY | Frame.NOT_ARP | Frame.OFFERED:  # a packet that asks for an address is not what we walk
            return True
        case Frame.ESTABLISHED:
            return packet.is_established
        case Frame.UNSOLICITED:
            return not packet.is_established and bool(packet.outgoing)
        case Frame.ROUTER_ADVERTISEMENT:
            return False
        case Frame.PUBLISHED:
            return packet.is_translated
        case Frame.ICMP:
            return packet.protocol == "icmp"
        case Frame.LINKED:
            return not packet.is_established and _is_linked(rule, packet, packet.source, packet.destination)
        case Frame.LINKED_ANSWER:
            return packet.is_established and _is_linked(rule, packet, packet.destination, packet.source)


def _is_linked(rule: Rule, packet: Packet, source: str, target: str) -> bool:
    return LinkedPort(source, target, packet.protocol, packet.port) in rule.links


def _is_in(address: str, prefix: str) -> bool:
    return bool(address) and ip_address(address) in ip_network(prefix)
