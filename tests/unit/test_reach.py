"""`reach`: for every reason a world that produces it, and its section in docs/reasons.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from tsunagu.model.container import Config, Container, HostConfig, Link, State, Status
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
from tsunagu.rules import walk
from tsunagu.rules.flows import Flow, Host, Reach, Unknown
from tsunagu.rules.policy import Hook, Reason
from tsunagu.rules.reach import reach
from tsunagu.rules.reasons import FINE, Cause, Fact, anchor

DOCUMENT = Path(__file__).parents[2] / "docs" / "reasons.md"
# Found by probing living containers, so by tests/e2e/test_why.py.
PROBED = {
    Fact.DNS_SILENT, Fact.SHARED_NAME, Fact.NOT_LISTENING, Fact.LOOPBACK_ONLY, Fact.OTHER_ADDRESS, Fact.OTHER_PORT,
    Fact.OTHER_PROTOCOL, Fact.MTU_MISMATCH, Fact.REFUSED, Fact.UNANSWERED, Fact.PUBLISHED_ON_LOOPBACK,
    Fact.SEARCH_DOMAIN,
}  # fmt: skip
# Explained already, and no rule yet.
COMING: set[str] = set()
# Rules that decide about packets no flow consists of, or that never decide alone.
# No sandbox sends to 127.0.0.0/8 beyond itself: only forged packets meet host-loopback.
SILENT = {
    Reason.ROUTER_ADVERTISEMENT, Reason.MASQUERADE, Reason.ESTABLISHED, Reason.HAIRPIN, Reason.HOST_LOOPBACK,
}  # fmt: skip


class Builder:
    """A world in short words. Networks n1, n2 … have 10.N.0.0/24; containers get .2, .3, … in order."""

    def __init__(self) -> None:
        self.world = World()

    def network(self, name: str, *, is_ipv6: bool = False, **settings: object) -> Builder:
        n = len(self.world.networks) + 1
        subnets = [Subnet(subnet=f"10.{n}.0.0/24", gateway=f"10.{n}.0.1")]
        if is_ipv6:
            subnets.append(Subnet(subnet=f"fd00:{n}::/64", gateway=f"fd00:{n}::1"))
        network = Network(
            id=f"{n:x}" * 64, name=name, bridge=f"b{n}", subnets=tuple(subnets), enable_ipv6=is_ipv6,
            is_builtin=name == "bridge", **settings,  # type: ignore[arg-type]
        )  # fmt: skip
        self.world = apply(self.world, NetworkCreated(network))
        return self

    def container(
        self,
        name: str,
        *networks: str,
        mode: str = "",
        status: Status = Status.RUNNING,
        aliases: tuple[str, ...] = (),
        links: tuple[str, ...] = (),
        legacy: tuple[str, ...] = (),
    ) -> Builder:
        m = len(self.world.containers) + 2
        endpoints = []
        for index, word in enumerate(networks):
            network = self.world.network(word)
            n = int(network.bridge[1:])
            endpoint = Endpoint(
                config=EndpointConfig(network=word, aliases=aliases, links=links),
                network_id=network.id, network_name=word,
            )  # fmt: skip
            if status is Status.RUNNING:
                gateway = "" if network.is_internal else f"10.{n}.0.1"
                endpoint = replace(
                    endpoint, id=f"{m:x}{n:x}" * 32, ipv4=f"10.{n}.0.{m}", ipv4_prefix=24, gateway4=gateway,
                    ifname=f"eth{index}",
                )  # fmt: skip
                if network.enable_ipv6:
                    endpoint = replace(
                        endpoint, ipv6=f"fd00:{n}::{m}", ipv6_prefix=64, gateway6=gateway and f"fd00:{n}::1"
                    )
            endpoints.append(endpoint)
        container = Container(
            id=f"{m:x}".rjust(2, "c") * 32, name=name, created=m, image_id="", path="sh", args=(),
            config=Config(hostname=name, image="alpine", cmd=("sleep", "9"), exposed_ports={"80/tcp": {}}),
            links=tuple(Link(self.world.container(word).id, f"{word}-link") for word in legacy),
            host=HostConfig(network_mode=mode or (networks[0] if networks else "none")),
            endpoints=tuple(endpoints), state=State(status=status),
        )  # fmt: skip
        self.world = apply(self.world, ContainerCreated(container))
        return self

    def ends(self, name: str) -> Builder:
        """The process of a container ends, while others live on in its sandbox."""
        ended = replace(self.world.container(name), state=State(status=Status.EXITED))
        self.world = replace(self.world, containers={**self.world.containers, ended.id: ended})
        return self

    def pauses(self, name: str) -> Builder:
        frozen = replace(self.world.container(name), state=State(status=Status.PAUSED))
        self.world = replace(self.world, containers={**self.world.containers, frozen.id: frozen})
        return self

    def publishes(self, name: str, host_ip: str = "0.0.0.0", host_port: int = 80) -> Builder:
        """Publish port 8080 of a container's first network."""
        container = self.world.container(name)
        port = PublishedPort(protocol="tcp", host_ip=host_ip, host_port=host_port, container_port=8080)
        first, *others = container.endpoints
        changed = replace(container, endpoints=(replace(first, ports=(*first.ports, port)), *others))
        self.world = replace(self.world, containers={**self.world.containers, changed.id: changed})
        return self

    def asks(
        self, source: str, target: str, host: Host | None = None, *, port: int = 80, protocol: str = "tcp"
    ) -> Reach:
        return reach(self.world, Flow(source=source, target=target, port=port, protocol=protocol), host)


