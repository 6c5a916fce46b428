"""Which address of which network is whose: the live index that address decisions read.

A lease is taken at the decision, before the kernel knows of it, so that two starts at once never choose one address.
Static addresses of stopped containers stay leased (needs.md N21: Docker hands them out and the owner cannot start).
Rebuilt from the world when the engine starts.
"""

from __future__ import annotations

from collections.abc import Mapping

from tsunagu.model.network import Endpoint
from tsunagu.model.world import World


class Leases:
    """Address -> container id, for each network. Addresses are text in their canonical form."""

    def __init__(self, world: World) -> None:
        self._holders: dict[str, dict[str, str]] = {}
        for container in world.containers.values():
            for endpoint in container.endpoints:
                if network_id := endpoint.network_id or world.network_ids.get(endpoint.config.network, ""):
                    for address in (endpoint.ipv4, endpoint.ipv6, endpoint.config.ipv4, endpoint.config.ipv6):
                        if address:
                            self.take(network_id, address, container.id)

    def on(self, network_id: str) -> Mapping[str, str]:
        """Return the leased addresses of a network and the ids of their holders."""
        return self._holders.get(network_id, {})

    def everything(self) -> Mapping[str, Mapping[str, str]]:
        """Return all leases: network id -> address -> container id."""
        return self._holders

    def repair(self, world: World) -> None:
        """Lease what the containers of `world` have, and forget the leases of containers that are gone."""
        for network_id, holders in Leases(world).everything().items():
            for address, container_id in holders.items():
                self.take(network_id, address, container_id)
        for taken in self._holders.values():
            for address in [one for one, holder in taken.items() if holder not in world.containers]:
                del taken[address]

    def take(self, network_id: str, address: str, container_id: str) -> None:
        self._holders.setdefault(network_id, {})[address] = container_id

    def release(self, endpoint: Endpoint, container_id: str, *, keep_static: bool) -> None:
        """Give back an endpoint's addresses; with `keep_static` those the user asked for stay reserved."""
        leased = self._holders.get(endpoint.network_id)
        if leased is None:
            return
        static = {endpoint.config.ipv4, endpoint.config.ipv6} if keep_static else set()
        for address in (endpoint.ipv4, endpoint.ipv6, endpoint.config.ipv4, endpoint.config.ipv6):
            if address and address not in static and leased.get(address) == container_id:
                del leased[address]

    def forget(self, network_id: str) -> None:
        """Drop all leases of a removed network."""
        self._holders.pop(network_id, None)
