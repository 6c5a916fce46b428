"""The rule programme, read by a small interpreter: who reaches whom, for every combination of options."""

from __future__ import annotations

import itertools

import pytest

from tsunagu.model.container import Config, Container, HostConfig, Link
from tsunagu.model.network import (
    GATEWAY_MODE,
    ICC,
    MASQUERADE,
    SNAT_SOURCE,
    TRUSTED_INTERFACES,
    Endpoint,
    EndpointConfig,
    Network,
    PublishedPort,
    Subnet,
)
from tsunagu.model.world import ContainerCreated, EndpointsChanged, NetworkCreated, World, apply
from tsunagu.rules import policy
from tsunagu.rules.policy import Frame, Hook, LinkedPort, Peer, Reason, Rule, Verdict


def network(n: int, **settings: object) -> Network:
    return Network(
        id=f"{n:x}" * 64,
        name=f"n{n}",
        bridge=f"b{n}",
        subnets=(Subnet(subnet=f"10.{n}.0.0/24"), Subnet(subnet=f"fd00:{n}::/64")),
        **settings,  # type: ignore[arg-type]
    )


def world(*networks: Network) -> World:
    it = World()
    for one in networks:
        it = apply(it, NetworkCreated(one))
    return it


def decide(
    it: World, incoming: str, outgoing: str, *, is_established: bool = False, is_translated: bool = False
) -> Reason | None:
    """What the forward hooks decide for a packet between two interfaces; None: not ours."""
    ours = {n.bridge for n in it.networks.values()}
    for rule in policy.programme(it):
        if rule.hook not in {Hook.SEALED, Hook.ENTERING, Hook.LEAVING}:
            continue
        mine, other = (outgoing, incoming) if rule.hook is Hook.ENTERING else (incoming, outgoing)
        matches = {
            Peer.ANY: True,
            Peer.SAME: other == rule.bridge,
            Peer.OTHER: other != rule.bridge,
            Peer.OURS: other in ours,
            Peer.FOREIGN: other not in ours | {"lo"},
        }[rule.peer]
        frames = {Frame.ANY: True, Frame.ESTABLISHED: is_established, Frame.PUBLISHED: is_translated}
        if mine == rule.bridge and matches and frames[rule.frame]:
            return rule.reason
    return None


def test_ordinary_networks() -> None:
    it = world(network(1), network(2))
    assert decide(it, "b1", "b1") is Reason.SAME_NETWORK
    assert decide(it, "b1", "b2") is decide(it, "b2", "b1") is Reason.NO_SHARED_NETWORK
    assert decide(it, "b1", "b2", is_established=True) is Reason.ESTABLISHED
    assert decide(it, "b1", "eth0") is Reason.OUTGOING
    assert decide(it, "eth0", "b1") is Reason.UNPUBLISHED
    assert decide(it, "eth0", "b1", is_established=True) is Reason.ESTABLISHED
    assert decide(it, "eth0", "eth1") is None
    assert decide(it, "eth0", "docker0") is None


def test_internal_networks_are_sealed_even_for_established_connections() -> None:
    it = world(network(1, is_internal=True), network(2))
    assert decide(it, "b1", "b1") is Reason.SAME_NETWORK
    for is_established in (False, True):
        assert decide(it, "b1", "eth0", is_established=is_established) is Reason.INTERNAL_EGRESS
        assert decide(it, "b1", "b2", is_established=is_established) is Reason.INTERNAL_EGRESS
        assert decide(it, "eth0", "b1", is_established=is_established) is Reason.INTERNAL_INGRESS
        assert decide(it, "b2", "b1", is_established=is_established) is Reason.INTERNAL_INGRESS


@pytest.mark.parametrize("is_internal", [False, True])
def test_icc_off_in_both_places(is_internal: bool) -> None:
    one = network(1, is_internal=is_internal, options={ICC: "false"})
    assert decide(world(one), "b1", "b1") is Reason.ICC_OFF
    (bridged,) = [r for r in policy.rules_of(one) if r.hook is Hook.BRIDGE_FORWARD]
    assert (bridged.verdict, bridged.frame) == (Verdict.DROP, Frame.NOT_ARP)
    assert not [r for r in policy.rules_of(network(1)) if r.hook is Hook.BRIDGE_FORWARD]


@pytest.mark.parametrize(
    ("settings", "masqueraded"),
    [
        ({}, ["10.1.0.0/24"]),
        ({"enable_ipv6": True}, ["10.1.0.0/24", "fd00:1::/64"]),
        ({"enable_ipv6": True, "enable_ipv4": False}, ["fd00:1::/64"]),
        ({"options": {MASQUERADE: "false"}}, []),
        ({"is_internal": True}, []),
    ],
)
def test_masquerade(settings: dict[str, object], masqueraded: list[str]) -> None:
    rules = [r for r in policy.rules_of(network(1, **settings)) if r.hook is Hook.POSTROUTING]
    assert all(r.verdict is Verdict.MASQUERADE for r in rules)
    assert [r.prefix for r in rules] == masqueraded
    assert all(r.peer is Peer.OTHER for r in rules)


