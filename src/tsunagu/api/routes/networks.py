"""`/networks`."""

from __future__ import annotations

from tsunagu.api.filters import Filters, parse_filters
from tsunagu.api.request import Request, Response, empty_response, json_response
from tsunagu.api.router import Route
from tsunagu.api.schema import endpoint_config, flag_of, network_create, object_of, text_of
from tsunagu.api.views_network import network_json
from tsunagu.model.errors import InvalidParameter
from tsunagu.model.network import Network
from tsunagu.model.world import World

_LIST_FILTERS = {"dangling", "driver", "id", "label", "name", "scope", "type"}
_PRUNE_FILTERS = {"label", "label!", "until"}


def list_networks(request: Request) -> Response:
    filters = parse_filters(request.text("filters"), _LIST_FILTERS)
    for kind in filters.get("type", ()):
        if kind not in ("builtin", "custom"):
            raise InvalidParameter(f"invalid filter: 'type'='{kind}'")
    world = request.app.engine.world
    return json_response(
        [network_json(world, n, has_containers=False) for n in world.networks.values() if _is_wanted(world, n, filters)]
    )


def _is_wanted(world: World, network: Network, filters: Filters) -> bool:
    if not filters:
        return True
    dangling = filters.flag("dangling")
    return (
        filters.exact("driver", network.driver)
        and filters.matches("id", network.id)
        and filters.matches("name", network.name)
        and filters.has_labels(network.labels)
        and filters.exact("scope", "local")
        and filters.exact("type", "builtin" if network.is_builtin else "custom")
        and (dangling is None or dangling == (not network.is_builtin and not world.members(network.id)))
    )


def inspect(request: Request) -> Response:
    world = request.app.engine.world
    return json_response(network_json(world, world.network(request.words["word"]), has_containers=True))


async def create(request: Request) -> Response:
    body = network_create(await request.json())
    network = await request.app.networks.create(
        body.name,
        driver=body.driver or "bridge",
        subnets=body.subnets(),
        enable_ipv4=body.enable_ipv4,
        enable_ipv6=body.enable_ipv6,
        is_internal=body.internal,
        is_attachable=body.attachable,
        options=body.options,
        ipam_options=body.ipam_options(),
        labels=body.labels,
    )
    return json_response({"Id": network.id, "Warning": ""}, 201)


async def remove(request: Request) -> Response:
    await request.app.networks.remove(request.words["word"])
    return empty_response()


async def prune(request: Request) -> Response:
    removed = await request.app.networks.prune(parse_filters(request.text("filters"), _PRUNE_FILTERS))
    return json_response({"NetworksDeleted": removed or None})


async def connect(request: Request) -> Response:
    body = await request.json()
    container = text_of(body, "Container")
    if not container:
        raise InvalidParameter("no container given to connect")
    word = request.words["word"]
    config = endpoint_config(word, object_of(body, "EndpointConfig"), "EndpointConfig.")
    await request.app.connections.connect(word, container, config)
    return empty_response(200)


async def disconnect(request: Request) -> Response:
    body = await request.json()
    container = text_of(body, "Container")
    await request.app.connections.disconnect(request.words["word"], container, force=flag_of(body, "Force"))
    return empty_response(200)


ROUTES = (
    Route("GET", "/networks", list_networks),
    Route("GET", "/networks/", list_networks),
    Route("GET", "/networks/{word}", inspect),
    Route("POST", "/networks/create", create),
    Route("POST", "/networks/prune", prune),
    Route("POST", "/networks/{word}/connect", connect),
    Route("POST", "/networks/{word}/disconnect", disconnect),
    Route("DELETE", "/networks/{word}", remove),
)
