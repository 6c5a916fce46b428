"""`/containers`: create, list, inspect, and what changes a container. Streams are in `attachments`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from tsunagu.api.container_list import select
from tsunagu.api.filters import parse_filters
from tsunagu.api.request import Request, Response, empty_response, json_response
from tsunagu.api.router import Route
from tsunagu.api.schema_container import container_create
from tsunagu.api.schema_mounts import bind_mount_sources
from tsunagu.api.views import Json
from tsunagu.api.views_container import container_json, summary_json
from tsunagu.api.views_system import architecture
from tsunagu.model.container import Container
from tsunagu.model.errors import InvalidParameter, NotFound, NotSupported
from tsunagu.model.ids import check_container_name
from tsunagu.rules import links

_LIST_FILTERS = {
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network", "publish", "since",
    "status", "volume",
}  # fmt: skip
_PRUNE_FILTERS = {"label", "label!", "until"}


async def list_containers(request: Request) -> Response:
    filters = parse_filters(request.text("filters"), _LIST_FILTERS)
    app = request.app
    chosen = select(
        app.engine.world,
        app.images,
        filters,
        shows_all=request.flag("all"),
        limit=request.number("limit") or 0,
    )
    return json_response(await summaries(request, chosen, has_sizes=request.flag("size")))


async def summaries(request: Request, chosen: Iterable[Container], *, has_sizes: bool) -> list[Json]:
    """Return the lines of a list of containers."""
    app = request.app
    now = time.time_ns()
    names: dict[tuple[str, str], str] = {}
    link_names = links.names_by_target(app.engine.world)
    lines = []
    for container in chosen:
        key = container.config.image, container.image_id
        if key not in names:
            names[key] = _image_name(request, *key)
        sizes = await app.containers.sizes(container.id) if has_sizes else None
        own = link_names.get(container.id, ())
        lines.append(
            summary_json(app.engine.world, container, app.engine.instance, names[key], now, sizes, link_names=own)
        )
    return lines


def _image_name(request: Request, word: str, image_id: str) -> str:
    """The name the user gave, unless it now means another image: then the id (Docker's rule)."""
    try:
        found = request.app.images.find(word)
    except (NotFound, InvalidParameter):
        return image_id
    return word if found.id == image_id else image_id


async def inspect(request: Request) -> Response:
    app = request.app
    world = app.engine.world
    container = world.container(request.words["word"])
    return json_response(
        container_json(
            world,
            container,
            app.engine.instance,
            exec_ids=app.execs.of_container(container.id),
            log_path=app.containers.log_path(container.id),
            sizes=await app.containers.sizes(container.id) if request.flag("size") else None,
        )
    )


async def create(request: Request) -> Response:
    """Runs to its end even if the client goes away: half a container is worse than one nobody asked for twice."""
    name = request.text("name")
    if name:
        check_container_name(name)
    _check_platform(request.text("platform"))
    body = await request.json()
    wanted = container_create(body)
    for source in bind_mount_sources(body):
        if not os.path.exists(source):
            raise InvalidParameter(f'invalid mount config for type "bind": bind source path does not exist: {source}')
    container, warnings = await request.app.containers.create(name, wanted.config, wanted.host, wanted.endpoints)
    return json_response({"Id": container.id, "Warnings": warnings}, 201)


def _check_platform(text: str) -> None:
    """Images of this machine's platform only."""
    if not text:
        return
    system, _, rest = text.partition("/")
    machine = rest.partition("/")[0]
    if system not in ("linux", "") or machine not in ("", architecture()):
        raise NotSupported(f"platform {text} is not supported", hint=f"this engine runs linux/{architecture()}")


async def start(request: Request) -> Response:
    if (await request.body()).strip() not in (b"", b"{}", b"null"):
        raise InvalidParameter(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    await request.app.containers.start(request.words["word"], detach_keys=request.text("detachKeys"))
    return empty_response()


async def stop(request: Request) -> Response:
    await request.app.containers.stop(request.words["word"], timeout=request.number("t"), signal=request.text("signal"))
    return empty_response()


async def restart(request: Request) -> Response:
    await request.app.containers.restart(
        request.words["word"], timeout=request.number("t"), signal=request.text("signal")
    )
    return empty_response()


async def kill(request: Request) -> Response:
    await request.app.containers.kill(request.words["word"], request.text("signal"))
    return empty_response()


async def rename(request: Request) -> Response:
    await request.app.containers.rename(request.words["word"], request.text("name"))
    return empty_response()


async def remove(request: Request) -> Response:
    await request.app.containers.remove(
        request.words["word"], force=request.flag("force"), volumes=request.flag("v"), link=request.flag("link")
    )
    return empty_response()


async def prune(request: Request) -> Response:
    removed, freed = await request.app.containers.prune(parse_filters(request.text("filters"), _PRUNE_FILTERS))
    return json_response({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})


ROUTES = (  # a name with slashes is that of a link (web/database)
    Route("GET", "/containers/json", list_containers),
    Route("GET", "/containers/{word*}/json", inspect),
    Route("POST", "/containers/create", create),
    Route("POST", "/containers/prune", prune),
    Route("POST", "/containers/{word}/start", start),
    Route("POST", "/containers/{word}/stop", stop),
    Route("POST", "/containers/{word}/restart", restart),
    Route("POST", "/containers/{word}/kill", kill),
    Route("POST", "/containers/{word}/rename", rename),
    Route("DELETE", "/containers/{word*}", remove),
)
