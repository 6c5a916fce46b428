"""The snapshot and its events: nothing is edited, indexes follow, words are found in Docker's order."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tsunagu.model.container import Config, Container, HostConfig, State, Status
from tsunagu.model.errors import NotFound
from tsunagu.model.network import Endpoint, EndpointConfig, Network
from tsunagu.model.world import (
    ContainerCreated,
    ContainerRemoved,
    ContainerRenamed,
    ContainerStateChanged,
    EndpointsChanged,
    NetworkCreated,
    NetworkRemoved,
    World,
    apply,
)


def container(identifier: str, name: str) -> Container:
    return Container(
        id=identifier, name=name, created=1, image_id="sha256:0", path="sh", args=(), config=Config(), host=HostConfig()
    )


WEB = container("aa11" + "0" * 60, "web")
DB = container("aa22" + "0" * 60, "aa11")
NET = Network(id="bb" + "0" * 62, name="app")


def build() -> World:
    world = World()
    for event in (NetworkCreated(NET), ContainerCreated(WEB), ContainerCreated(DB)):
        world = apply(world, event)
    return world


def test_apply_returns_a_new_world_and_leaves_the_old_one() -> None:
    before = World()
    after = apply(before, NetworkCreated(NET))
    assert before.networks == {} and before.network_ids == {}
    assert after.network("app") is NET


def test_an_exact_id_wins_over_a_name_and_a_name_over_a_prefix() -> None:
    world = build()
    assert world.container(WEB.id) is WEB
    assert world.container("aa11") is DB  # the name of one is a prefix of the other's id
    assert world.container("/web") is WEB
    assert world.container("aa110") is WEB


def test_a_prefix_of_two_ids_is_refused_and_an_unknown_word_not_found() -> None:
    world = build()
    with pytest.raises(NotFound, match="Multiple IDs found with provided prefix: aa"):
        world.container("aa")
    with pytest.raises(NotFound, match=r"^No such container: nosuch$"):
        world.container("nosuch")
    with pytest.raises(NotFound, match=r"^network nosuch not found$"):
        world.network("nosuch")
    with pytest.raises(NotFound):
        world.container("")


def test_rename_moves_the_name_and_keeps_the_rest() -> None:
    world = apply(build(), ContainerRenamed(WEB.id, "front"))
    assert world.container("front") == replace(WEB, name="front")
    assert "web" not in world.container_ids


def test_members_are_the_joined_endpoints_only() -> None:
    config = EndpointConfig(network="app")
    joined = Endpoint(config=config, network_id=NET.id, network_name="app", id="e1", ipv4="10.0.0.2")
    waiting = Endpoint(config=config, network_id=NET.id, network_name="app")
    world = apply(build(), EndpointsChanged(WEB.id, (joined,)))
    world = apply(world, EndpointsChanged(DB.id, (waiting,)))
    assert [(c.name, e.id) for c, e in world.members(NET.id)] == [("web", "e1")]


def test_state_changes_and_removals_are_seen_under_every_index() -> None:
    world = apply(build(), ContainerStateChanged(WEB.id, State(status=Status.RUNNING, pid=7)))
    assert world.container("web").is_running
    world = apply(world, ContainerRemoved(WEB.id))
    assert WEB.id not in world.containers and "web" not in world.container_ids
    world = apply(world, NetworkRemoved(NET.id))
    assert world.networks == {} and world.network_ids == {}
