"""`/tsunagu/map`: networks, containers and who reaches whom."""

from __future__ import annotations

from typing import Any

from tsunagu.api.request import Request, Response, json_response
from tsunagu.api.router import Route
from tsunagu.model.container import Container
from tsunagu.rules.topology import Topology


async def show(request: Request) -> Response:
    """Return the topology; `only`, repeated, names networks and containers."""
    return json_response(_json(await request.app.maps.survey(request.values("only"))))


def _json(found: Topology) -> dict[str, Any]:
    names = {container.id: container.name for container in found.containers}
    group_of = {identifier: index for index, group in enumerate(found.groups) for identifier in group.members}
    return {
        "Networks": [
            {
                "Id": network.id,
                "Name": network.name,
                "Driver": network.driver,
                "Subnets": [subnet.subnet for subnet in network.subnets],
                "Gateways": [subnet.gateway for subnet in network.subnets if subnet.gateway],
                "Internal": network.is_internal,
                "Icc": network.allows_icc,
                "Names": network.has_names,
            }
            for network in found.networks
        ],
        "Containers": [
            {
                "Id": container.id,
                "Name": container.name,
                "State": container.state.status.value,
                "Mode": _mode(container, names),
                "Group": group_of.get(container.id, -1),
                "Endpoints": [
                    {
                        "NetworkId": endpoint.network_id,
                        "Network": endpoint.network_name or endpoint.config.network,
                        "IPv4": endpoint.ipv4,
                        "IPv6": endpoint.ipv6,
                        "Aliases": list(endpoint.config.aliases),
                    }
                    for endpoint in container.endpoints
                ],
            }
            for container in found.containers
        ],
        "Groups": [
            {
                "Containers": [names[identifier] for identifier in group.members],
                "Outside": group.leads_out,
                "Reason": group.code,
                "Among": group.members_meet.value if group.members_meet else "",
            }
            for group in found.groups
        ],
        "Ways": [{"From": way.source, "To": way.target, "By": way.by.value, "Reason": way.code} for way in found.ways],
        "Ports": [
            {
                "Container": names[door.container],
                "NetworkId": door.network,
                "Protocol": door.port.protocol,
                "HostIp": door.port.host_ip,
                "HostPort": door.port.host_port,
                "ContainerPort": door.port.container_port,
                "Open": door.is_open,
                "Reason": door.code,
            }
            for door in found.doors
        ],
    }


def _mode(container: Container, names: dict[str, str]) -> str:
    """Return the network mode as a user writes it: `container:` with a name."""
    mode, colon, word = container.host.network_mode.partition(":")
    return f"{mode}:{names.get(word, word[:12])}" if colon else mode


ROUTES = (Route("GET", "/tsunagu/map", show, is_cancellable=True),)
