"""The map says what `reach` says, for every pair of every world: grouping must never change an answer."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tsunagu.model.container import Config, Container, HostConfig, State, Status
from tsunagu.model.errors import NotFound
from tsunagu.model.network import ICC, MASQUERADE, Endpoint, EndpointConfig, Network, PublishedPort, Subnet
from tsunagu.model.world import ContainerCreated, NetworkCreated, World, apply
from tsunagu.rules.flows import OUTSIDE, Flow, Host
from tsunagu.rules.lookup import resolve
from tsunagu.rules.reach import reach
from tsunagu.rules.sandboxes import owner_of
from tsunagu.rules.topology import By, Topology, topology
from unit.test_reach import Builder


def random_world(rng: Random) -> World:
    """Few networks, many containers: so that many are alike, and some differ in one thing."""
    world = World()
    for n in range(1, rng.randint(1, 4) + 1):
        options = {}
        if rng.random() < 0.25:
            options[ICC] = "false"
        if rng.random() < 0.25:
            options[MASQUERADE] = "false"
        has_ipv6 = rng.random() < 0.3
        subnets = [Subnet(subnet=f"10.{n}.0.0/24", gateway=f"10.{n}.0.1")]
        if has_ipv6:
            subnets.append(Subnet(subnet=f"fd00:{n}::/64", gateway=f"fd00:{n}::1"))
        network = Network(
            id=f"{n:x}" * 64, name="bridge" if n == 4 else f"n{n}", bridge=f"lab{n}", enable_ipv6=has_ipv6,
            is_internal=n != 4 and rng.random() < 0.3, is_builtin=n == 4, subnets=tuple(subnets), options=options,
        )  # fmt: skip
        world = apply(world, NetworkCreated(network))
    for m in range(2, rng.randint(2, 9) + 2):
        world = apply(world, ContainerCreated(_container(rng, world, m)))
    return world


def _container(rng: Random, world: World, m: int) -> Container:
    networks = list(world.networks.values())
    mode = rng.choice(["", "", "", "", "", "host", "none", "container"])
    older = [c for c in world.containers.values() if not c.host.network_mode.startswith("container:")]
    if mode == "container" and older:
        mode, chosen = f"container:{rng.choice(older).id}", []
    elif mode in ("host", "none"):
        chosen = []
    else:
        chosen = rng.sample(networks, rng.randint(1, min(2, len(networks))))
        mode = chosen[0].name
    is_running = rng.random() < 0.9
    endpoints = []
    for k, network in enumerate(chosen):
        n = int(network.bridge[3:])
        names = [f"c{rng.randint(2, 9)}"] if rng.random() < 0.15 else []
        links = [f"c{rng.randint(2, 9)}:c{rng.randint(2, 9)}"] if rng.random() < 0.1 else []
        endpoint = Endpoint(
            config=EndpointConfig(network=network.name, aliases=tuple(names), links=tuple(links)),
            network_id=network.id, network_name=network.name,
        )  # fmt: skip
        if is_running:
            gateway = "" if network.is_internal else network.subnets[0].gateway
            port = PublishedPort(protocol="tcp", host_ip="0.0.0.0", host_port=8000 + m, container_port=80)
            endpoint = replace(
                endpoint, id=f"{m:x}{n:x}" * 32, ipv4=f"10.{n}.0.{m}", ipv4_prefix=24, gateway4=gateway,
                ipv6=f"fd00:{n}::{m}" if network.enable_ipv6 else "", ipv6_prefix=64 if network.enable_ipv6 else 0,
                gateway6=network.subnets[1].gateway if network.enable_ipv6 and gateway else "", ifname=f"eth{k}",
                ports=(port,) if not k and gateway and rng.random() < 0.3 else (),
            )  # fmt: skip
        endpoints.append(endpoint)
    return Container(
        id=f"{m:x}" * 64, name=f"c{m}", created=m, image_id="", path="sh", args=(), config=Config(hostname=f"h{m}"),
        host=HostConfig(network_mode=mode), endpoints=tuple(endpoints),
        state=State(status=Status.RUNNING if is_running else Status.EXITED),
    )  # fmt: skip


def said(found: Topology, source: Container, target: Container) -> By | None:
    """What the map says about one pair."""
    group_of = {identifier: index for index, group in enumerate(found.groups) for identifier in group.members}
    i, j = group_of[source.id], group_of[target.id]
    if i == j:
        return found.groups[i].members_meet
    return next((way.by for way in found.ways if (way.source, way.target) == (i, j)), None)


def true(world: World, source: Container, target: Container) -> By | None:
    """The same by asking `reach` about this very pair, by name and by every address."""
    mine, yours = owner_of(world, source), owner_of(world, target)

    def allows(word: str) -> bool:
        return reach(world, Flow(source=source.id, target=word, protocol="icmp")).allowed

    if yours.id in [h.container.id for h in resolve(world, mine, target.name).holders] and allows(target.name):
        return By.NAME
    addresses = [a for e in yours.endpoints if e.is_joined for a in (e.ipv4, e.ipv6) if a]
    return By.ADDRESS if any(map(allows, [target.id, *addresses])) else None


@given(st.integers(0, 10**9))
def test_the_map_says_what_reach_says(seed: int) -> None:
    world = random_world(Random(seed))
    found = topology(world)
    running = [c for c in world.containers.values() if c.is_running]
    assert sorted(i for g in found.groups for i in g.members) == sorted(c.id for c in running)
    for source in running:
        for target in running:
            if source is not target:
                assert said(found, source, target) == true(world, source, target), (source.name, target.name)
    for group in found.groups:
        for member in group.members:
            direct = reach(world, Flow(source=member, target=OUTSIDE, protocol="icmp"))
            assert (group.leads_out, group.code) == (direct.allowed, direct.reason.code)
    host = Host(addresses=("192.0.2.1",))
    for door in found.doors:
        flow = Flow(source=OUTSIDE, target="192.0.2.1", protocol="tcp", port=door.port.host_port)
        assert reach(world, flow, host).allowed == door.is_open


def tutorial() -> World:
    """Scenario 4: two networks, one container on both."""
    made = Builder().network("front").network("back")
    made = made.container("api", "front", "back").container("web", "front").container("web2", "front")
    return made.container("db", "back").world


def test_containers_that_are_alike_are_one_group() -> None:
    found = topology(tutorial())
    names = {c.id: c.name for c in found.containers}
    assert [[names[i] for i in g.members] for g in found.groups] == [["api"], ["web", "web2"], ["db"]]
    assert [g.members_meet for g in found.groups] == [None, By.NAME, None]
    assert [(w.source, w.target) for w in found.ways] == [(0, 1), (0, 2), (1, 0), (2, 0)]


@pytest.mark.parametrize(
    ("words", "networks", "containers"),
    [
        (["back"], ["back"], ["api", "db"]),
        (["web"], ["front"], ["api", "web", "web2"]),
        (["api"], ["front", "back"], ["api", "web", "web2", "db"]),
        (["db", "front"], ["front", "back"], ["api", "web", "web2", "db"]),
    ],
)
def test_a_part_of_the_map(words: list[str], networks: list[str], containers: list[str]) -> None:
    found = topology(tutorial(), words=words)
    assert [n.name for n in found.networks] == networks
    assert [c.name for c in found.containers] == containers


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(NotFound):
        topology(tutorial(), words=["nosuch"])


def test_a_network_nobody_is_on_is_shown_when_a_user_made_it() -> None:
    world = Builder().network("bridge").network("lonely").world
    assert [n.name for n in topology(world).networks] == ["lonely"]


def test_names_are_not_needed_on_the_default_bridge() -> None:
    world = Builder().network("bridge").container("a", "bridge").container("b", "bridge").world
    assert topology(world).groups[0].members_meet is By.ADDRESS
