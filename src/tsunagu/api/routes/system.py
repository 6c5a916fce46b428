"""`/_ping`, `/version`, `/info`, `/events`, and registry login."""

from __future__ import annotations

from contextlib import aclosing

from tsunagu.api.filters import Filters, parse_filters
from tsunagu.api.request import STANDARD, TEXT, Request, Response, json_response
from tsunagu.api.router import Route
from tsunagu.api.times import parse_time
from tsunagu.api.views_system import event_json, info_json, version_json
from tsunagu.model.errors import InvalidParameter, NotSupported
from tsunagu.services.events import EngineEvent

_PING_HEADERS = (
    *STANDARD,
    (b"Content-Type", TEXT),
    (b"Builder-Version", b"1"),  # docker's client then uses the classic builder protocol
    (b"Swarm", b"inactive"),
    (b"Cache-Control", b"no-cache, no-store, must-revalidate"),
    (b"Pragma", b"no-cache"),
)
_PONG = Response(200, _PING_HEADERS, b"OK")
_PONG_HEAD = Response(200, _PING_HEADERS, b"")

_EVENT_FILTERS = {"container", "daemon", "event", "image", "label", "network", "plugin", "scope", "type", "volume"}


def ping(request: Request) -> Response:
    return _PONG_HEAD if request.method == "HEAD" else _PONG


async def version(request: Request) -> Response:
    return json_response(version_json(await request.app.system.info()))


async def info(request: Request) -> Response:
    return json_response(info_json(await request.app.system.info()))


async def events(request: Request) -> None:
    """Stream events until the client leaves, or until `until`."""
    filters = parse_filters(request.text("filters"), _EVENT_FILTERS)
    since, until = parse_time(request.text("since")), parse_time(request.text("until"))
    if since and until and since > until:
        raise InvalidParameter("`since` is after `until`")
    request.stream()
    stream = request.app.engine.events.subscribe(since, until)
    async with aclosing(stream):  # type: ignore[type-var]
        async for event in stream:
            if _is_wanted(event, filters):
                await request.write_json(event_json(event))


def _is_wanted(event: EngineEvent, filters: Filters) -> bool:
    if not filters:
        return True
    attributes = event.attributes
    # `exec_start: sh -c …` is found by `exec_start` too.
    is_action = filters.exact("event", event.action) or filters.exact("event", event.action.partition(":")[0])
    if not (filters.exact("type", event.type) and is_action and filters.has_labels(attributes)):
        return False
    if not filters.exact("scope", "local"):
        return False
    if "plugin" in filters or ("daemon" in filters and event.type != "daemon"):
        return False
    return all(
        _concerns(kind, event, filters) for kind in ("container", "network", "image", "volume") if kind in filters
    )


def _concerns(kind: str, event: EngineEvent, filters: Filters) -> bool:
    """Tell whether an event is about an object that the filter `kind` names, by id, prefix of an id, or name."""
    if event.type == kind:
        return filters.starts(kind, event.id) or filters.exact(kind, event.attributes.get("name", ""))
    if kind == "image" and event.type == "container":
        return filters.exact(kind, event.attributes.get("image", ""))
    if kind == "container" and event.type == "network":
        return filters.starts(kind, event.attributes.get("container", "-"))
    return False


def auth(request: Request) -> Response:
    raise NotSupported("logging in to a registry is not supported yet", hint="bring images in with load or import")


ROUTES = (
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/version", version),
    Route("GET", "/info", info),
    Route("GET", "/events", events, is_cancellable=True),
    Route("POST", "/auth", auth),
)