@pytest.mark.parametrize(
    ("settings", "prefixes"),
    [
        ({}, ["127.0.0.0/8", "10.1.0.0/24"]),
        ({"enable_ipv6": True}, ["127.0.0.0/8", "10.1.0.0/24", "fd00:1::/64"]),
        ({"options": {MASQUERADE: "false"}}, ["127.0.0.0/8", "10.1.0.0/24"]),
        ({"is_internal": True}, []),
    ],
)
def test_hairpin_connections_come_back_through_the_host(settings: dict[str, object], prefixes: list[str]) -> None:
    rules = [r for r in policy.rules_of(network(1, **settings)) if r.hook is Hook.HAIRPIN]
    assert [(r.prefix, r.verdict) for r in rules] == [(prefix, Verdict.MASQUERADE) for prefix in prefixes]


def test_published_ports_are_let_in_from_everywhere_but_internal_networks() -> None:
    for one in (network(1), network(1, options={ICC: "false"})):
        it = world(one, network(2), network(3, is_internal=True))
        for source in ("b1", "b2", "eth0"):
            assert decide(it, source, "b1", is_translated=True) is Reason.PUBLISHED
        assert decide(it, "b3", "b1", is_translated=True) is Reason.INTERNAL_EGRESS
        assert decide(it, "eth0", "b3", is_translated=True) is Reason.INTERNAL_INGRESS
        assert decide(it, "b1", "b1", is_established=True) is Reason.ESTABLISHED


def endpoint(n: int, *ports: PublishedPort) -> Endpoint:
    return Endpoint(
        config=EndpointConfig(network=f"n{n}"), id="e" * 64, network_id=f"{n:x}" * 64, network_name=f"n{n}",
        ipv4=f"10.{n}.0.2", ipv6=f"fd00:{n}::2", ports=ports,
    )  # fmt: skip


def port(host_ip: str, number: int, target: int = 80, protocol: str = "tcp") -> PublishedPort:
    return PublishedPort(protocol=protocol, host_ip=host_ip, host_port=number, container_port=target)


def container(*endpoints: Endpoint) -> Container:
    return Container(
        id="c" * 64, name="c", created=1, image_id="", path="x", args=(), config=Config(), host=HostConfig(),
        endpoints=endpoints,
    )  # fmt: skip


def test_published_ports_are_rules_at_two_hooks_and_loopback_ones_at_one() -> None:
    ports = (port("0.0.0.0", 8080), port("::", 8080), port("127.0.0.1", 8081, protocol="udp"), port("192.0.2.1", 8080))
    it = apply(world(network(1, enable_ipv6=True)), ContainerCreated(container(endpoint(1, *ports))))
    found = [r for r in policy.programme(it) if r.verdict is Verdict.TRANSLATE]
    assert all(r.container == "c" * 64 and r.network == "1" * 64 and r.reason is Reason.PUBLISHED for r in found)
    at = {hook: [(r.port.host_ip, r.target) for r in found if r.hook is hook and r.port] for hook in Hook}
    everywhere = [("0.0.0.0", "10.1.0.2"), ("::", "fd00:1::2")]
    # one address of the host is asked before all of them
    assert at[Hook.PUBLISHED] == [("192.0.2.1", "10.1.0.2"), *everywhere]
    assert at[Hook.OWN] == [("127.0.0.1", "10.1.0.2"), ("192.0.2.1", "10.1.0.2"), *everywhere]
    assert list(dict.fromkeys(r.hook for r in policy.programme(it))) == sorted(
        {r.hook for r in policy.programme(it)}, key=list(Hook).index
    )


def test_nothing_is_published_on_an_internal_network() -> None:
    it = apply(world(network(1, is_internal=True)), ContainerCreated(container(endpoint(1, port("0.0.0.0", 80)))))
    assert not [r for r in policy.programme(it) if r.verdict is Verdict.TRANSLATE]


def test_rules_of_a_published_port_are_kept_and_follow_the_endpoint() -> None:
    first, second = endpoint(1, port("0.0.0.0", 80)), endpoint(1, port("0.0.0.0", 81))
    it = apply(world(network(1)), ContainerCreated(container(first)))
    before = policy.programme(it)
    assert all(a is b for a, b in zip(before, policy.programme(it), strict=True))
    after = policy.programme(apply(it, EndpointsChanged("c" * 64, (second,))))
    assert {r.port.host_port for r in after if r.port} == {81}
    assert not [r for r in policy.programme(apply(it, EndpointsChanged("c" * 64, ()))) if r.port]