def two(**settings: object) -> Builder:
    """a and b on network app."""
    return Builder().network("app", **settings).container("a", "app").container("b", "app")  # type: ignore[arg-type]


def shared() -> Builder:
    """a and b on network app, c in the sandbox of b."""
    return two().container("c", mode="container:b")


def apart(**settings: object) -> Builder:
    """a on network app, b on network back."""
    return (
        Builder().network("app").network("back", **settings)  # type: ignore[arg-type]
        .container("a", "app").container("b", "back", aliases=("store",))
    )  # fmt: skip


ROUTED = {GATEWAY_MODE[4]: "routed"}
ISOLATED = {GATEWAY_MODE[4]: "isolated"}
TRUSTING = {TRUSTED_INTERFACES: "lan0"}
UNPROTECTED = {GATEWAY_MODE[4]: "nat-unprotected"}
LAN = Host(uplink="lan0")


def default_bridge(**settings: object) -> Builder:
    """a and b on the default bridge, c there too with links to both of them and to d, which does not run."""
    return (
        Builder().network("bridge", **settings)  # type: ignore[arg-type]
        .container("a", "bridge").container("b", "bridge").container("d", "bridge", status=Status.EXITED)
        .container("c", "bridge", legacy=("a", "b", "d"))
    )  # fmt: skip


def publish(port: str, name: str = "b") -> str:
    return f"tsunagu rm -f {name} && tsunagu run -d --name {name} --network app -p {port} alpine sleep 9"


