"""Which way a packet takes: the routes of a sandbox and of the host, as they follow from the world.

Imports `rules` and `model` only; pure. Must never judge what the firewall lets through: `walk` does.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from tsunagu.model.container import Container
from tsunagu.model.network import Endpoint, Network
from tsunagu.model.world import World

from . import gateways, policy, remedies
from .flows import Host, Party, Refused
from .reasons import Fact
from .sandboxes import owner_of


def families_of(world: World, party: Party) -> set[int]:
    """Return the address families that one end has addresses of; the host and the outside have both."""
    if party.container is None or party.is_host:
        return {4, 6}
    joined = [e for e in owner_of(world, party.container).endpoints if e.is_joined]
    return {4 for e in joined if e.ipv4} | {6 for e in joined if e.ipv6}


def holder_of(world: World, address: str) -> Container | None:
    """Return the container whose living sandbox has the address."""
    for container in world.containers.values():
        if any(address in (e.ipv4, e.ipv6) for e in container.endpoints if e.is_joined):
            return container
    return None


def way_out(world: World, mine: Container, address: str, family: int) -> tuple[Endpoint, bool]:
    """Return the endpoint that the sandbox's routes choose, and whether the address is on its very network.

    Raises Refused when no route leads there, or only by way of a host that takes no part in the network.
    """
    for endpoint in mine.endpoints:
        subnet = _subnet(world, endpoint, family)
        if endpoint.is_joined and subnet and ip_address(address) in ip_network(subnet):
            return endpoint, True
    for route in gateways.default_routes(world, mine):
        if (":" in route.gateway) == (family == 6):
            chosen = next(e for e in mine.endpoints if e.ifname == route.ifname)
            demand_host(world.networks[chosen.network_id], family)
            return chosen, False
    internal = [n for e in mine.endpoints if e.is_joined and (n := world.networks[e.network_id]).is_internal]
    if not internal:
        raise Refused(Fact.NO_ROUTE, source=mine.name, family=family)
    owner = holder_of(world, address)
    if owner is not None:
        raise Refused(
            policy.Reason.NO_SHARED_NETWORK,
            remedies.meet(world, mine, owner),
            network=", ".join(e.network_name for e in owner.endpoints),
        )
    raise Refused(
        policy.Reason.INTERNAL_EGRESS,
        remedies.outside(world, mine),
        network=", ".join(n.name for n in internal),
    )


def place_of(world: World, host: Host, address: str) -> Network | Host | None:
    """Return where an address is: on one of our networks, on the host itself, or (None) elsewhere."""
    if address in host.addresses or ip_address(address).is_loopback:
        return host
    for network in world.networks.values():
        for subnet in network.subnets:
            if address == subnet.gateway and network.has_host(6 if ":" in address else 4):
                return host
            if ip_address(address) in ip_network(subnet.subnet):
                return network
    return None


def unused(address: str, network: Network) -> Refused:
    """Return the refusal of an address that nobody has."""
    hint = f"tsunagu network inspect {network.name}"
    return Refused(Fact.ADDRESS_UNUSED, hint, address=address, network=network.name)


def demand_host(network: Network, family: int) -> None:
    """Refuse a way through the host to or from a network in which it takes no part."""
    if not network.has_host(family):
        raise Refused(Fact.HOST_ABSENT, family=family, network=network.name)


def demand_forwarding(host: Host, family: int) -> None:
    """Refuse a way that leads through a host which does not forward."""
    if family not in host.forwards:
        name = "net.ipv4.ip_forward" if family == 4 else "net.ipv6.conf.all.forwarding"
        raise Refused(Fact.FORWARDING_OFF, f"sysctl -w {name}=1", family=family)


def _subnet(world: World, endpoint: Endpoint, family: int) -> str:
    network = world.networks.get(endpoint.network_id)
    has_address = endpoint.ipv6 if family == 6 else endpoint.ipv4
    subnet = network.subnet_of(family) if network is not None and has_address else None
    return subnet.subnet if subnet is not None else ""