def test_direct_routing_is_dropped_for_every_family_that_the_network_has() -> None:
    rules = [r for r in policy.rules_of(network(1, enable_ipv6=True)) if r.reason is Reason.DIRECT_ROUTING]
    assert [r.prefix for r in rules] == ["10.1.0.0/24", "fd00:1::/64"]
    assert {(r.peer, r.frame, r.verdict) for r in rules} == {(Peer.FOREIGN, Frame.UNSOLICITED, Verdict.DROP)}


def modes(v4: str, v6: str = "nat", **options: str) -> dict[str, object]:
    return {"enable_ipv6": True, "options": {GATEWAY_MODE[4]: v4, GATEWAY_MODE[6]: v6, **options}}


@pytest.mark.parametrize(
    ("v4", "v6", "closed", "masqueraded"),
    [
        ("nat", "nat", ["10.1.0.0/24", "fd00:1::/64"], ["10.1.0.0/24", "fd00:1::/64"]),
        ("nat", "routed", ["10.1.0.0/24"], ["10.1.0.0/24"]),
        ("nat-unprotected", "nat", ["fd00:1::/64"], ["10.1.0.0/24", "fd00:1::/64"]),
        ("routed", "routed", [], []),
    ],
)
def test_gateway_modes_are_chosen_per_family(v4: str, v6: str, closed: list[str], masqueraded: list[str]) -> None:
    rules = policy.rules_of(network(1, **modes(v4, v6)))
    assert [r.prefix for r in rules if r.reason is Reason.DIRECT_ROUTING] == closed
    assert [r.prefix for r in rules if r.hook is Hook.POSTROUTING] == masqueraded
    for family, mode in ((4, v4), (6, v6)):
        mine = [r for r in rules if r.hook is Hook.ENTERING and r.family == family]
        routed = [(Reason.ROUTED, Peer.OTHER, Frame.OFFERED), (Reason.ROUTED, Peer.OTHER, Frame.ICMP)]
        opened = [(Reason.UNPROTECTED, Peer.ANY, Frame.ANY)]
        assert [(r.reason, r.peer, r.frame) for r in mine] == {"routed": routed, "nat-unprotected": opened}.get(
            mode, []
        )


def test_an_unprotected_network_is_still_closed_to_other_networks() -> None:
    order = [r.reason for r in policy.rules_of(network(1, **modes("nat-unprotected"))) if r.hook is Hook.ENTERING]
    assert order.index(Reason.NO_SHARED_NETWORK) < order.index(Reason.UNPROTECTED) < order.index(Reason.UNPUBLISHED)


def test_a_routed_network_offers_ports_instead_of_translating() -> None:
    ports = (port("0.0.0.0", 0), port("::", 8080))
    it = apply(world(network(1, **modes("routed"))), ContainerCreated(container(endpoint(1, *ports))))
    found = [(r.hook, r.verdict, r.target) for r in policy.programme(it) if r.port is not None]
    assert found == [
        (Hook.PUBLISHED, Verdict.TRANSLATE, "fd00:1::2"),
        (Hook.OFFERED, Verdict.ACCEPT, "10.1.0.2"),
        (Hook.OWN, Verdict.TRANSLATE, "fd00:1::2"),
    ]
    assert not [r for r in policy.rules_of(network(1, **modes("routed", "routed"))) if r.hook is Hook.HAIRPIN]


def test_trusted_interfaces_pass_before_strangers_are_dropped_and_reach_published_ports_only() -> None:
    rules = policy.rules_of(network(1, **modes("nat", "routed", **{TRUSTED_INTERFACES: "lan0:lan1"})))
    early = [(r.reason, r.interfaces) for r in rules if r.hook is Hook.PREROUTING]
    assert early == [(Reason.TRUSTED, ("lan0", "lan1")), (Reason.DIRECT_ROUTING, ())]
    (later,) = [r for r in rules if r.hook is Hook.ENTERING and r.peer is Peer.TRUSTED]
    assert (later.family, later.frame, later.interfaces) == (4, Frame.OFFERED, ("lan0", "lan1"))


def test_a_source_address_takes_the_place_of_masquerade() -> None:
    options = {SNAT_SOURCE[4]: "192.0.2.9"}
    rules = [r for r in policy.rules_of(network(1, **modes("nat", **options))) if r.hook is Hook.POSTROUTING]
    assert [(r.verdict, r.source) for r in rules] == [(Verdict.SOURCE, "192.0.2.9"), (Verdict.MASQUERADE, "")]
    off = modes("nat", "routed", **options, **{MASQUERADE: "false"})
    assert not [r for r in policy.rules_of(network(1, **off)) if r.hook is Hook.POSTROUTING]


