"""Who may talk to whom, as data: `programme(world)` is the only producer of packet rules.

A programme is an ordered tuple of `Rule` values. Its meaning, for the nft printer and for every other reader alike:

    At each hook the rules are tried in order; a rule is tried only for packets of its network (see `Hook`); the first
    one that matches decides for this hook, DROP for good. A packet that no rule matches is not ours and passes.

Imports `model` only; pure. Must never know nftables, and nobody else may decide about packets.

The order inside the forward hook says: what is internal stays inside, before anything else; then what may *enter* a
network; then what may *leave* one. So a packet between two networks is judged by the one it enters, and established
answers are let through once, at the entrance.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TypeAlias

import msgspec

from tsunagu.model.network import Network
from tsunagu.model.world import World


class Hook(Enum):
    """Where a rule is tried, in the order in which packets pass; the text says which packets are "of its network"."""

    BRIDGE_PREROUTING = "frames that a port of the bridge receives"
    PREROUTING = "packets towards the prefix, from any interface, before address translation"
    SEALED = "forwarded packets that come from the bridge of an internal network"
    ENTERING = "forwarded packets that go out to the bridge"
    LEAVING = "forwarded packets that come from the bridge"
    BRIDGE_FORWARD = "frames from one port of the bridge to another"
    POSTROUTING = "packets from the prefix that leave the host or enter a bridge; first packet of a connection only"


class Peer(Enum):
    """What the packet's other interface must be: the incoming one when entering, the outgoing one when leaving."""

    ANY = auto()
    SAME = auto()  # the network's own bridge
    OTHER = auto()  # anything but the network's own bridge
    OURS = auto()  # a bridge of ours
    FOREIGN = auto()  # neither a bridge of ours nor the loopback interface


class Frame(Enum):
    """What the packet itself must be."""

    ANY = auto()
    ESTABLISHED = auto()  # belongs or relates to a connection that was let through before
    UNSOLICITED = auto()  # the opposite, and not addressed to the host itself
    NOT_ARP = auto()
    ROUTER_ADVERTISEMENT = auto()


class Verdict(Enum):
    ACCEPT = "accept"
    DROP = "drop"
    MASQUERADE = "masquerade"


