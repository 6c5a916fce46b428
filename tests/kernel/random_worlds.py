"""Small worlds at random, and the private host that they are built on: networks, sandboxes, two machines outside.

The host has one interface of its own (`up0`, a bridge that is none of ours) with two machines on it: the neighbour
sends everything it does not know to the host, the stranger knows its own link only.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

from msgspec.structs import replace

from tsunagu.kernel.network import NetworkKernel
from tsunagu.model.container import Config, Container, HostConfig, Link, State, Status
from tsunagu.model.network import (
    GATEWAY_MODE,
    ICC,
    INHIBIT_IPV4,
    MASQUERADE,
    SNAT_SOURCE,
    TRUSTED_INTERFACES,
    BridgePlan,
    Endpoint,
    EndpointConfig,
    GatewayMode,
    InterfacePlan,
    Network,
    PublishedPort,
    RoutePlan,
    SandboxPlan,
    Subnet,
)
from tsunagu.model.world import ContainerCreated, NetworkCreated, World, apply
from tsunagu.rules import gateways, policy, ports
from tsunagu.rules import options as network_options
from tsunagu.rules.flows import HOST, NEIGHBOUR, OUTSIDE, Host
from tsunagu.services.attachments import interface_plan
from tsunagu.services.networks import bridge_plan
from tsunagu.testing.namespaces import private_instance
from tsunagu.wire import nft

PORT = 7777  # where everybody listens; no port of the host that is published
UPLINK = {4: "198.18.0.", 6: "fd00:ffff::"}
MACHINES = {NEIGHBOUR: 2, OUTSIDE: 3}
SURROUNDINGS = Host(
    addresses=(f"{UPLINK[4]}1", f"{UPLINK[6]}1"),
    outside=frozenset({4, 6}),
    uplink="up0",
    neighbours=(f"{UPLINK[4]}2", f"{UPLINK[6]}2"),
)


def random_world(rng: Random) -> World:
    """One to three networks with any options, one to four containers on any of them, or on none; most publish a port or
    two, at all addresses of the host or at one."""
    world = World()
    for n in range(1, rng.randint(1, 3) + 1):
        world = apply(world, NetworkCreated(_network(rng, n)))
    for m in range(1, rng.randint(1, 4) + 1):
        container = _container(rng, world, m)
        ways = ports.entrances(world, container)
        published = [port for family, way in ways.items() for port in _ports(rng, world, m, family, way)]
        endpoints = tuple(
            replace(endpoint, ports=placed)
            for endpoint, placed in zip(
                container.endpoints, ports.place(container.endpoints, ways, published).values(), strict=True
            )
        )
        world = apply(world, ContainerCreated(replace(container, endpoints=endpoints)))
    return world


def _ports(rng: Random, world: World, m: int, family: int, way: Endpoint) -> list[PublishedPort]:
    """Ports of one family that lead to container m: numbers of its own, and one that others offer elsewhere. A routed
    network opens the container's own port."""
    if not world.networks[way.network_id].translates(family):
        host_ip = "0.0.0.0" if family == 4 else "::"
        return [
            PublishedPort(protocol=protocol, host_ip=host_ip, host_port=0, container_port=PORT)
            for protocol in rng.choice([(), ("tcp",), ("udp",), ("tcp", "udp")])
        ]
    inside = [s.gateway for n in world.networks.values() if n.has_host(family) and (s := n.subnet_of(family))]
    everywhere, loopback = ("0.0.0.0", "127.0.0.1") if family == 4 else ("::", "")
    places = [everywhere, everywhere, f"{UPLINK[family]}1", *([rng.choice(inside)] if inside else [])]
    places += [loopback] if loopback else []
    return [
        PublishedPort(
            protocol=rng.choice(["tcp", "udp"]), host_ip=rng.choice(places), host_port=9000 + 10 * m + k,
            container_port=PORT,
        )
        for k in range(rng.choice([0, 1, 1, 2]))
    ]  # fmt: skip


def _network(rng: Random, n: int) -> Network:
    is_internal = rng.random() < 0.3
    families = rng.choice([(4,), (4,), (4, 6), (4, 6), (4, 6), (6,)])
    network = Network(
        id=f"{n:x}" * 64, name=rng.choice("abc") + str(n), bridge=f"lab{n}", enable_ipv4=4 in families,
        enable_ipv6=6 in families, is_internal=is_internal, options=_options(rng, is_internal=is_internal),
        is_builtin=rng.random() < 0.3,  # as the default bridge, where links open ports
    )  # fmt: skip
    network_options.check(network.options, is_internal=is_internal)
    prefixes = {4: (f"10.{n}.0.", 24), 6: (f"fd00:{n}::", 64)}
    subnets = [
        Subnet(
            subnet=f"{prefix}{'0' if family == 4 else ''}/{length}",
            gateway=f"{prefix}1" if network_options.wants_gateway(network, family) else "",
        )
        for family in families
        for prefix, length in [prefixes[family]]
    ]
    return replace(network, subnets=tuple(subnets))


def _options(rng: Random, *, is_internal: bool) -> dict[str, str]:
    options = {}
    if rng.random() < 0.3:
        options[ICC] = "false"
    if rng.random() < 0.3:
        options[MASQUERADE] = "false"
    for family in (4, 6):
        if rng.random() < 0.5:
            modes = [mode.value for mode in GatewayMode if is_internal or mode is not GatewayMode.ISOLATED]
            options[GATEWAY_MODE[family]] = rng.choice(modes)
        if rng.random() < 0.2:
            options[SNAT_SOURCE[family]] = f"{UPLINK[family]}1"
    if rng.random() < 0.15:
        options[INHIBIT_IPV4] = "true"
    if rng.random() < 0.3:
        options[TRUSTED_INTERFACES] = rng.choice(["up0", "nowhere0", "nowhere0:up0"])
    return options