Case = tuple[Cause, Callable[[], Reach], str]
CASES: tuple[Case, ...] = (
    (Reason.SAME_NETWORK, lambda: two().asks("a", "b"), ""),
    (Reason.SAME_NETWORK, lambda: two().asks("a", "b.app"), ""),
    (Reason.SAME_NETWORK, lambda: two(is_internal=True).asks("a", "b"), ""),
    (Reason.SAME_NETWORK, lambda: default_bridge().asks("c", "a"), ""),
    (Reason.SAME_NETWORK, lambda: default_bridge().asks("c", "a-link"), ""),
    (Reason.LINKED, lambda: default_bridge(options={ICC: "false"}).asks("c", "a-link"), ""),
    (
        Reason.ICC_OFF, lambda: default_bridge(options={ICC: "false"}).asks("a", "10.1.0.5"),
        "tsunagu network create a-c && tsunagu network connect a-c a && tsunagu network connect a-c c"
        " && tsunagu network disconnect bridge a",
    ),
    (Fact.LINK_TARGET_AWAY, lambda: default_bridge().asks("c", "d-link"), "tsunagu start d"),
    (Reason.OUTGOING, lambda: two().asks("a", "outside"), ""),
    (Reason.OUTGOING, lambda: two(options={MASQUERADE: "false"}).asks("a", "neighbour"), ""),
    (Fact.SAME_SANDBOX, lambda: two().asks("a", "a"), ""),
    (Fact.SAME_SANDBOX, lambda: two().asks("a", "127.0.0.1"), ""),
    (Fact.SAME_SANDBOX, lambda: two().container("c", mode="container:b").asks("c", "b"), ""),
    (Fact.SAME_SANDBOX, lambda: shared().asks("b", "c"), ""),
    (Fact.SAME_SANDBOX, lambda: shared().container("d", mode="container:c").asks("d", "c"), ""),
    (Reason.SAME_NETWORK, lambda: shared().asks("c", "a"), ""),
    (Reason.SAME_NETWORK, lambda: shared().asks("a", "b"), ""),
    (Reason.SAME_NETWORK, lambda: shared().asks("a", shared().world.container("c").id), ""),
    (Reason.SAME_NETWORK, lambda: shared().ends("b").asks("a", "b"), ""),
    (Fact.HOST_REACHES, lambda: shared().ends("b").asks("host", "b"), ""),
    (Fact.NO_OWN_NAME, lambda: shared().asks("a", "c"), "tsunagu why a b:80"),
    (Fact.NOT_RUNNING, lambda: shared().ends("b").asks("b", "a"), "tsunagu start b"),
    (Fact.NOT_RUNNING, lambda: shared().ends("c").asks("a", "c"), "tsunagu start c"),
    (
        Fact.NOT_RUNNING,
        lambda: two().container("c", status=Status.EXITED).container("d", mode="container:c", status=Status.EXITED)
        .asks("a", "d"), "tsunagu start c d",
    ),
    (Fact.SAME_SANDBOX, lambda: two().container("c").container("d", mode="container:c").asks("d", "c"), ""),
    (
        Fact.NETWORK_NONE, lambda: two().container("c").container("d", mode="container:c").asks("d", "a"),
        "tsunagu rm -f c && tsunagu run -d --name c --network app alpine sleep 9",
    ),
    (Fact.HOST_REACHES, lambda: two().container("c", mode="host").asks("c", "a"), ""),
    (
        Fact.HOST_REACHES,
        lambda: two().container("c", mode="host").container("d", mode="container:c").asks("d", "a"), "",
    ),
    (Fact.HOST_ADDRESS, lambda: two().container("c", mode="host").asks("a", "c"), ""),
    (Fact.HOST_ADDRESS, lambda: two().asks("a", "host"), ""),
    (Fact.HOST_ADDRESS, lambda: two().asks("a", "192.0.2.9", Host(addresses=("192.0.2.9",))), ""),
    (Fact.HOST_REACHES, lambda: two(options={ICC: "false"}).asks("host", "b"), ""),
    (Fact.NOT_OURS, lambda: two().asks("host", "outside"), ""),
    (Fact.NAME_UNKNOWN, lambda: two().asks("a", "zzz"), "tsunagu ps --all"),
    (Fact.NAME_UNKNOWN, lambda: apart().asks("host", "storr"), "tsunagu why host store"),
    (Fact.NAME_IN_OTHER_NETWORK, lambda: apart().asks("a", "store"), "tsunagu network connect back a"),
    (
        Fact.DEFAULT_BRIDGE, lambda: default_bridge().asks("a", "b"),
        "tsunagu network create a-b && tsunagu network connect a-b a && tsunagu network connect a-b b",
    ),
    (
        Fact.LINK_TARGET_AWAY,
        lambda: (
            two().container("c", "app", links=("d:db",)).container("d", "app", status=Status.EXITED).asks("c", "db")
        ),
        "tsunagu start d",
    ),
    (Fact.NOT_RUNNING, lambda: two().container("c", "app", status=Status.EXITED).asks("a", "c"), "tsunagu start c"),
    (Fact.NOT_RUNNING, lambda: two().container("c", "app", status=Status.CREATED).asks("c", "a"), "tsunagu start c"),
    (
        Fact.RESTARTING, lambda: two().container("c", "app", status=Status.RESTARTING).asks("a", "c"),
        "tsunagu logs c",
    ),
    (Fact.PAUSED, lambda: two().pauses("b").asks("a", "b"), "tsunagu unpause b"),
    (Fact.PAUSED, lambda: two().pauses("b").asks("a", "10.1.0.3"), "tsunagu unpause b"),
    (Fact.PAUSED, lambda: two().pauses("b").asks("host", "b", port=0), "tsunagu unpause b"),
    (Fact.PAUSED, lambda: two().pauses("b").publishes("b").asks("a", "gateway"), "tsunagu unpause b"),
    (Fact.PAUSED, lambda: two().pauses("a").asks("a", "b"), "tsunagu unpause a"),
    (Reason.SAME_NETWORK, lambda: shared().pauses("b").asks("a", "b"), ""),  # c may be who listens
    (Fact.PAUSED, lambda: shared().pauses("b").pauses("c").asks("a", "b"), "tsunagu unpause b"),
    (
        Fact.NETWORK_NONE, lambda: two().container("c").asks("c", "a"),
        "tsunagu rm -f c && tsunagu run -d --name c --network app alpine sleep 9",
    ),
    (
        Fact.NETWORK_NONE, lambda: two().container("c").asks("a", "c"),
        "tsunagu rm -f c && tsunagu run -d --name c --network app alpine sleep 9",
    ),
    (Fact.NO_NETWORK, lambda: two().container("c", mode="app").asks("a", "c"), "tsunagu network connect app c"),
    (Fact.FAMILY_MISMATCH, lambda: two().asks("a", "2001:db8::5"), ""),
    (
        Fact.NO_ROUTE,
        lambda: Builder().network("app", is_ipv6=True).container("a", mode="app").asks("outside", "fd00:1::1"), "",
    ),
    (Fact.ADDRESS_UNUSED, lambda: two().asks("a", "10.1.0.99"), "tsunagu network inspect app"),
    (
        Fact.FORWARDING_OFF, lambda: two().asks("a", "outside", Host(forwards=frozenset())),
        "sysctl -w net.ipv4.ip_forward=1",
    ),
    (
        Fact.NO_WAY_BACK, lambda: two(options={MASQUERADE: "false"}).asks("a", "outside"),
        "tsunagu network connect bridge a",
    ),
    (Fact.HOST_HAS_NO_ROUTE, lambda: two().asks("a", "outside", Host(outside=frozenset())), ""),
    (Reason.NO_SHARED_NETWORK, lambda: apart().asks("a", "b"), "tsunagu network connect back a"),
    (Reason.NO_SHARED_NETWORK, lambda: apart().asks("a", "10.2.0.3"), "tsunagu network connect back a"),
    (Reason.INTERNAL_INGRESS, lambda: apart(is_internal=True).asks("a", "10.2.0.3"), "tsunagu network connect back a"),
    (Reason.INTERNAL_EGRESS, lambda: two(is_internal=True).asks("a", "outside"), "tsunagu network connect bridge a"),
    (
        Reason.ICC_OFF, lambda: two(options={ICC: "false"}).asks("a", "b"),
        "tsunagu network create a-b && tsunagu network connect a-b a && tsunagu network connect a-b b"
        " && tsunagu network disconnect app a",
    ),
    (Reason.DIRECT_ROUTING, lambda: two().asks("neighbour", "b"), publish("80:80")),
    (Reason.DIRECT_ROUTING, lambda: two().publishes("b").asks("neighbour", "b"), publish("8080:80")),
    (Reason.DIRECT_ROUTING, lambda: two().asks("outside", "b", port=0), ""),
    (
        Reason.DIRECT_ROUTING, lambda: two().publishes("b", host_port=88).asks("outside", "b", port=8080),
        "tsunagu why outside host:88",
    ),
    (
        Reason.DIRECT_ROUTING, lambda: two().publishes("b", "192.0.2.9").asks("outside", "b", port=0),
        "tsunagu why outside 192.0.2.9:80",
    ),
    (
        Reason.DIRECT_ROUTING, lambda: two().publishes("b", "127.0.0.1", 88).asks("outside", "b", port=8080),
        publish("8080:8080"),
    ),
    (Reason.DIRECT_ROUTING, lambda: shared().asks("outside", "b"), ""),  # c lives in its sandbox
    (Reason.PUBLISHED, lambda: apart().publishes("b").asks("a", "host"), ""),
    (Reason.PUBLISHED, lambda: two(options={ICC: "false"}).publishes("b").asks("a", "gateway"), ""),
    (Reason.PUBLISHED, lambda: two().publishes("a").asks("a", "gateway"), ""),
    (Reason.PUBLISHED, lambda: two().publishes("b", "127.0.0.1").asks("host", "127.0.0.1"), ""),
    (Reason.PUBLISHED, lambda: two().publishes("b").asks("outside", "192.0.2.9", Host(addresses=("192.0.2.9",))), ""),
    (Fact.HOST_ADDRESS, lambda: two().publishes("b", host_port=81).asks("a", "gateway"), ""),
    (Fact.HOST_ADDRESS, lambda: two().publishes("b", "127.0.0.1").asks("a", "gateway"), ""),
    (
        Reason.INTERNAL_EGRESS,
        lambda: (
            Builder().network("app").network("in", is_internal=True).container("a", "in").container("b", "app")
            .publishes("b").asks("a", "gateway")
        ),
        "tsunagu network connect app a",
    ),
    (Reason.INTERNAL_INGRESS, lambda: two(is_internal=True).asks("neighbour", "b"), "tsunagu network connect bridge b"),
    (Reason.ROUTED, lambda: two(options=ROUTED).publishes("b", host_port=0).asks("neighbour", "b", port=8080), ""),
    (Reason.ROUTED, lambda: two(options=ROUTED).asks("neighbour", "b", protocol="icmp"), ""),
    (
        Reason.ROUTED,
        lambda: apart(options=ROUTED).publishes("b", host_port=0).asks("a", "10.2.0.3", port=8080), "",
    ),
    (
        Reason.UNPUBLISHED, lambda: two(options=ROUTED).publishes("b", host_port=0).asks("neighbour", "b"),
        publish("80:80"),
    ),
    (
        Fact.NEEDS_ROUTE,
        lambda: two(options=ROUTED).publishes("b", host_port=0).asks("outside", "b", port=8080), "",
    ),
    (Fact.NO_WAY_BACK, lambda: two(options=ROUTED).asks("a", "outside"), "tsunagu network connect bridge a"),
    (Fact.HOST_ADDRESS, lambda: two(options=ROUTED).publishes("b", host_port=0).asks("a", "gateway", port=8080), ""),
    (Reason.UNPROTECTED, lambda: two(options=UNPROTECTED).asks("neighbour", "b"), ""),
    (
        Reason.NO_SHARED_NETWORK, lambda: apart(options=UNPROTECTED).asks("a", "10.2.0.3"),
        "tsunagu network connect back a",
    ),
    (Reason.TRUSTED, lambda: two(options=TRUSTING).publishes("b").asks("neighbour", "b", LAN, port=8080), ""),
    (
        Reason.UNPUBLISHED, lambda: two(options=TRUSTING).publishes("b").asks("neighbour", "b", LAN),
        publish("8080:80"),
    ),
    (
        Reason.DIRECT_ROUTING, lambda: two(options=TRUSTING).publishes("b").asks("neighbour", "b", port=8080),
        "tsunagu why neighbour host:80",
    ),
    (Fact.HOST_ABSENT, lambda: two(options=ISOLATED, is_internal=True).asks("host", "b"), ""),
    (Fact.HOST_ABSENT, lambda: two(options=ISOLATED, is_internal=True).asks("a", "host"), ""),
    (Reason.SAME_NETWORK, lambda: two(options=ISOLATED, is_internal=True).asks("a", "b"), ""),
    (Fact.HOST_ABSENT, lambda: two(options={INHIBIT_IPV4: "true"}).asks("a", "outside"), ""),
    (Reason.OUTGOING, lambda: two(options={SNAT_SOURCE[4]: "192.0.2.9"}).asks("a", "outside"), ""),
)  # fmt: skip


