"""The nft printer: golden files per combination of options. A file shared by two combinations says: no difference.

`UPDATE_GOLDEN=1 pytest tests/unit/test_nft.py` writes the files anew; read the difference before you commit it.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from tsunagu.model.container import Config, Container, HostConfig, Link
from tsunagu.model.errors import InvalidParameter
from tsunagu.model.network import (
    GATEWAY_MODE,
    ICC,
    INHIBIT_IPV4,
    MASQUERADE,
    SNAT_SOURCE,
    TRUSTED_INTERFACES,
    Endpoint,
    EndpointConfig,
    Network,
    PublishedPort,
    Subnet,
)
from tsunagu.model.world import ContainerCreated, NetworkCreated, World, apply
from tsunagu.rules import policy
from tsunagu.wire import nft

GOLDEN = Path(__file__).parent / "golden" / "nft"
FLAGS = ("internal", "ipv6", "no-icc", "no-masquerade")


def network(n: int, flags: tuple[str, ...] = (), more: dict[str, str] | None = None) -> Network:
    options = (
        (more or {})
        | ({ICC: "false"} if "no-icc" in flags else {})
        | ({MASQUERADE: "false"} if "no-masquerade" in flags else {})
    )
    return Network(
        id=f"{n:x}" * 64,
        name=f"n{n}",
        bridge=f"br-{f'{n:x}' * 12}",
        is_internal="internal" in flags,
        enable_ipv6="ipv6" in flags,
        subnets=(Subnet(subnet=f"10.{n}.0.0/24"), Subnet(subnet=f"fd00:{n}::/64")),
        options=options,
    )


def programme(*networks: Network) -> tuple[policy.Rule, ...]:
    world = World()
    for one in networks:
        world = apply(world, NetworkCreated(one))
    return policy.programme(world)


def compare(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.nft"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


COMBINATIONS = [c for n in range(len(FLAGS) + 1) for c in itertools.combinations(FLAGS, n)]


def golden_name(flags: tuple[str, ...]) -> str:
    # an internal network is never masqueraded: the flag must make no difference
    kept = [f for f in flags if not (f == "no-masquerade" and "internal" in flags)]
    return "-".join(["one", *kept])


@pytest.mark.parametrize("flags", COMBINATIONS, ids=lambda flags: "+".join(flags) or "plain")
def test_one_network(flags: tuple[str, ...]) -> None:
    compare(golden_name(flags), nft.script(programme(network(1, flags)), "tsunagu"))


@pytest.mark.parametrize(
    ("name", "flags", "options"),
    [
        ("unprotected", ("ipv6",), {GATEWAY_MODE[4]: "nat-unprotected", GATEWAY_MODE[6]: "nat-unprotected"}),
        ("routed", ("ipv6",), {GATEWAY_MODE[4]: "routed", GATEWAY_MODE[6]: "routed"}),
        ("routed-no-icc", ("ipv6", "no-icc"), {GATEWAY_MODE[4]: "routed", GATEWAY_MODE[6]: "routed"}),
        ("routed-ipv6-only", ("ipv6",), {GATEWAY_MODE[6]: "routed"}),
        ("isolated", ("ipv6", "internal"), {GATEWAY_MODE[4]: "isolated", GATEWAY_MODE[6]: "isolated"}),
        ("inhibit-ipv4", (), {INHIBIT_IPV4: "true"}),
        ("trusted", ("ipv6",), {TRUSTED_INTERFACES: "lan0:lan1"}),
        ("source", ("ipv6",), {SNAT_SOURCE[4]: "192.0.2.9", SNAT_SOURCE[6]: "2001:db8::9"}),
    ],
)
def test_options_of_the_driver(name: str, flags: tuple[str, ...], options: dict[str, str]) -> None:
    compare(f"option-{name}", nft.script(programme(network(1, flags, options)), "tsunagu"))


def test_several_networks() -> None:
    several = [network(1), network(2, ("internal",)), network(3, ("ipv6",)), network(4, ("no-icc",))]
    compare("several", nft.script(programme(*several), "tsunagu_12ab"))


def test_nothing() -> None:
    compare("nothing", nft.script((), "tsunagu"))


def test_update_adds_and_removes_one_network_only() -> None:
    one, two = network(1, ("ipv6",)), network(2, ("ipv6", "no-icc"))
    compare("update-add", nft.update(programme(one), programme(one, two), "tsunagu"))
    compare("update-remove", nft.update(programme(one, two), programme(one), "tsunagu"))
    compare("update-change", nft.update(programme(one), programme(network(1, ("internal",))), "tsunagu"))
    assert nft.update(programme(one), programme(one), "tsunagu") == ""


def test_update_does_not_grow_with_the_number_of_networks() -> None:
    new = network(15)
    few, many = [network(n) for n in range(1, 3)], [network(n) for n in range(1, 15)]
    assert nft.update(programme(*few), programme(*few, new), "t") == nft.update(
        programme(*many), programme(*many, new), "t"
    )


def test_the_first_network_makes_the_tables() -> None:
    text = nft.update((), programme(network(1)), "t")
    assert text.startswith("add table inet t\n")
    assert "bridge t" not in text
    compare("update-first", nft.update((), programme(network(1, ("ipv6",))), "tsunagu"))


def test_packets_cross_one_lookup_per_stage_however_many_networks() -> None:
    def base_chains(text: str) -> list[str]:
        lines = text.splitlines()
        starts = [i for i, line in enumerate(lines) if "type filter hook" in line or "type nat hook" in line]
        return [line for start in starts for line in itertools.takewhile(lambda x: x != "  }", lines[start:])]

    few = base_chains(nft.script(programme(network(1)), "t"))
    many = base_chains(nft.script(programme(*(network(n) for n in range(1, 16))), "t"))
    assert few == many


@pytest.mark.parametrize("name", ['x"; flush ruleset; "', "a*", "a b", "", "x" * 16, "a/b"])
def test_a_name_that_nft_could_misread_is_refused(name: str) -> None:
    evil = Network(id="1" * 64, name="n", bridge=name or "ok", subnets=(Subnet(subnet="10.1.0.0/24"),))
    if not name:
        evil = Network(id="1" * 64, name="n", bridge="ok", subnets=(Subnet(subnet='10.1.0.0/24 }; "'),))
    with pytest.raises(InvalidParameter):
        nft.script(policy.rules_of(evil), "t")


def test_every_rule_has_a_counter_and_its_reason() -> None:
    rules = programme(network(1, ("ipv6", "no-icc")), network(2, ("internal",)))
    lines = [line for line in nft.script(rules, "t").splitlines() if "comment" in line]
    # what is published has a line for each family
    assert len(lines) == len(rules) + len([r for r in rules if r.frame is policy.Frame.PUBLISHED])
    assert all(" counter " in f" {line.strip()} " for line in lines)


# ---- published ports


def published(n: int, *ports: PublishedPort) -> Container:
    """A container on network 1 with the address .n, and these ports."""
    endpoint = Endpoint(
        config=EndpointConfig(network="n1"), id=f"{n:x}" * 64, network_id="1" * 64, network_name="n1",
        ipv4=f"10.1.0.{n}", ipv6=f"fd00:1::{n}", ports=ports,
    )  # fmt: skip
    return Container(
        id=f"{n:x}" * 64, name=f"c{n}", created=1, image_id="", path="x", args=(), config=Config(), host=HostConfig(),
        endpoints=(endpoint,),
    )  # fmt: skip


def port(host_ip: str, host_port: int, container_port: int, protocol: str = "tcp") -> PublishedPort:
    return PublishedPort(protocol=protocol, host_ip=host_ip, host_port=host_port, container_port=container_port)


def with_ports(networks: list[Network], *containers: Container) -> tuple[policy.Rule, ...]:
    world = World()
    for one in networks:
        world = apply(world, NetworkCreated(one))
    for container in containers:
        world = apply(world, ContainerCreated(container))
    return policy.programme(world)


WEB = published(
    2,
    port("0.0.0.0", 8080, 80), port("::", 8080, 80), port("127.0.0.1", 8081, 80), port("0.0.0.0", 53, 53, "udp"),
    port("192.0.2.1", 8080, 81),
)  # fmt: skip


def test_published_ports() -> None:
    compare("published", nft.script(with_ports([network(1, ("ipv6",))], WEB), "tsunagu"))


def test_an_update_publishes_and_withdraws_one_port_whatever_else_there_is() -> None:
    other = published(3, port("0.0.0.0", 9090, 80))
    few, many = [network(1, ("ipv6",))], [network(n, ("ipv6",)) for n in range(1, 15)]
    more = [published(n, port("0.0.0.0", 9000 + n, 80)) for n in range(4, 15)]
    texts = [
        nft.update(with_ports(networks, WEB, *rest), with_ports(networks, WEB, *rest, other), "tsunagu")
        for networks, rest in ((few, []), (many, more))
    ]
    assert texts[0] == texts[1]
    compare("update-publish", texts[0])
    compare("update-withdraw", nft.update(with_ports(few, WEB, other), with_ports(few, WEB), "tsunagu"))


def test_a_port_that_leads_elsewhere_is_replaced_in_one_transaction() -> None:
    before, after = published(2, port("0.0.0.0", 80, 80)), published(2, port("0.0.0.0", 80, 81))
    lines = nft.update(with_ports([network(1)], before), with_ports([network(1)], after), "t").splitlines()
    assert "delete element inet t arriving_any4 { tcp . 80 }" in lines
    assert "add element inet t arriving_any4 { tcp . 80 : 10.1.0.2 . 81 }" in lines
    assert lines.index("delete element inet t own_any4 { tcp . 80 }") < lines.index(
        "add element inet t own_any4 { tcp . 80 : 10.1.0.2 . 81 }"
    )


def test_two_host_ports_for_one_container_port_share_one_entrance() -> None:
    one, two = port("0.0.0.0", 80, 80), port("0.0.0.0", 81, 80)
    text = nft.update(
        with_ports([network(1)], published(2, one, two)), with_ports([network(1)], published(2, one)), "t"
    )
    assert "arriving_any4 { tcp . 81 }" in text
    assert "published4" not in text


@pytest.mark.parametrize("address", ["10.1.0.2 }; flush ruleset", "x", ""])
def test_an_address_that_nft_could_misread_is_refused(address: str) -> None:
    rule = policy.Rule(
        hook=policy.Hook.OWN, network="1" * 64, bridge="b", verdict=policy.Verdict.TRANSLATE,
        reason=policy.Reason.PUBLISHED, port=port("0.0.0.0", 80, 80), target=address,
    )  # fmt: skip
    with pytest.raises(InvalidParameter):
        nft.script([rule], "t")


# ---- links


def test_links() -> None:
    bridge = replace(network(1, ("ipv6", "no-icc")), is_builtin=True)
    target = replace(published(2), config=Config(exposed_ports={"80/tcp": {}, "53/udp": {}}))
    source = replace(published(3), links=(Link(target.id, "db"),))
    linked = with_ports([bridge], target, source)
    compare("linked", nft.script(linked, "tsunagu"))
    compare("update-linked", nft.update(with_ports([bridge], target), linked, "tsunagu"))
    bare = nft.update(linked, with_ports([bridge], target), "tsunagu")
    assert "linked" not in bare
    assert "icc-off" in bare
