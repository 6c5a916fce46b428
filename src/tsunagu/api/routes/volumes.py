"""`/volumes`."""

from __future__ import annotations

from tsunagu.api.filters import Filters, parse_filters
from tsunagu.api.request import Request, Response, empty_response, json_response
from tsunagu.api.router import Route
from tsunagu.api.schema_mounts import volume_create
from tsunagu.api.views_volume import volume_json
from tsunagu.model.volume import DRIVER, Volume
from tsunagu.rules.volumes import used

_LIST_FILTERS = {"dangling", "driver", "label", "label!", "name"}
_PRUNE_FILTERS = {"all", "label", "label!"}


def list_volumes(request: Request) -> Response:
    filters = parse_filters(request.text("filters"), _LIST_FILTERS)
    dangling = filters.flag("dangling")
    engine = request.app.engine
    taken = used(engine.world) if dangling is not None else set()
    chosen = [
        volume
        for volume in engine.world.volumes.values()
        if _is_wanted(volume, filters) and (dangling is None or dangling == (volume.name not in taken))
    ]
    return json_response({"Volumes": [volume_json(v, engine.instance) for v in chosen], "Warnings": None})


def _is_wanted(volume: Volume, filters: Filters) -> bool:
    return not filters or (
        filters.exact("driver", DRIVER) and filters.matches("name", volume.name) and filters.has_labels(volume.labels)
    )


def inspect(request: Request) -> Response:
    engine = request.app.engine
    return json_response(volume_json(engine.world.volume(request.words["word"]), engine.instance))


async def create(request: Request) -> Response:
    body = volume_create(await request.json())
    volume = await request.app.volumes.create(body.name, body.driver, body.driver_opts, body.labels)
    return json_response(volume_json(volume, request.app.engine.instance), 201)


async def remove(request: Request) -> Response:
    await request.app.volumes.remove(request.words["word"], force=request.flag("force"))
    return empty_response()


async def prune(request: Request) -> Response:
    """Before API 1.42 named volumes went too; since then only with the filter `all`."""
    filters = parse_filters(request.text("filters"), _PRUNE_FILTERS)
    is_all = bool(filters.flag("all", default=request.version < (1, 42)))
    removed, freed = await request.app.volumes.prune(filters, is_all=is_all)
    return json_response({"VolumesDeleted": removed, "SpaceReclaimed": freed})


ROUTES = (
    Route("GET", "/volumes", list_volumes),
    Route("GET", "/volumes/{word}", inspect),
    Route("POST", "/volumes/create", create),
    Route("POST", "/volumes/prune", prune),
    Route("DELETE", "/volumes/{word}", remove),
)