@pytest.mark.parametrize(("cause", "ask", "hint"), CASES)
def test_every_reason_has_a_world(cause: Cause, ask: Callable[[], Reach], hint: str) -> None:
    answer = ask()
    assert answer.reason is cause, answer
    assert answer.allowed == (cause in FINE)
    assert answer.hint == hint
    assert answer.steps[-1].is_ok == answer.allowed
    assert answer.steps[-1].code == cause.code
    assert all(step.is_ok for step in answer.steps[:-1])
    assert "{" not in answer.sentence
    assert answer.documentation == f"docs/reasons.md#{cause.code}"


def test_no_reason_is_left_out() -> None:
    shown = {cause for cause, _, _ in CASES}
    assert {*Fact} - PROBED <= shown
    assert {*Reason} - SILENT <= shown


def test_every_reason_is_explained() -> None:
    sections = set(re.findall(r"^### (\S+)$", DOCUMENT.read_text(), re.MULTILINE)) - COMING
    causes: list[Cause] = [*Reason, *Fact]
    assert sections == {cause.code for cause in causes} - COMING
    assert len({anchor(cause) for cause in causes}) == len(causes)


def test_the_walk_knows_every_hook() -> None:
    passed = sorted(hook.name for stage in walk.STAGES for hook in stage)
    assert passed == sorted(hook.name for hook in Hook if hook is not Hook.OFFERED)  # that one has no packets


