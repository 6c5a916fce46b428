"""Which addresses, names of interfaces and MACs an endpoint gets, and the kernel plan that follows from them.

Decides with `rules.ipam` on the live leases; the plan is carried out by `kernel.network`. No await in here: between the
choice of an address and its lease nobody else can run.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from tsunagu.model.container import Container
from tsunagu.model.errors import EngineError
from tsunagu.model.instance import Instance
from tsunagu.model.network import (
    ANNOUNCE_INTERVAL,
    ANNOUNCEMENTS,
    IFACE_PREFIX,
    Endpoint,
    EndpointConfig,
    InterfacePlan,
    Network,
)
from tsunagu.model.world import World
from tsunagu.rules import endpoint_options, ipam

from .leases import Leases


def join_all(
    world: World, instance: Instance, leases: Leases, container: Container, new_id: Callable[[], str]
) -> tuple[Endpoint, ...]:
    """Choose addresses for every endpoint of a container, in declared order; on failure no lease is left behind."""
    joined: list[Endpoint] = []
    try:
        networks = [network_of(world, endpoint) for endpoint in container.endpoints]
        wanted = [(e.config, e.ifname, prefix(n)) for e, n in zip(container.endpoints, networks, strict=True)]
        names = endpoint_options.interface_names(wanted)
        for endpoint, network, ifname in zip(container.endpoints, networks, names, strict=True):
            joined.append(join(world, instance, leases, container, network, endpoint.config, ifname, new_id()))
    except EngineError:
        release_all(leases, container, tuple(joined))
        raise
    return tuple(joined)


def join(
    world: World,
    instance: Instance,
    leases: Leases,
    container: Container,
    network: Network,
    config: EndpointConfig,
    ifname: str,
    endpoint_id: str,
) -> Endpoint:
    """Choose what one endpoint gets; `ifname` is its interface in the sandbox."""
    addresses = {4: "", 6: ""}
    prefixes = {4: 0, 6: 0}
    gateways = {4: "", 6: ""}
    for family, wanted in ((4, config.ipv4), (6, config.ipv6)):
        subnet = network.subnet_of(family)
        if subnet is None:
            continue
        leased = leases.on(network.id)
        asked = wanted
        if asked and leased.get(asked) != container.id:
            holders = {
                address: f"container {world.containers[holder].name}"
                for address, holder in leased.items()
                if holder in world.containers
            }
            asked = ipam.check_address(network, asked, holders)
        addresses[family] = asked or ipam.choose_address(subnet, leased)
        prefixes[family] = int(subnet.subnet.partition("/")[2])
        gateways[family] = "" if network.is_internal else subnet.gateway
        leases.take(network.id, addresses[family], container.id)
    return Endpoint(
        config=config,
        network_id=network.id,
        network_name=network.name,
        id=endpoint_id,
        ipv4=addresses[4],
        ipv4_prefix=prefixes[4],
        ipv6=addresses[6],
        ipv6_prefix=prefixes[6],
        gateway4=gateways[4],
        gateway6=gateways[6],
        mac=config.mac or ipam.generate_mac(secrets.token_bytes(6)),
        ifname=ifname,
        host_ifname=instance.veth_name(endpoint_id),
    )


def release_all(leases: Leases, container: Container, endpoints: tuple[Endpoint, ...]) -> None:
    """Give the addresses of a stopped container back; static ones stay reserved for it."""
    for endpoint in endpoints:
        leases.release(endpoint, container.id, keep_static=True)


def left(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint as it is while its container is stopped: what was asked for, the network it means, and the
    name of its interface, which it gets again."""
    return Endpoint(
        config=endpoint.config,
        network_id=endpoint.network_id,
        network_name=endpoint.network_name,
        ifname=endpoint.ifname,
    )


def prefix(network: Network) -> str:
    """Return what the names of interfaces on a network begin with."""
    return network.options.get(IFACE_PREFIX) or "eth"


def interface_plan(world: World, endpoint: Endpoint, *, has_hairpin: bool) -> InterfacePlan:
    """Return the veth pair that carries an endpoint; `has_hairpin` where its container publishes ports."""
    network = world.networks[endpoint.network_id]
    addresses = [f"{endpoint.ipv4}/{endpoint.ipv4_prefix}"] if endpoint.ipv4 else []
    if endpoint.ipv6:
        addresses.append(f"{endpoint.ipv6}/{endpoint.ipv6_prefix}")
    # Docker's prefix lengths for link-local addresses
    addresses += [f"{address}/{64 if ':' in address else 16}" for address in endpoint.config.link_local]
    return InterfacePlan(
        host_name=endpoint.host_ifname,
        name=endpoint.ifname,
        bridge=network.bridge,
        mac=endpoint.mac,
        mtu=network.mtu,
        addresses=tuple(addresses),
        has_ipv6=bool(endpoint.ipv6),
        has_hairpin=has_hairpin,
        sysctls=endpoint_options.sysctls(endpoint.config, endpoint.ifname),
        announcements=int(network.options.get(ANNOUNCEMENTS, 1)),
        announce_interval=int(network.options.get(ANNOUNCE_INTERVAL, 1000)) / 1000,
    )


def publishes(container: Container) -> bool:
    """Whether a container asks for published ports, served at the moment or not."""
    return bool(container.host.port_bindings or container.host.publish_all_ports)


def network_of(world: World, endpoint: Endpoint) -> Network:
    """Return the network an endpoint means: by id, and when that is gone by name (needs.md N32: a network that was
    removed and made anew is the one the user means). Raises NotFound."""
    if found := world.networks.get(endpoint.network_id):
        return found
    if endpoint.network_name in world.network_ids:
        return world.network(endpoint.network_name)
    return world.network(endpoint.config.network)