def _container(rng: Random, world: World, m: int) -> Container:
    chosen = rng.sample(list(world.networks.values()), rng.randint(0 if rng.random() < 0.2 else 1, len(world.networks)))
    endpoints = []
    for index, network in enumerate(chosen):
        n = int(network.name[1:])
        subnets = {family: network.subnet_of(family) for family in (4, 6)}
        gateways = {f: s.gateway if s is not None and not network.is_internal else "" for f, s in subnets.items()}
        endpoints.append(
            Endpoint(
                config=EndpointConfig(network=network.name, gw_priority=rng.choice([0, 0, 0, 5])),
                network_id=network.id, network_name=network.name, id=f"{m:x}{n:x}" * 32,
                ipv4=f"10.{n}.0.{m + 1}" if subnets[4] else "", ipv4_prefix=24 if subnets[4] else 0,
                ipv6=f"fd00:{n}::{m + 1}" if subnets[6] else "", ipv6_prefix=64 if subnets[6] else 0,
                gateway4=gateways[4], gateway6=gateways[6],
                mac=f"02:00:00:00:{n:02x}:{m:02x}", ifname=f"eth{index}", host_ifname=f"port{n}-{m}",
            )
        )  # fmt: skip
    exposed = {f"{PORT}/{protocol}": {} for protocol in ("tcp", "udp") if rng.random() < 0.5}
    links = tuple(Link(one.id, f"link{one.name}") for one in world.containers.values() if rng.random() < 0.3)
    return Container(
        id=f"{m + 8:x}" * 64, name=f"c{m}", created=m, image_id="", path="sh", args=(),
        config=Config(hostname=f"c{m}", exposed_ports=exposed), links=links,
        host=HostConfig(network_mode=chosen[0].name if chosen else "none"),
        endpoints=tuple(endpoints), state=State(status=Status.RUNNING),
    )  # fmt: skip


class Built:
    """A world that exists: `paths` leads to the namespace of each party by its word, None for the host."""

    def __init__(self, kernel: NetworkKernel, world: World, directory: str) -> None:
        self.kernel = kernel
        self.world = world
        self.paths: dict[str, str | None] = {HOST: None}
        for word in (*MACHINES, *(container.name for container in world.containers.values())):
            self.paths[word] = os.path.join(directory, word)

    def addresses(self, word: str) -> list[str]:
        """Every address of a party."""
        if word == HOST:
            bridges = [address for n in self.world.networks.values() for address in bridge_plan(n).addresses]
            return [*SURROUNDINGS.addresses, *(address.partition("/")[0] for address in bridges)]
        if word in MACHINES:
            return [f"{prefix}{MACHINES[word]}" for prefix in UPLINK.values()]
        endpoints = self.world.container(word).endpoints
        return [address for e in endpoints for address in (e.ipv4, e.ipv6) if address]


@asynccontextmanager
async def build(
    world: World, *, has_bridge_netfilter: bool, rules: Sequence[policy.Rule] | None = None
) -> AsyncIterator[Built]:
    """Build `world` in the calling thread's network namespace, which plays the host; removes it at the end.

    `rules` are put into the kernel instead of the world's own programme.
    """
    for name in ("iptables", "ip6tables", "arptables"):
        with open(f"/proc/sys/net/bridge/bridge-nf-call-{name}", "w") as file:
            file.write(str(int(has_bridge_netfilter)))
    instance, remove = private_instance()
    kernel = NetworkKernel(instance)
    await kernel.open()
    try:
        await kernel.enable_forwarding(ipv6=True)
        built = Built(kernel, world, os.path.join(instance.run_dir, "netns"))
        await kernel.ensure_bridge(
            BridgePlan(name="up0", mtu=1500, addresses=(f"{UPLINK[4]}1/24", f"{UPLINK[6]}1/64"), has_ipv6=True)
        )
        for word in MACHINES:
            path = built.paths[word]
            assert path is not None
            await kernel.set_up_sandbox(machine(path, word))
        for network in world.networks.values():
            await kernel.ensure_bridge(bridge_plan(network))
        await kernel.apply_firewall(nft.script(policy.programme(world) if rules is None else rules, instance.nft_table))
        for container in world.containers.values():
            path = built.paths[container.name]
            assert path is not None
            await kernel.set_up_sandbox(
                SandboxPlan(
                    path=path,
                    interfaces=tuple(
                        interface_plan(world, e, has_hairpin=any(one.ports for one in container.endpoints))
                        for e in container.endpoints
                    ),
                    routes=gateways.default_routes(world, container),
                )
            )
        yield built
    finally:
        await kernel.close()
        remove()


def machine(path: str, word: str) -> SandboxPlan:
    """The plan of one of the two machines outside, at `path`."""
    number = MACHINES[word]
    interface = InterfacePlan(
        host_name=f"up0-{number}", name="eth0", bridge="up0", mac=f"02:00:00:00:ff:{number:02x}", mtu=1500,
        addresses=(f"{UPLINK[4]}{number}/24", f"{UPLINK[6]}{number}/64"), has_ipv6=True,
    )  # fmt: skip
    routes = tuple(RoutePlan(gateway=f"{prefix}1", ifname="eth0") for prefix in UPLINK.values())
    return SandboxPlan(path=path, interfaces=(interface,), routes=routes if word == NEIGHBOUR else ())
