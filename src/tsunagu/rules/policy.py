"""Who may talk to whom, as data: `programme(world)` is the only producer of packet rules.

A programme is an ordered tuple of `Rule` values. Its meaning, for the nft printer and for every other reader alike:

    At each hook the rules are tried in order; a rule is tried only for packets of its network (see `Hook`); the first
    one that matches decides for this hook, DROP for good. A packet that no rule matches is not ours and passes.

Imports `model` and `rules.ports` only; pure. Must never know nftables, and nobody else may decide about packets.

The order inside the forward hook says: what is internal stays inside, before anything else; then what may *enter* a
network; then what may *leave* one. So a packet between two networks is judged by the one it enters, and established
answers are let through once, at the entrance.

A published port is one TRANSLATE rule per hook at which it is offered: it gives the first packet of a connection, and
with it all others, a new destination (`Rule.target`, `Rule.port.container_port`), and the packet goes on from there to
the later hooks as if it had been sent to that. Rules for one address of the host come before those for all addresses.
Where nothing is translated (gateway mode "routed"), a published port is one OFFERED rule instead.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TypeAlias

import msgspec

from tsunagu.model.network import Endpoint, GatewayMode, Network, PublishedPort
from tsunagu.model.world import World

from . import ports

LOOPBACK = "127.0.0.0/8"
LOOPBACK6 = "::1"  # never translated: the kernel accepts no answer to ::1 from another interface (rt6_need_strict)


class Hook(Enum):
    """Where a rule is tried, in the order in which packets pass; the text says which packets are "of its network"."""

    BRIDGE_PREROUTING = "frames that a port of the bridge receives"
    LOOPBACK = "packets that come from the bridge to a loopback address (127.0.0.0/8)"
    PREROUTING = "packets towards the prefix, from any interface, before address translation"
    PUBLISHED = "packets to an address of the host but ::1, from any interface; first packet of a connection only"
    OFFERED = "no packets: names an address and port of a container, for rules whose frame is OFFERED"
    OWN = "packets from the host to an address of its own, 127.0.0.0/8 too but not ::1; first packet only"
    SEALED = "forwarded packets that come from the bridge of an internal network"
    ENTERING = "forwarded packets that go out to the bridge"
    LEAVING = "forwarded packets that come from the bridge"
    BRIDGE_FORWARD = "frames from one port of the bridge to another"
    HAIRPIN = "packets from the prefix, their destination translated, that go out to the bridge; first packet only"
    POSTROUTING = "packets from the prefix that leave the host or enter a bridge; first packet of a connection only"


class Peer(Enum):
    """What the packet's other interface must be: the incoming one when entering, the outgoing one when leaving."""

    ANY = auto()
    SAME = auto()  # the network's own bridge
    OTHER = auto()  # anything but the network's own bridge
    OURS = auto()  # a bridge of ours
    FOREIGN = auto()  # neither a bridge of ours nor the loopback interface
    TRUSTED = auto()  # one of the rule's `interfaces`


class Frame(Enum):
    """What the packet itself must be."""

    ANY = auto()
    ESTABLISHED = auto()  # belongs or relates to a connection that was let through before
    UNSOLICITED = auto()  # the opposite, and not addressed to the host itself
    NOT_ARP = auto()
    ROUTER_ADVERTISEMENT = auto()
    PUBLISHED = auto()  # its destination was given by a TRANSLATE rule
    OFFERED = auto()  # its destination is a published port at the container's own address, translated or not
    ICMP = auto()
    LINKED = auto()  # goes from the source of one of `Rule.links` to its target, to that port
    LINKED_ANSWER = auto()  # comes back from there


class Verdict(Enum):
    ACCEPT = "accept"
    DROP = "drop"
    MASQUERADE = "masquerade"  # its source becomes the address of the interface that it leaves by
    SOURCE = "snat"  # its source becomes `source`
    TRANSLATE = "translate"  # to `target`, port `port.container_port`


