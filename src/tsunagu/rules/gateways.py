"""In which order a container's networks count: for its default route, and for names that several networks know.

Docker's order (daemon/libnetwork, Endpoint.Less): gateway priority, then networks with a way out before internal ones,
then endpoints with gateways of both families before those with one, then the network's name. Since 28 the default
route is chosen per address family. Imports `model` only; pure.
"""

from __future__ import annotations

from tsunagu.model.container import Container
from tsunagu.model.network import Endpoint, RoutePlan
from tsunagu.model.world import World


def order(world: World, container: Container) -> tuple[Endpoint, ...]:
    """Return the endpoints that are joined, the one whose gateway is preferred first."""

    def rank(endpoint: Endpoint) -> tuple[int, bool, int, str]:
        network = world.networks[endpoint.network_id]
        gateways = bool(endpoint.gateway4) + bool(endpoint.gateway6)
        return -endpoint.config.gw_priority, network.is_internal, -gateways, network.name

    return tuple(sorted((e for e in container.endpoints if e.is_joined), key=rank))


def default_routes(world: World, container: Container) -> tuple[RoutePlan, ...]:
    """Return a container's default routes, at most one per family, IPv4 first; internal networks give none."""
    routes = []
    ranked = [e for e in order(world, container) if not world.networks[e.network_id].is_internal]
    for gateways in ([(e.gateway4, e) for e in ranked], [(e.gateway6, e) for e in ranked]):
        chosen = next(((gateway, e) for gateway, e in gateways if gateway), None)
        if chosen is not None:
            routes.append(RoutePlan(gateway=chosen[0], ifname=chosen[1].ifname))
    return tuple(routes)