class Reason(Enum):
    """Why a rule decides: code, sentence, and the remedy ("" where nothing is wrong)."""

    SAME_NETWORK = ("same-network", "both are on network {network}", "")
    ESTABLISHED = ("established", "it answers a connection that was let through", "")
    OUTGOING = ("outgoing", "network {network} may reach outside", "")
    MASQUERADE = ("masquerade", "outside sees the host's address", "")
    ICC_OFF = (
        "icc-off",
        "network {network} keeps its containers apart (com.docker.network.bridge.enable_icc=false)",
        "use a network without that option",
    )
    NO_SHARED_NETWORK = (
        "no-shared-network",
        "the two are on different networks",
        "connect both to one network: network connect {network} CONTAINER",
    )
    UNPUBLISHED = (
        "unpublished",
        "network {network} takes no connections from outside",
        "publish the port: run -p HOSTPORT:PORT",
    )
    INTERNAL_INGRESS = (
        "internal-ingress",
        "network {network} is internal: nothing comes in",
        "connect the container to an ordinary network as well",
    )
    INTERNAL_EGRESS = (
        "internal-egress",
        "network {network} is internal: nothing goes out",
        "connect the container to an ordinary network as well",
    )
    DIRECT_ROUTING = (
        "direct-routing",
        "a neighbour of the host may not address containers of network {network} directly",
        "publish the port: run -p HOSTPORT:PORT",
    )
    ROUTER_ADVERTISEMENT = (
        "router-advertisement",
        "a container may not pose as a router of network {network}",
        "",
    )

    def __init__(self, code: str, sentence: str, hint: str) -> None:
        self.code = code
        self.sentence = sentence
        self.hint = hint


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One decision. `network` is an id, `prefix` a CIDR text for the hooks that select by address."""

    hook: Hook
    network: str
    bridge: str
    verdict: Verdict
    reason: Reason
    peer: Peer = Peer.ANY
    frame: Frame = Frame.ANY
    prefix: str = ""


Part: TypeAlias = dict[Hook, list[Rule]]

# The parts of the networks of the last world. A network is frozen, so its rules are the same values for ever; keeping
# them makes the programme of a world with hundreds of networks a matter of a millisecond, and lets readers tell by
# identity what changed from one programme to the next.
_parts: dict[str, tuple[Network, Part]] = {}


def programme(world: World) -> tuple[Rule, ...]:
    """Return the rules for every bridge network of `world`, in order (see the module's text)."""
    parts = [_part(network) for network in world.networks.values() if _is_ours(network)]
    if len(_parts) > 2 * len(parts) + 16:
        for gone in _parts.keys() - world.networks.keys():
            del _parts[gone]
    return tuple(rule for hook in Hook for part in parts for rule in part[hook])


def rules_of(network: Network) -> tuple[Rule, ...]:
    """Return the part of the programme that belongs to one network, in order; empty for networks without a bridge.

    The programme is nothing but these parts, sorted by hook: no rule of one network depends on another network.
    """
    return tuple(rule for rules in _part(network).values() for rule in rules) if _is_ours(network) else ()


def _is_ours(network: Network) -> bool:
    return network.driver == "bridge" and bool(network.bridge)


def _part(network: Network) -> Part:
    known = _parts.get(network.id)
    if known is not None and known[0] is network:
        return known[1]
    part = {hook: _rules(hook, network) for hook in Hook}
    _parts[network.id] = network, part
    return part


def _rules(hook: Hook, network: Network) -> list[Rule]:
    """The rules of one network at one hook, in order."""

    def rule(
        verdict: Verdict, reason: Reason, peer: Peer = Peer.ANY, frame: Frame = Frame.ANY, prefix: str = ""
    ) -> Rule:
        return Rule(
            hook=hook,
            network=network.id,
            bridge=network.bridge,
            verdict=verdict,
            reason=reason,
            peer=peer,
            frame=frame,
            prefix=prefix,
        )

    # Two containers of one bridge. Frames between its ports pass these hooks when bridge netfilter is on; and always
    # when a container sends to its neighbour by way of the host, which must not get round icc=false.
    among = (
        rule(Verdict.ACCEPT, Reason.SAME_NETWORK, Peer.SAME)
        if network.allows_icc
        else rule(Verdict.DROP, Reason.ICC_OFF, Peer.SAME)
    )
    established = rule(Verdict.ACCEPT, Reason.ESTABLISHED, frame=Frame.ESTABLISHED)

    match hook:
        case Hook.BRIDGE_PREROUTING:
            # CVE-2020-13401: only IPv6 networks have listeners for advertisements
            if network.enable_ipv6:
                return [rule(Verdict.DROP, Reason.ROUTER_ADVERTISEMENT, frame=Frame.ROUTER_ADVERTISEMENT)]
        case Hook.PREROUTING:
            # moby#45610: before translation, so that a port published on 127.0.0.1 only is not reached by its
            # container address. An internal network needs no such rule: nothing enters it at all.
            if not network.is_internal:
                return [
                    rule(Verdict.DROP, Reason.DIRECT_ROUTING, Peer.FOREIGN, Frame.UNSOLICITED, prefix)
                    for prefix in _prefixes(network)
                ]
        case Hook.SEALED:
            if network.is_internal:
                return [among, rule(Verdict.DROP, Reason.INTERNAL_EGRESS)]
        case Hook.ENTERING:
            if network.is_internal:
                return [among, rule(Verdict.DROP, Reason.INTERNAL_INGRESS)]
            return [
                among,
                established,
                # ports published to everybody come here
                rule(Verdict.DROP, Reason.NO_SHARED_NETWORK, Peer.OURS),
                rule(Verdict.DROP, Reason.UNPUBLISHED),
            ]
        case Hook.LEAVING:
            if not network.is_internal:
                return [established, rule(Verdict.ACCEPT, Reason.OUTGOING)]
        case Hook.BRIDGE_FORWARD:
            # everything but ARP: other protocols (VLAN tags around IP) would be a way round
            if not network.allows_icc:
                return [rule(Verdict.DROP, Reason.ICC_OFF, frame=Frame.NOT_ARP)]
        case Hook.POSTROUTING:
            if network.masquerades:
                return [
                    rule(Verdict.MASQUERADE, Reason.MASQUERADE, Peer.OTHER, prefix=prefix)
                    for prefix in _prefixes(network)
                ]
    return []


def _prefixes(network: Network) -> list[str]:
    """The network's subnets of the families that it has, IPv4 first."""
    families = ([4] if network.enable_ipv4 else []) + ([6] if network.enable_ipv6 else [])
    return [subnet.subnet for family in families if (subnet := network.subnet_of(family)) is not None]