def test_a_published_port_leads_to_the_container() -> None:
    it = apart().publishes("b")
    answer = it.asks("a", "gateway")
    assert (answer.landing, answer.landing_port) == ("10.2.0.3", 8080)
    assert answer.holders == (it.world.container("b").id,)
    assert answer.addresses == ("10.1.0.1",)


def test_bridge_netfilter_keeps_a_neighbours_translated_packet_on_the_bridge() -> None:
    host = Host(bridge_netfilter=frozenset({4}))
    assert two(options={ICC: "false"}).publishes("b").asks("a", "gateway", host).reason is Reason.ICC_OFF
    assert two().publishes("b").asks("a", "gateway", host).reason is Reason.PUBLISHED


def test_unknown_source() -> None:
    with pytest.raises(Unknown, match="No such container: zzz"):
        two().asks("zzz", "b")


def test_first_network_that_knows_the_name_answers() -> None:
    it = (
        Builder().network("x").network("y").container("a", "x", "y")
        .container("b", "y", aliases=("db",)).container("c", "x", aliases=("db",))
    )  # fmt: skip
    assert it.asks("a", "db").addresses == ("10.1.0.4",)
    assert it.asks("a", "db.y").addresses == ("10.2.0.3",)
    assert it.asks("a", "DB.").addresses == ("10.1.0.4",)


def test_second_family_is_tried() -> None:
    it = (
        Builder().network("x", is_ipv6=True).network("y", is_ipv6=True)
        .container("a", "x").container("b", "x", aliases=("db",)).container("c", "x", aliases=("db",))
    )  # fmt: skip
    answer = it.asks("a", "db")
    assert answer.addresses == ("10.1.0.3", "10.1.0.4", "fd00:1::3", "fd00:1::4")
    assert len(answer.holders) == 2


def test_many_names_of_a_new_network() -> None:
    taken = default_bridge().network("a-b", options={ICC: "false"})
    assert taken.asks("a", "b").hint.startswith("tsunagu network create a-b-2 && ")