class Reason(Enum):
    """Why a rule decides: code, sentence, and the remedy ("" where nothing is wrong)."""

    SAME_NETWORK = ("same-network", "both are on network {network}", "")
    LINKED = (
        "linked",
        "a link opens the ports that its target exposes, although network {network} keeps containers apart",
        "",
    )
    ESTABLISHED = ("established", "it answers a connection that was let through", "")
    OUTGOING = ("outgoing", "network {network} may reach outside", "")
    MASQUERADE = ("masquerade", "outside sees the host's address", "")
    ROUTED = (
        "routed",
        "network {network} is routed: published ports and ICMP arrive at the container's own address",
        "",
    )
    UNPROTECTED = (
        "unprotected",
        "network {network} is open at its containers' own addresses (gateway mode nat-unprotected)",
        "",
    )
    TRUSTED = ("trusted", "network {network} trusts the interface that this comes in by", "")
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
    PUBLISHED = ("published", "the port is published on the host", "")
    HAIRPIN = ("hairpin", "the answer must come back through the host", "")
    HOST_LOOPBACK = (
        "host-loopback",
        "a container of network {network} may not address the host's loopback interface",
        "let the host's program listen on the gateway address of the network",
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


class LinkedPort(msgspec.Struct, frozen=True):
    """A port of the address `target` that a legacy link opens to the address `source`."""

    source: str
    target: str
    protocol: str
    port: int


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One decision. `network` is an id, `prefix` a CIDR text for the hooks that select by address, `family` the only
    one concerned (0: both).

    TRANSLATE rules match the packets of their hook to `port.host_ip` (if that is not all addresses), `port.host_port`,
    and give them the address `target` of `container` (an id) as destination.
    """

    hook: Hook
    network: str
    bridge: str
    verdict: Verdict
    reason: Reason
    peer: Peer = Peer.ANY
    frame: Frame = Frame.ANY
    prefix: str = ""
    family: int = 0
    interfaces: tuple[str, ...] = ()
    source: str = ""
    port: PublishedPort | None = None
    target: str = ""
    container: str = ""
    links: tuple[LinkedPort, ...] = ()


Part: TypeAlias = dict[Hook, list[Rule]]

# The parts of the networks of the last world. A network is frozen, so its rules are the same values for ever; keeping
# them makes the programme of a world with hundreds of networks a matter of a millisecond, and lets readers tell by
# identity what changed from one programme to the next.
_parts: dict[str, tuple[Network, tuple[LinkedPort, ...], Part]] = {}


# The same for the published ports of an endpoint, by its id. Ports of one endpoint are far fewer than its world's.
_port_parts: dict[str, tuple[Endpoint, Network, Part]] = {}
_PORT_HOOKS = (Hook.PUBLISHED, Hook.OFFERED, Hook.OWN)


def programme(world: World) -> tuple[Rule, ...]:
    """Return the rules for every bridge network and every published port of `world`, in order (see the module)."""
    parts = [_part(network, _linked(world, network)) for network in world.networks.values() if _is_ours(network)]
    if len(_parts) > 2 * len(parts) + 16:
        for gone in _parts.keys() - world.networks.keys():
            del _parts[gone]
    published = _published(world)
    if not published:
        return tuple(rule for hook in Hook for part in parts for rule in part[hook])
    rules: list[Rule] = []
    for hook in Hook:
        rules += [rule for part in parts for rule in part[hook]]
        if hook in _PORT_HOOKS:
            rules += sorted((rule for part in published for rule in part[hook]), key=_is_for_any_address)
    return tuple(rules)


def rules_of(network: Network) -> tuple[Rule, ...]:
    """Return the part of the programme that belongs to one network, in order; empty for networks without a bridge.

    What links open on the default bridge is not in it.

    The programme is nothing but these parts and those of published ports, sorted by hook: no rule of one network
    depends on another network.
    """
    return tuple(rule for rules in _part(network).values() for rule in rules) if _is_ours(network) else ()


def _published(world: World) -> list[Part]:
    parts = []
    for container in world.containers.values():
        for endpoint in container.endpoints:
            if endpoint.ports and (network := world.networks.get(endpoint.network_id)) is not None:
                known = _port_parts.get(endpoint.id)
                if known is None or known[0] is not endpoint or known[1] is not network:
                    known = _port_parts[endpoint.id] = endpoint, network, _port_part(container.id, endpoint, network)
                parts.append(known[2])
    if len(_port_parts) > 2 * len(parts) + 16:
        here = {e.id for c in world.containers.values() for e in c.endpoints if e.ports}
        for gone in _port_parts.keys() - here:
            del _port_parts[gone]
    return parts


def _port_part(container: str, endpoint: Endpoint, network: Network) -> Part:
    """The rules of one endpoint's published ports. Nothing is published on an internal network."""
    part: Part = {hook: [] for hook in _PORT_HOOKS}
    if network.is_internal or not _is_ours(network):
        return part
    for port in endpoint.ports:
        is_translated = network.translates(port.family)
        hooks = (Hook.PUBLISHED, Hook.OWN) if is_translated else (Hook.OFFERED,)
        if is_translated and port.is_loopback_only:
            hooks = (Hook.OWN,)  # moby#45610: it is offered to the host itself and to nobody else
        for hook in hooks:
            part[hook].append(
                Rule(
                    hook=hook,
                    network=network.id,
                    bridge=network.bridge,
                    verdict=Verdict.TRANSLATE if is_translated else Verdict.ACCEPT,
                    reason=Reason.PUBLISHED if is_translated else Reason.ROUTED,
                    port=port,
                    target=endpoint.ipv6 if port.family == 6 else endpoint.ipv4,
                    container=container,
                )
            )
    return part


def _is_for_any_address(rule: Rule) -> bool:
    return rule.port is not None and rule.port.is_for_any_address


def _is_ours(network: Network) -> bool:
    return network.driver == "bridge" and bool(network.bridge)


def _part(network: Network, links: tuple[LinkedPort, ...] = ()) -> Part:
    known = _parts.get(network.id)
    if known is not None and known[0] is network and known[1] == links:
        return known[2]
    part = {hook: _rules(hook, network, links) for hook in Hook}
    _parts[network.id] = network, links, part
    return part


def _linked(world: World, network: Network) -> tuple[LinkedPort, ...]:
    """What legacy links open: between containers of the default bridge, where it keeps them apart. IPv4 only, as
    Docker's links."""
    if not network.is_default_bridge or network.allows_icc or network.is_internal:
        return ()
    found: dict[LinkedPort, None] = {}
    for container in world.containers.values():
        for link in container.links:
            source, target = container.endpoint_on(network.id), world.containers.get(link.target)
            there = target.endpoint_on(network.id) if target is not None else None
            if source is None or target is None or there is None:
                continue
            one, other = source.ipv4, there.ipv4
            if one and other and one != other:
                for port, protocol in ports.exposed(target.config.exposed_ports):
                    found[LinkedPort(one, other, protocol, port)] = None
    return tuple(found)


def _rules(hook: Hook, network: Network, links: tuple[LinkedPort, ...]) -> list[Rule]:
    """The rules of one network at one hook, in order."""

    def rule(
        verdict: Verdict,
        reason: Reason,
        peer: Peer = Peer.ANY,
        frame: Frame = Frame.ANY,
        prefix: str = "",
        family: int = 0,
        links: tuple[LinkedPort, ...] = (),
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
            family=family,
            interfaces=network.trusted_interfaces if peer is Peer.TRUSTED else (),
            source=network.snat_source(family) if verdict is Verdict.SOURCE else "",
            links=links,
        )

    # Two containers of one bridge. Frames between its ports pass these hooks when bridge netfilter is on; and always
    # when a container sends to its neighbour by way of the host, which must not get round icc=false.
    among = (
        rule(Verdict.ACCEPT, Reason.SAME_NETWORK, Peer.SAME)
        if network.allows_icc
        else rule(Verdict.DROP, Reason.ICC_OFF, Peer.SAME)
    )
    established = rule(Verdict.ACCEPT, Reason.ESTABLISHED, frame=Frame.ESTABLISHED)
    linked = [rule(Verdict.ACCEPT, Reason.LINKED, Peer.SAME, Frame.LINKED, links=links)] if links else []

    match hook:
        case Hook.BRIDGE_PREROUTING:
            # CVE-2020-13401: only IPv6 networks have listeners for advertisements
            if network.enable_ipv6:
                return [rule(Verdict.DROP, Reason.ROUTER_ADVERTISEMENT, frame=Frame.ROUTER_ADVERTISEMENT)]
        case Hook.LOOPBACK:
            # The bridge routes loopback addresses for the sake of answers to published ports (route_localnet)
            if network.enable_ipv4 and not network.is_internal:
                return [rule(Verdict.DROP, Reason.HOST_LOOPBACK)]
        case Hook.PREROUTING:
            # moby#45610: before translation, so that a port published on 127.0.0.1 only is not reached by its
            # container address. An internal network needs no such rule: nothing enters it at all.
            closed = () if network.is_internal else _in_mode(network, GatewayMode.NAT)
            return [
                one
                for family in closed
                for prefix in _prefixes(network, family)
                for one in (
                    *(
                        [rule(Verdict.ACCEPT, Reason.TRUSTED, Peer.TRUSTED, Frame.UNSOLICITED, prefix)]
                        if network.trusted_interfaces
                        else []
                    ),
                    rule(Verdict.DROP, Reason.DIRECT_ROUTING, Peer.FOREIGN, Frame.UNSOLICITED, prefix),
                )
            ]
        case Hook.SEALED:
            if network.is_internal:
                return [among, rule(Verdict.DROP, Reason.INTERNAL_EGRESS)]
        case Hook.ENTERING:
            if network.is_internal:
                return [among, rule(Verdict.DROP, Reason.INTERNAL_INGRESS)]
            routed, unprotected = _in_mode(network, GatewayMode.ROUTED), _in_mode(network, GatewayMode.UNPROTECTED)
            trusting = _in_mode(network, GatewayMode.NAT) if network.trusted_interfaces else []
            return [
                # first of all: a neighbour may use a published port although icc is off, and get its answer
                established,
                rule(Verdict.ACCEPT, Reason.PUBLISHED, frame=Frame.PUBLISHED),
                *linked,
                *(
                    rule(Verdict.ACCEPT, Reason.ROUTED, Peer.OTHER, frame, family=family)
                    for family in routed
                    for frame in (Frame.OFFERED, Frame.ICMP)
                ),
                *(
                    rule(Verdict.ACCEPT, Reason.TRUSTED, Peer.TRUSTED, Frame.OFFERED, family=family)
                    for family in trusting
                ),
                among,
                rule(Verdict.DROP, Reason.NO_SHARED_NETWORK, Peer.OURS),
                *(rule(Verdict.ACCEPT, Reason.UNPROTECTED, family=family) for family in unprotected),
                rule(Verdict.DROP, Reason.UNPUBLISHED),
            ]
        case Hook.LEAVING:
            if not network.is_internal:
                return [established, rule(Verdict.ACCEPT, Reason.OUTGOING)]
        case Hook.BRIDGE_FORWARD:
            # everything but ARP: other protocols (VLAN tags around IP) would be a way round
            if not network.allows_icc:
                opened = [
                    rule(Verdict.ACCEPT, Reason.LINKED, frame=frame, links=links)
                    for frame in ((Frame.LINKED, Frame.LINKED_ANSWER) if links else ())
                ]
                return [*opened, rule(Verdict.DROP, Reason.ICC_OFF, frame=Frame.NOT_ARP)]
        case Hook.HAIRPIN:
            # A neighbour, or the container itself, that came by way of the host must get its answer by way of the
            # host; and nobody answers to 127.0.0.1
            translated = [family for family in network.families if network.translates(family)]
            sources = [LOOPBACK] if 4 in translated else []
            sources += [prefix for family in translated for prefix in _prefixes(network, family)]
            return [rule(Verdict.MASQUERADE, Reason.HAIRPIN, prefix=prefix) for prefix in sources]
        case Hook.POSTROUTING:
            return [
                rule(
                    Verdict.SOURCE if network.snat_source(family) else Verdict.MASQUERADE,
                    Reason.MASQUERADE, Peer.OTHER, prefix=prefix, family=family,
                )
                for family in network.families
                if network.masquerades(family)
                for prefix in _prefixes(network, family)
            ]  # fmt: skip
    return []


def _in_mode(network: Network, mode: GatewayMode) -> list[int]:
    return [family for family in network.families if network.gateway_mode(family) is mode]


def _prefixes(network: Network, family: int) -> list[str]:
    """The network's subnet of one family, if it has it."""
    subnet = network.subnet_of(family)
    return [] if subnet is None else [subnet.subnet]
