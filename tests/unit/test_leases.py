"""Addresses are never handed out twice, and a stopped container keeps the one its user chose."""

from __future__ import annotations

from tsunagu.model.container import Config, Container, HostConfig
from tsunagu.model.network import Endpoint, EndpointConfig, Network
from tsunagu.model.world import ContainerCreated, NetworkCreated, World, apply
from tsunagu.services.leases import Leases

NET = "a" * 64
FREE = EndpointConfig(network="app")
STATIC = EndpointConfig(network="app", ipv4="10.0.0.9")


def world(*endpoints: Endpoint) -> World:
    made = apply(World(), NetworkCreated(Network(id=NET, name="app")))
    holder = Container(
        id="c1", name="web", created=0, image_id="", path="", args=(), config=Config(), host=HostConfig(),
        endpoints=endpoints,
    )  # fmt: skip
    return apply(made, ContainerCreated(holder))


def test_leases_are_rebuilt_from_the_world_with_static_addresses_of_stopped_containers() -> None:
    running = Endpoint(config=FREE, network_id=NET, id="e", ipv4="10.0.0.2", ipv6="fd00::2")
    assert dict(Leases(world(running)).on(NET)) == {"10.0.0.2": "c1", "fd00::2": "c1"}
    assert dict(Leases(world(Endpoint(config=STATIC))).on(NET)) == {"10.0.0.9": "c1"}


def test_release_keeps_static_addresses_until_the_container_is_removed() -> None:
    endpoint = Endpoint(config=STATIC, network_id=NET, id="e", ipv4="10.0.0.9", ipv6="fd00::9")
    leases = Leases(world(endpoint))
    leases.release(endpoint, "c1", keep_static=True)
    assert dict(leases.on(NET)) == {"10.0.0.9": "c1"}
    leases.release(endpoint, "c1", keep_static=False)
    assert dict(leases.on(NET)) == {}


def test_nobody_releases_an_address_that_another_holds() -> None:
    endpoint = Endpoint(config=FREE, network_id=NET, id="e", ipv4="10.0.0.2")
    leases = Leases(World())
    leases.take(NET, "10.0.0.2", "c2")
    leases.release(endpoint, "c1", keep_static=False)
    assert dict(leases.on(NET)) == {"10.0.0.2": "c2"}
    leases.forget(NET)
    assert dict(leases.on(NET)) == {}
