"""What a name means to a container, by the tables that the resolver is fed with: the same values, asked in its order.

Imports `names` and `model` only; pure. Must never invent a name that `names.registrations` does not give.
"""

from __future__ import annotations

import msgspec

from tsunagu.model.container import Container
from tsunagu.model.network import Endpoint
from tsunagu.model.world import World

from . import names


class Holder(msgspec.Struct, frozen=True):
    """One container that bears a name on one network."""

    container: Container
    endpoint: Endpoint


class Lookup(msgspec.Struct, frozen=True):
    """The answer to a name: who bears it on the first network that knows it. Empty: the name is not ours.

    `link` is True when it is a private name of the asker; then nobody means that the link's target is away.
    """

    holders: tuple[Holder, ...] = ()
    network_id: str = ""
    link: bool = False


def resolve(world: World, container: Container, name: str) -> Lookup:
    """Return whom `container` finds under `name`, asked as the resolver does: links, plain names in gateway order,
    then `name.network` (libnetwork, Sandbox.ResolveName)."""
    wanted = _fold(name)
    view = names.view(world, container)
    away = False
    for network_id, alias, target in view.links:
        if wanted in (_fold(alias), _fold(f"{alias}.{world.networks[network_id].name}")):
            if found := _holders(world, network_id, _fold(target)):
                return Lookup(found, network_id, link=True)
            away = True
    if away:
        return Lookup(link=True)
    for network_id in view.networks:
        if found := _holders(world, network_id, wanted):
            return Lookup(found, network_id)
    for network_id in sorted(view.networks, key=lambda n: world.networks[n].name.count(".")):
        suffix = "." + _fold(world.networks[network_id].name)
        if wanted.endswith(suffix) and (found := _holders(world, network_id, wanted.removesuffix(suffix))):
            return Lookup(found, network_id)
    return Lookup()


def elsewhere(world: World, name: str) -> tuple[Holder, ...]:
    """Return every endpoint that bears the name on any network, joined or not (its container may be stopped)."""
    wanted = _fold(name)
    found = []
    for container in world.containers.values():
        for endpoint in container.endpoints:
            network = world.networks.get(endpoint.network_id)
            known = [_fold(n) for n in names.endpoint_names(container, endpoint)]
            if network is not None and (wanted in known or wanted in [f"{n}.{_fold(network.name)}" for n in known]):
                found.append(Holder(container, endpoint))
    return tuple(found)


def _holders(world: World, network_id: str, wanted: str) -> tuple[Holder, ...]:
    found, ready = [], []
    for container in world.containers.values():
        endpoint = container.endpoint_on(network_id)
        if endpoint is None or not endpoint.is_joined:
            continue
        registration = names.registrations(world, container).get(network_id)
        if registration is not None and wanted in map(_fold, registration.names):
            found.append(Holder(container, endpoint))
            if registration.is_ready:
                ready.append(found[-1])
    return tuple(ready or found)


def _fold(name: str) -> str:
    return name.removesuffix(".").lower()
