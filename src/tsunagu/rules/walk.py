"""Walk a packet through the rule programme: the meaning that `rules.policy` gives to its values, and nothing else.

`reach` asks this about packets that nobody has sent; the differential test holds it against the kernel. Imports
`policy` only; pure. Must never know a network's options: whatever they mean stands in the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network

import msgspec

from .policy import Frame, Hook, Peer, Rule, Verdict

FOREIGN = "*"  # an interface of the host that is none of our bridges, and not the loopback

# The hooks in the order in which a packet passes them. Those of one stage are one hook of the kernel: the first rule
# that matches in any of them ends the stage.
STAGES: tuple[tuple[Hook, ...], ...] = (
    (Hook.BRIDGE_PREROUTING,),
    (Hook.BRIDGE_FORWARD,),
    (Hook.PREROUTING,),
    (Hook.SEALED, Hook.ENTERING, Hook.LEAVING),
    (Hook.POSTROUTING,),
)


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """A packet as the host sees it. `incoming` and `outgoing` are interfaces, "" for the host itself."""

    source: str
    destination: str
    incoming: str = ""
    outgoing: str = ""
    is_established: bool = False

    @property
    def is_bridged(self) -> bool:
        """From one port of a bridge to another: the host's own addresses have no part in it."""
        return bool(self.incoming) and self.incoming == self.outgoing


def rulings(programme: Sequence[Rule], packet: Packet) -> tuple[Rule, ...]:
    """Return the rules that decide about the packet, one per stage that has one, up to the first that drops it."""
    bridges = frozenset(rule.bridge for rule in programme)
    decided = []
    for stage in STAGES:
        rule = next(_matching(programme, stage, packet, bridges), None)
        if rule is not None:
            decided.append(rule)
            if rule.verdict is Verdict.DROP:
                break
    return tuple(decided)


def _matching(
    programme: Sequence[Rule], stage: tuple[Hook, ...], packet: Packet, bridges: frozenset[str]
) -> Iterator[Rule]:
    for hook in stage:
        for rule in programme:
            if rule.hook is hook and _concerns(rule, packet) and _fits(rule, packet, bridges):
                yield rule


def _concerns(rule: Rule, packet: Packet) -> bool:
    """Tell whether a packet passes the rule's hook and is "of its network" there (the texts of `policy.Hook`)."""
    is_forwarded = bool(packet.incoming and packet.outgoing)
    match rule.hook:
        case Hook.BRIDGE_PREROUTING:
            return packet.incoming == rule.bridge
        case Hook.BRIDGE_FORWARD:
            return packet.is_bridged and packet.incoming == rule.bridge
        case Hook.PREROUTING:
            return bool(packet.incoming) and _is_in(packet.destination, rule.prefix)
        case Hook.SEALED | Hook.LEAVING:
            return is_forwarded and packet.incoming == rule.bridge
        case Hook.ENTERING:
            return is_forwarded and packet.outgoing == rule.bridge
        case Hook.POSTROUTING:
            # the nat hooks see the first packet of a connection only
            return bool(packet.outgoing) and not packet.is_established and _is_in(packet.source, rule.prefix)
    raise NotImplementedError(f"the walk knows no hook {rule.hook}")


def _fits(rule: Rule, packet: Packet, bridges: frozenset[str]) -> bool:
    leaves = rule.hook in {Hook.SEALED, Hook.LEAVING, Hook.POSTROUTING}
    return _is_peer(rule.peer, packet.outgoing if leaves else packet.incoming, rule.bridge, bridges) and _is_frame(
        rule.frame, packet
    )


def _is_peer(peer: Peer, other: str, bridge: str, bridges: frozenset[str]) -> bool:
    match peer:
        case Peer.ANY:
            return True
        case Peer.SAME:
            return other == bridge
        case Peer.OTHER:
            return other != bridge
        case Peer.OURS:
            return other in bridges
        case Peer.FOREIGN:
            return other not in bridges
    raise NotImplementedError(f"the walk knows no peer {peer}")


def _is_frame(frame: Frame, packet: Packet) -> bool:
    match frame:
        case Frame.ANY | Frame.NOT_ARP:  # a packet that asks for an address is not what we walk
            return True
        case Frame.ESTABLISHED:
            return packet.is_established
        case Frame.UNSOLICITED:
            return not packet.is_established and bool(packet.outgoing)
        case Frame.ROUTER_ADVERTISEMENT:
            return False
    raise NotImplementedError(f"the walk knows no frame {frame}")


def _is_in(address: str, prefix: str) -> bool:
    return bool(address) and ip_address(address) in ip_network(prefix)
