"""Docker's JSON of networks and of a container's attachments. Pure."""

from __future__ import annotations

import hashlib

from tsunagu.model.container import Container
from tsunagu.model.network import Endpoint, EndpointConfig, Network, Subnet
from tsunagu.model.world import World
from tsunagu.rules.names import endpoint_names

from .views import Json, by_key, rfc3339


def network_json(world: World, network: Network, *, has_containers: bool) -> Json:
    """Render a network; only inspect lists who is attached (`has_containers`)."""
    containers: Json = {}
    if has_containers:
        for container, endpoint in world.members(network.id):
            containers[container.id] = _member(container, endpoint)
        if network.driver in ("host", "null"):
            for container in world.containers.values():
                if container.is_running and container.host.network_mode == network.name:
                    containers[container.id] = _member(container, _bare_endpoint(world, container))
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": network.enable_ipv4,
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": None if network.is_builtin else by_key(network.ipam_options),
            "Config": [_subnet(subnet) for subnet in network.subnets] or (None if network.is_builtin else []),
        },
        "Internal": network.is_internal,
        "Attachable": network.is_attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": by_key(containers),
        "Options": by_key(network.options),
        "Labels": by_key(network.labels),
    }


def _subnet(subnet: Subnet) -> Json:
    out: Json = {"Subnet": subnet.subnet}
    if subnet.ip_range:
        out["IPRange"] = subnet.ip_range
    if subnet.gateway:
        out["Gateway"] = subnet.gateway
    if subnet.aux:
        out["AuxiliaryAddresses"] = by_key(subnet.aux)
    return out


def _member(container: Container, endpoint: Endpoint) -> Json:
    return {
        "Name": container.name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{endpoint.ipv4}/{endpoint.ipv4_prefix}" if endpoint.ipv4 else "",
        "IPv6Address": f"{endpoint.ipv6}/{endpoint.ipv6_prefix}" if endpoint.ipv6 else "",
    }


def endpoint_json(container: Container, endpoint: Endpoint) -> Json:
    """Render one value of NetworkSettings.Networks. Absent lists are null or [] by what the client had sent."""
    config = endpoint.config
    has_ipam = config.has_ipam_config or config.ipv4 or config.ipv6 or config.link_local
    ipam: Json | None = {} if has_ipam else None
    if ipam is not None:
        if config.ipv4:
            ipam["IPv4Address"] = config.ipv4
        if config.ipv6:
            ipam["IPv6Address"] = config.ipv6
        if config.link_local:
            ipam["LinkLocalIPs"] = config.link_local
    return {
        "IPAMConfig": ipam,
        "Links": config.links or None,
        "Aliases": config.aliases or ([] if config.has_aliases else None),
        "MacAddress": endpoint.mac or config.mac,
        "DriverOpts": config.driver_opts or ({} if config.has_driver_opts else None),
        "GwPriority": config.gw_priority,
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.id,
        "Gateway": endpoint.gateway4,
        "IPAddress": endpoint.ipv4 if endpoint.is_joined else "",
        "IPPrefixLen": endpoint.ipv4_prefix if endpoint.is_joined else 0,
        "IPv6Gateway": endpoint.gateway6,
        "GlobalIPv6Address": endpoint.ipv6 if endpoint.is_joined else "",
        "GlobalIPv6PrefixLen": endpoint.ipv6_prefix if endpoint.is_joined else 0,
        "DNSNames": endpoint_names(container, endpoint) or None,
    }


def networks_json(world: World, container: Container) -> Json:
    """Render NetworkSettings.Networks: a map, so in the order of names. Who joins another's sandbox is on none."""
    mode = container.host.network_mode
    if not container.endpoints and mode in ("host", "none"):
        return {mode: endpoint_json(container, _bare_endpoint(world, container))}
    return by_key({e.network_name or e.config.network: endpoint_json(container, e) for e in container.endpoints})


def _bare_endpoint(world: World, container: Container) -> Endpoint:
    """Return what Docker shows of a container on `host` or `none`: an endpoint without addresses, new at each start."""
    mode = container.host.network_mode
    made = hashlib.sha256(f"{container.id} {container.state.started_at}".encode()).hexdigest()
    return Endpoint(
        config=EndpointConfig(network=mode),
        network_id=world.network_ids.get(mode, ""),
        network_name=mode,
        id=made if container.is_running else "",
    )
