"""All names that a container finds, and why each is there: what its name server would answer, written out.

The same values that the resolver is fed with (`names.registrations`, `names.view`), in the order in which it asks them.
Imports `names` and its neighbours; pure. Must never invent a name.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tsunagu.model.container import Container
from tsunagu.model.ids import short
from tsunagu.model.network import Endpoint
from tsunagu.model.world import World

from . import lookup, names
from .sandboxes import has_live_sandbox, owner_of


class Why(StrEnum):
    """Why a name exists."""

    LINK = "link"
    NAME = "name"
    ALIAS = "alias"
    ID = "id"
    HOSTNAME = "hostname"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One name on one network. `whys` and `holders` (names of containers) are in the order in which they were found;
    `ttl` is in seconds."""

    name: str
    network_id: str
    whys: tuple[Why, ...]
    holders: tuple[str, ...]
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]
    ttl: int


def zone(world: World, container: Container | None = None) -> tuple[Entry, ...]:
    """Return what `container` finds, by the networks it asks, each name once: on the first network that knows it.

    Without a container every name of every network. Names are sorted on each network; links come first.
    """
    if container is None:
        named = [network.id for network in world.networks.values() if network.has_names]
        return tuple(entry for network_id in named for entry in _entries(world, network_id))
    owner = owner_of(world, container)
    view = names.view(world, owner)
    found: dict[str, Entry | None] = {}
    for network_id, alias, _ in view.links:
        answer = lookup.resolve(world, owner, alias)
        found.setdefault(_fold(alias), _link(world, network_id, alias, answer))
    for network_id in view.networks:
        for entry in _entries(world, network_id):
            found.setdefault(_fold(entry.name), entry)
    return tuple(entry for entry in found.values() if entry is not None)


def _link(world: World, network_id: str, alias: str, answer: lookup.Lookup) -> Entry | None:
    """The entry of a link; None when its target is away, and the name is answered by nobody."""
    if not answer.holders:
        return None
    return Entry(
        name=alias,
        network_id=answer.network_id,
        whys=(Why.LINK,),
        holders=tuple(holder.container.name for holder in answer.holders),
        ipv4=_addresses([holder.endpoint for holder in answer.holders], 4),
        ipv6=_addresses([holder.endpoint for holder in answer.holders], 6),
        ttl=world.networks[network_id].dns_ttl,
    )


def _entries(world: World, network_id: str) -> list[Entry]:
    """Every name of one network, sorted."""
    holders: dict[str, list[tuple[Container, Endpoint, Why, bool]]] = {}
    spelled: dict[str, str] = {}
    for container in world.containers.values():
        endpoint = container.endpoint_on(network_id)
        if endpoint is None or not has_live_sandbox(world, container):
            continue
        registration = names.registrations(world, container).get(network_id)
        for name in registration.names if registration is not None else ():
            spelled.setdefault(_fold(name), name)
            is_ready = registration is not None and registration.is_ready
            holders.setdefault(_fold(name), []).append((container, endpoint, _why(container, endpoint, name), is_ready))
    entries = []
    for key in sorted(holders):
        members = [one for one in holders[key] if one[3]] or holders[key]
        endpoints = [endpoint for _, endpoint, _, _ in members]
        entries.append(
            Entry(
                name=spelled[key],
                network_id=network_id,
                whys=tuple(dict.fromkeys(why for _, _, why, _ in members)),
                holders=tuple(dict.fromkeys(container.name for container, _, _, _ in members)),
                ipv4=_addresses(endpoints, 4),
                ipv6=_addresses(endpoints, 6),
                ttl=world.networks[network_id].dns_ttl,
            )
        )
    return entries


def _why(container: Container, endpoint: Endpoint, name: str) -> Why:
    if name == container.name:
        return Why.NAME
    if name in endpoint.config.aliases:
        return Why.ALIAS
    return Why.ID if name == short(container.id) else Why.HOSTNAME


def _addresses(endpoints: list[Endpoint], family: int) -> tuple[str, ...]:
    found = (endpoint.ipv4 if family == 4 else endpoint.ipv6 for endpoint in endpoints)
    return tuple(dict.fromkeys(address for address in found if address))


def _fold(name: str) -> str:
    return name.removesuffix(".").lower()
