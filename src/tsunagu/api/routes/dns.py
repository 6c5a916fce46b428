"""`/tsunagu/dns/…`: the names that a container finds, the answer to one question, and who asks what."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from tsunagu.api.request import Request, Response, json_response
from tsunagu.api.router import Route
from tsunagu.model.errors import InvalidParameter
from tsunagu.model.world import World
from tsunagu.rules.zone import Entry
from tsunagu.services.dns import Answer
from tsunagu.wire import dnstext
from tsunagu.wire.control import Asked


def zone(request: Request) -> Response:
    """Return the names that `container` finds; all names without one."""
    world = request.app.engine.world
    return json_response([_entry(world, entry) for entry in request.app.dns.zone(request.text("container"))])


async def query(request: Request) -> Response:
    """Ask for `name` (`type`: A) from inside `container`."""
    container, name = request.text("container"), request.text("name")
    if not container or not name:
        raise InvalidParameter("the parameters container and name are required")
    found = await request.app.dns.ask(container, name, request.text("type", "A"))
    return json_response(_answer(request.app.engine.world, found))


async def log(request: Request) -> None:
    """Stream what `container`, or everybody, asks from now on, until the client leaves."""
    stream = request.app.dns.follow(request.text("container"))
    request.stream()
    async with aclosing(stream):  # type: ignore[type-var]
        async for entry in stream:
            if isinstance(entry, int):
                await request.write_json({"Missed": entry})
            else:
                await request.write_json(_asked(request.app.engine.world, entry))


def _entry(world: World, entry: Entry) -> dict[str, Any]:
    return {
        "Name": entry.name,
        "Network": world.networks[entry.network_id].name,
        "IPv4": list(entry.ipv4),
        "IPv6": list(entry.ipv6),
        "Why": [why.value for why in entry.whys],
        "Containers": list(entry.holders),
        "TTL": entry.ttl,
    }


def _answer(world: World, found: Answer) -> dict[str, Any]:
    return {
        "Name": found.name,
        "Type": dnstext.type_name(found.qtype),
        "Status": dnstext.rcode_name(found.rcode) if found.rcode >= 0 else "",
        "Records": [{"Type": one.kind, "TTL": one.ttl, "Data": one.text} for one in found.records],
        "Origin": found.origin,
        "Detail": _detail(world, found.origin, found.detail),
        "Microseconds": found.taken,
        "Hosts": list(found.hosts),
    }


def _asked(world: World, entry: Asked) -> dict[str, Any]:
    container = world.containers.get(entry.sandbox)
    return {
        "Time": entry.time,
        "Container": container.name if container is not None else entry.sandbox[:12],
        "Id": entry.sandbox,
        "Protocol": "tcp" if entry.is_tcp else "udp",
        "Name": entry.name,
        "Type": dnstext.type_name(entry.qtype) if entry.qtype else "",
        "Status": dnstext.rcode_name(entry.rcode) if entry.rcode >= 0 else "",
        "Answers": entry.answers,
        "Origin": entry.origin,
        "Detail": _detail(world, entry.origin, entry.detail),
        "Microseconds": entry.taken,
    }


def _detail(world: World, origin: str, detail: str) -> str:
    """A network's name instead of its id."""
    if origin != "network":
        return detail
    network = world.networks.get(detail)
    return network.name if network is not None else detail[:12]


ROUTES = (
    Route("GET", "/tsunagu/dns/zone", zone),
    Route("GET", "/tsunagu/dns/query", query, is_cancellable=True),
    Route("GET", "/tsunagu/dns/log", log, is_cancellable=True),
)
