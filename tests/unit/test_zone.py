"""The zone that is written out is the one that lookups find: same names, same holders, nothing more."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tsunagu.rules import lookup, names
from tsunagu.rules.sandboxes import owner_of
from tsunagu.rules.zone import Why, zone
from unit.test_reach import Builder
from unit.test_topology import random_world


@given(st.integers(0, 10**9))
def test_every_name_is_found_where_the_zone_says(seed: int) -> None:
    world = random_world(Random(seed))
    every = {entry.name for entry in zone(world)}
    for container in world.containers.values():
        if not container.is_running:
            continue
        owner = owner_of(world, container)
        found = {entry.name.lower(): entry for entry in zone(world, container)}
        links = {alias for _, alias, _ in names.view(world, owner).links}
        for name in every | set(found) | links:
            answer = lookup.resolve(world, owner, name)
            entry = found.get(name.lower())
            assert (entry is not None) == bool(answer.holders), name
            if entry is not None:
                assert entry.network_id == answer.network_id
                assert set(entry.holders) == {holder.container.name for holder in answer.holders}
                assert set(entry.ipv4) == {holder.endpoint.ipv4 for holder in answer.holders} - {""}


def test_why_a_name_is_there() -> None:
    made = Builder().network("app").container("db", "app", aliases=("store",))
    made = made.container("web", "app", links=("db:database",))
    world = made.world
    found = {entry.name: entry for entry in zone(world, world.container("web"))}
    assert {name: entry.whys for name, entry in found.items() if len(name) < 12} == {
        "database": (Why.LINK,), "db": (Why.NAME,), "store": (Why.ALIAS,), "web": (Why.NAME,),
    }  # fmt: skip
    assert [entry.whys for name, entry in found.items() if len(name) == 12] == [(Why.ID,)] * 2
    assert found["database"].holders == ("db",)
    assert found["db"].ttl == 5
    assert "database" not in {entry.name for entry in zone(world)}
