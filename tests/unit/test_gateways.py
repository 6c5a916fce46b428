"""Which network gives the default route, and whose names come first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tsunagu.model.container import Config, Container, HostConfig
from tsunagu.model.network import Endpoint, EndpointConfig, Network, RoutePlan
from tsunagu.model.world import World
from tsunagu.rules import gateways


def world(*networks: Network) -> World:
    return World(networks={n.id: n for n in networks}, network_ids={n.name: n.id for n in networks})


def network(name: str, *, is_internal: bool = False) -> Network:
    return Network(id=name * 8, name=name, is_internal=is_internal)


def endpoint(
    name: str,
    *,
    priority: int = 0,
    gateway4: str = "10.0.0.1",
    gateway6: str = "",
    ifname: str = "",
    joined: bool = True,
) -> Endpoint:
    return Endpoint(
        config=EndpointConfig(network=name, gw_priority=priority),
        network_id=name * 8,
        network_name=name,
        id="e" if joined else "",
        gateway4=gateway4,
        gateway6=gateway6,
        ifname=ifname or f"eth-{name}",
    )


def container(*endpoints: Endpoint) -> Container:
    return Container(
        id="c" * 64,
        name="c",
        created=0,
        image_id="",
        path="",
        args=(),
        config=Config(),
        host=HostConfig(),
        endpoints=endpoints,
    )


def names(world: World, container: Container) -> list[str]:
    return [e.network_name for e in gateways.order(world, container)]


def test_docker_s_order() -> None:
    it = world(network("a", is_internal=True), network("b"), network("c"), network("d"), network("e"))
    both = endpoint("e", gateway6="fd00::1")
    assert names(it, container(endpoint("a"), endpoint("c"), endpoint("b"))) == ["b", "c", "a"]
    assert names(it, container(endpoint("b"), both)) == ["e", "b"]
    assert names(it, container(endpoint("b"), endpoint("d", priority=1), both)) == ["d", "e", "b"]
    assert names(it, container(endpoint("b", priority=-1), endpoint("a"))) == ["a", "b"]
    assert names(it, container(endpoint("b", joined=False), endpoint("c"))) == ["c"]


def test_default_routes_are_chosen_per_family() -> None:
    it = world(network("a"), network("b"), network("inner", is_internal=True))
    chosen = gateways.default_routes(
        it, container(endpoint("b", gateway4="", gateway6="fd00::1"), endpoint("a"), endpoint("inner", priority=9))
    )
    assert chosen == (
        RoutePlan(gateway="10.0.0.1", ifname="eth-a"),
        RoutePlan(gateway="fd00::1", ifname="eth-b"),
    )


def test_internal_networks_give_no_default_route() -> None:
    it = world(network("inner", is_internal=True))
    assert gateways.default_routes(it, container(endpoint("inner"))) == ()
    assert gateways.default_routes(it, container()) == ()


@given(st.permutations(["a", "b", "c", "d"]))
def test_order_does_not_depend_on_the_declared_order(declared: list[str]) -> None:
    it = world(*(network(name) for name in "abcd"))
    assert names(it, container(*(endpoint(name) for name in declared))) == ["a", "b", "c", "d"]
