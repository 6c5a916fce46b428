"""Published ports: what was asked for, read and checked; which addresses it means; what moves when networks change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.model.container import Config, Container, HostConfig, PortBinding
from tsunagu.model.errors import InvalidParameter, NotSupported
from tsunagu.model.network import GATEWAY_MODE, HOST_BINDING, Endpoint, EndpointConfig, Network, PortPlan, PublishedPort
from tsunagu.model.world import ContainerCreated, NetworkCreated, World, apply
from tsunagu.rules import ports

Bindings = dict[str, tuple[PortBinding, ...] | None]


def make(
    bindings: Bindings | None = None,
    *networks: str,
    exposed: tuple[str, ...] = (),
    publishes_all: bool = False,
    mode: str = "bridge",
    options: dict[str, str] | None = None,
) -> tuple[World, Container]:
    """A container on `networks`: "v4" or "dual", with "-internal" and "=PRIORITY" behind it."""
    world, endpoints = World(), []
    for index, word in enumerate(networks or ("v4",)):
        kind, _, priority = word.partition("=")
        network = Network(
            id=f"{index + 1:x}" * 64, name=f"n{index}", bridge=f"b{index}", enable_ipv6=kind.startswith("dual"),
            is_internal=kind.endswith("internal"), options=options or {},
        )  # fmt: skip
        world = apply(world, NetworkCreated(network))
        endpoints.append(
            Endpoint(
                config=EndpointConfig(network=network.name, gw_priority=int(priority or 0)), network_id=network.id,
                network_name=network.name, id=f"e{index}", ipv4=f"10.{index}.0.2", gateway4=f"10.{index}.0.1",
                ipv6=f"fd00:{index}::2" if network.enable_ipv6 else "",
                gateway6=f"fd00:{index}::1" if network.enable_ipv6 else "",
            )
        )  # fmt: skip
    container = Container(
        id="c" * 64, name="web", created=1, image_id="", path="x", args=(),
        config=Config(exposed_ports={spec: {} for spec in exposed}),
        host=HostConfig(port_bindings=bindings, publish_all_ports=publishes_all, network_mode=mode),
        endpoints=tuple(endpoints),
    )  # fmt: skip
    return apply(world, ContainerCreated(container)), container


def planned(*args: object, default_ip: str = "0.0.0.0", **settings: object) -> list[tuple[object, ...]]:
    world, container = make(*args, **settings)  # type: ignore[arg-type]
    found = ports.plans(world, container, default_ip)
    return [(p.container_port, p.protocol, p.host_ips, p.first, p.last) for p in found]


def at(host_port: str = "", host_ip: str = "") -> PortBinding:
    return PortBinding(host_ip=host_ip, host_port=host_port)


def test_a_binding_without_address_means_every_family_that_the_container_has() -> None:
    assert planned({"80/tcp": (at("8080"),)}) == [(80, "tcp", ("0.0.0.0",), 8080, 8080)]
    assert planned({"80/tcp": (at("8080"),)}, "dual") == [(80, "tcp", ("0.0.0.0", "::"), 8080, 8080)]
    # each family has its own gateway endpoint
    assert planned({"80/tcp": (at("8080"),)}, "v4=1", "dual") == [(80, "tcp", ("0.0.0.0", "::"), 8080, 8080)]


@pytest.mark.parametrize("host_ip", ["0.0.0.0", "127.0.0.1", "192.0.2.1", "::", "2001:db8::1"])
def test_a_binding_with_address_means_that_one(host_ip: str) -> None:
    assert planned({"53/udp": (at("53", host_ip),)}, "dual") == [(53, "udp", (host_ip,), 53, 53)]


def test_fixed_ports_go_before_ranges_and_these_before_any() -> None:
    asked = {"80/tcp": (at(), at("8000-8010"), at("8001"), at("8001")), "81/tcp": (at("9000"), at("0"))}
    assert planned(asked) == [
        (80, "tcp", ("0.0.0.0",), 8001, 8001),
        (81, "tcp", ("0.0.0.0",), 9000, 9000),
        (80, "tcp", ("0.0.0.0",), 8000, 8010),
        (80, "tcp", ("0.0.0.0",), 0, 0),
        (81, "tcp", ("0.0.0.0",), 0, 0),
    ]


def test_publish_all_takes_a_free_port_for_what_is_exposed_and_not_bound() -> None:
    got = planned({"80/tcp": (at("8080"),)}, exposed=("80/tcp", "53/udp", "90-91/tcp", "5/sctp"), publishes_all=True)
    assert [(port, protocol, first) for port, protocol, _, first, _ in got] == [
        (80, "tcp", 8080), (53, "udp", 0), (90, "tcp", 0), (91, "tcp", 0),
    ]  # fmt: skip
    assert planned({"80/tcp": ()}, exposed=("80/tcp", "81/tcp")) == []


def test_default_address_of_network_and_engine() -> None:
    asked = {"80/tcp": (at("80"), at("81", "192.0.2.1"))}

    def addresses(default_ip: str, **options: str) -> list[object]:
        given = {HOST_BINDING: options["option"]} if options else {}
        return [p[2] for p in planned(asked, "dual", default_ip=default_ip, options=given)]

    assert addresses("127.0.0.1") == [("127.0.0.1",), ("192.0.2.1",)]
    assert addresses("0.0.0.0", option="127.0.0.1") == [("127.0.0.1",), ("192.0.2.1",)]
    assert addresses("127.0.0.1", option="0.0.0.0") == [("0.0.0.0", "::"), ("192.0.2.1",)]
    assert addresses("0.0.0.0", option="::") == [("::",), ("192.0.2.1",)]


def test_internal_networks_publish_nothing_and_say_so() -> None:
    assert planned({"80/tcp": (at("80"),)}, "v4-internal") == []
    (warning,) = ports.warnings(*make({"80/tcp": (at("80"),)}, "v4-internal"))
    assert "n0 is an internal network" in warning
    assert "network connect" in warning
    assert ports.warnings(*make({"80/tcp": (at("80"),)}, "v4-internal", "v4")) == []
    assert ports.warnings(*make(None, "v4-internal")) == []
    for mode in ("host", "none"):
        (warning,) = ports.warnings(*make({"80/tcp": (at("80"),)}, mode=mode))
        assert warning.startswith(f"Published ports are discarded when using {mode} network mode")


@pytest.mark.parametrize(
    ("binding", "planned_at", "opened_at"),
    [
        (at("8080"), [("::",)], ["0.0.0.0"]),
        (at("8080", "127.0.0.1"), [], ["0.0.0.0"]),
        (at("8080", "::"), [("::",)], []),
    ],
)
def test_on_a_routed_network_the_containers_own_port_is_opened(
    binding: PortBinding, planned_at: list[tuple[str, ...]], opened_at: list[str]
) -> None:
    asked, options = {"80/tcp": (binding,)}, {GATEWAY_MODE[4]: "routed"}
    assert [p[2] for p in planned(asked, "dual", options=options)] == planned_at
    world, container = make(asked, "dual", options=options)
    opened = ports.opened(world, container, "0.0.0.0")
    assert [(p.host_ip, p.host_port, p.container_port) for p in opened] == [(ip, 0, 80) for ip in opened_at]
    (warning,) = ports.warnings(world, container)
    assert warning.startswith("Host addresses and ports are ignored on network n0, which is routed (IPv4)")
    assert ports.warnings(*make({"80/tcp": (at(),)}, "v4", options=options)) == []
    assert ports.opened(*make(asked, "dual"), "0.0.0.0") == ()
    assert ports.opened(*make(asked, "dual-internal", options=options), "0.0.0.0") == ()


def test_ports_lead_to_the_gateway_of_their_family() -> None:
    world, container = make({"80/tcp": (at("80"),)}, "dual-internal", "v4=1", "dual")
    ways = ports.entrances(world, container)
    assert {family: e.id for family, e in ways.items()} == {4: "e1", 6: "e2"}
    (plan,) = ports.plans(world, container, "0.0.0.0")
    placed = ports.place(container.endpoints, ways, plan.at(80))
    assert {k: [p.host_ip for p in v] for k, v in placed.items()} == {"e0": [], "e1": ["0.0.0.0"], "e2": ["::"]}


def test_an_ipv6_address_without_ipv6_is_refused_unless_something_else_is_under_way() -> None:
    world, container = make({"80/tcp": (at("80", "::"),)})
    with pytest.raises(NotSupported, match="has no IPv6 address") as caught:
        ports.plans(world, container, "0.0.0.0")
    assert "--ipv6" in caught.value.hint
    assert ports.plans(world, container, "0.0.0.0", is_strict=False) == ()


@pytest.mark.parametrize(
    ("bindings", "kind"),
    [
        ({"80/sctp": (at("80"),)}, NotSupported), ({"80/tcp": (at("80", "::1"),)}, NotSupported),
        ({"80/tcp": (at("80", "localhost"),)}, InvalidParameter), ({"80/tcp": (at("x"),)}, InvalidParameter),
        ({"80/tcp": (at("65536"),)}, InvalidParameter), ({"80/tcp": (at("9-8"),)}, InvalidParameter),
        ({"80/tcp": (at("-1"),)}, InvalidParameter), ({"80-81/tcp": (at("80"),)}, InvalidParameter),
        ({"0/tcp": (at("80"),)}, InvalidParameter), ({"80/icmp": (at("80"),)}, InvalidParameter),
        ({"80/tcp": (at("٣"),)}, InvalidParameter), ({"/tcp": ()}, InvalidParameter),
    ],
)  # fmt: skip
def test_what_cannot_be_published_is_refused_at_create(bindings: Bindings, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        ports.check(HostConfig(port_bindings=bindings))


@pytest.mark.parametrize("text", ["", "x", "::1", "1.2.3"])
def test_default_addresses_that_make_no_sense(text: str) -> None:
    with pytest.raises((InvalidParameter, NotSupported)):
        ports.check_default_address(text)


NUMBERS = st.integers(1, 65535)


@given(NUMBERS, NUMBERS, st.sampled_from(["tcp", "udp", "sctp", "TCP", ""]))
def test_every_range_is_read_back(one: int, other: int, protocol: str) -> None:
    first, last = min(one, other), max(one, other)
    spec = f"{first}-{last}" + (f"/{protocol}" if protocol else "")
    assert ports.split(spec) == (first, last, protocol.lower() or "tcp")
    assert ports.port_range(f"{first}-{last}") == (first, last)
    if first < last:
        with pytest.raises(InvalidParameter):
            ports.port_range(f"{last}-{first}")


@given(st.text(alphabet="0123456789-/:tcpud ", max_size=12))
def test_any_text_is_a_port_or_refused_in_dockers_words(text: str) -> None:
    try:
        first, last, protocol = ports.split(text)
    except InvalidParameter as error:
        assert error.message == f'invalid port specification: "{text}"'
    else:
        assert 0 < first <= last <= 65535
        assert protocol in ("tcp", "udp", "sctp")


PLANS = st.builds(
    lambda port, protocol, ips, first, more: PortPlan(
        protocol=protocol, container_port=port, host_ips=ips, first=first, last=first + more if first else 0
    ),
    st.integers(1, 3),
    st.sampled_from(["tcp", "udp"]),
    st.sampled_from([("0.0.0.0",), ("0.0.0.0", "::"), ("::",), ("127.0.0.1",)]),
    st.integers(0, 3),
    st.integers(0, 2),
)
HELD = st.builds(
    lambda protocol, ip, outer, inner: PublishedPort(
        protocol=protocol, host_ip=ip, host_port=outer, container_port=inner
    ),
    st.sampled_from(["tcp", "udp"]),
    st.sampled_from(["0.0.0.0", "::", "127.0.0.1"]),
    st.integers(1, 5),
    st.integers(1, 3),
)


@given(st.lists(PLANS, max_size=5), st.lists(HELD, max_size=6, unique=True))
def test_nothing_is_asked_for_twice_and_nothing_kept_that_nobody_wants(
    wanted: list[PortPlan], held: list[PublishedPort]
) -> None:
    missing, kept = ports.compare(wanted, held)
    assert set(kept) <= set(held)
    # every address of every plan is served once: by what is kept, or by what is still to be had
    assert sum(len(plan.host_ips) for plan in wanted) == len(kept) + sum(len(plan.host_ips) for plan in missing)
    for port in kept:
        assert any(
            port.host_ip in plan.host_ips and (not plan.first or plan.first <= port.host_port <= plan.last)
            for plan in wanted
        )


def test_what_is_held_at_one_address_is_wanted_under_the_same_number_at_the_other() -> None:
    plan = PortPlan(protocol="tcp", container_port=80, host_ips=("0.0.0.0", "::"))
    held = PublishedPort(protocol="tcp", host_ip="0.0.0.0", host_port=32768, container_port=80)
    missing, kept = ports.compare([plan], [held])
    assert kept == (held,)
    assert [(p.host_ips, p.first, p.last) for p in missing] == [(("::",), 32768, 32768)]


@given(HELD, HELD)
def test_conflicts_are_mutual(one: PublishedPort, other: PublishedPort) -> None:
    assert one.conflicts_with(other) == other.conflicts_with(one)
    assert one.conflicts_with(one)