def test_router_advertisements() -> None:
    assert policy.rules_of(network(1, enable_ipv6=True))[0].hook is Hook.BRIDGE_PREROUTING
    assert not [r for r in policy.rules_of(network(1)) if r.reason is Reason.ROUTER_ADVERTISEMENT]


def test_networks_without_a_bridge_have_no_rules() -> None:
    host = Network(id="f" * 64, name="host", driver="host")
    assert policy.rules_of(host) == ()
    assert policy.programme(world(host)) == ()


def test_the_programme_is_its_parts_sorted_by_hook() -> None:
    networks = [
        network(n, is_internal=internal, enable_ipv6=v6, options={ICC: icc})
        for n, (internal, v6, icc) in enumerate(itertools.product((False, True), (False, True), ("true", "false")), 1)
    ]
    order = list(Hook)
    parts = [rule for one in networks for rule in policy.rules_of(one)]
    assert list(policy.programme(world(*networks))) == sorted(parts, key=lambda rule: order.index(rule.hook))


def test_unchanged_networks_keep_their_very_rules_and_changed_ones_do_not() -> None:
    one, two = network(1), network(2)
    before = policy.programme(world(one))
    after = policy.programme(world(one, two))
    assert {id(rule) for rule in before} <= {id(rule) for rule in after}
    changed = network(1, is_internal=True)
    assert policy.programme(world(changed)) != before
    assert policy.programme(world(one)) == before
    # what is gone is forgotten
    for n in range(3, 15):
        policy.programme(world(*(network(m) for m in range(n, n + 2))))
    assert len(policy._parts) < 40


def test_every_reason_has_its_own_code_and_a_sentence_and_is_used() -> None:
    assert len({reason.code for reason in Reason}) == len(Reason)
    assert all(reason.sentence for reason in Reason)
    dropping = {
        rule.reason
        for settings in (
            {},
            {"is_internal": True},
            {"options": {ICC: "false"}},
            {"enable_ipv6": True},
            modes("routed", "nat-unprotected"),
            modes("nat", **{TRUSTED_INTERFACES: "lan0"}),
        )
        for rule in policy.rules_of(network(1, **settings))  # type: ignore[arg-type]
    }
    assert dropping == set(Reason) - {Reason.LINKED}  # which takes two containers: test_links_open_ports


def test_rules_are_values() -> None:
    rule = policy.rules_of(network(1))[0]
    assert rule == Rule(**{name: getattr(rule, name) for name in rule.__struct_fields__})
    with pytest.raises(AttributeError):
        rule.bridge = "x"  # type: ignore[misc]


def test_links_open_ports_where_the_default_bridge_keeps_neighbours_apart() -> None:
    def container(n: int, *linked: Link, **config: object) -> Container:
        endpoint = Endpoint(
            config=EndpointConfig(network="n1"),
            network_id="1" * 64,
            id=f"e{n}",
            ipv4=f"10.1.0.{n}",
            ipv6=f"fd00:1::{n}",
        )
        return Container(
            id=f"{n:x}" * 64, name=f"c{n}", created=n, image_id="", path="sh", args=(), links=linked,
            config=Config(**config), host=HostConfig(), endpoints=(endpoint,),  # type: ignore[arg-type]
        )  # fmt: skip

    def linked(it: World) -> list[tuple[Hook, Frame, tuple[LinkedPort, ...]]]:
        return [(r.hook, r.frame, r.links) for r in policy.programme(it) if r.reason is Reason.LINKED]

    containers = [container(2, exposed_ports={"80/tcp": {}, "53/udp": {}}), container(3, Link("2" * 64, "db"))]
    apart = {"is_builtin": True, "options": {ICC: "false"}}
    it = world(network(1, **apart))
    for one in containers:
        it = apply(it, ContainerCreated(one))
    opened = tuple(LinkedPort("10.1.0.3", "10.1.0.2", protocol, port) for protocol, port in (("udp", 53), ("tcp", 80)))
    assert linked(it) == [
        (Hook.ENTERING, Frame.LINKED, opened),
        (Hook.BRIDGE_FORWARD, Frame.LINKED, opened),
        (Hook.BRIDGE_FORWARD, Frame.LINKED_ANSWER, opened),
    ]
    rules = policy.programme(it)
    for hook in (Hook.ENTERING, Hook.BRIDGE_FORWARD):
        reasons = [rule.reason for rule in rules if rule.hook is hook]
        assert reasons.index(Reason.LINKED) < reasons.index(Reason.ICC_OFF)
    # nothing to open: a target that is away, a bridge that keeps nobody apart, another network
    assert linked(apply(it, EndpointsChanged("2" * 64, ()))) == []
    for settings in ({"is_builtin": True}, {"options": {ICC: "false"}}, {**apart, "is_internal": True}):
        other = world(network(1, **settings))
        for one in containers:
            other = apply(other, ContainerCreated(one))
        assert linked(other) == []
    assert linked(it)
