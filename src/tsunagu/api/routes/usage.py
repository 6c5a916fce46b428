"""`/system/df`: how much of the disk images, containers and volumes take."""

from __future__ import annotations

from collections import Counter

from tsunagu.api.request import Request, Response, json_response
from tsunagu.api.router import Route
from tsunagu.api.routes.containers import summaries
from tsunagu.api.views import Json
from tsunagu.api.views_image import image_summary_json
from tsunagu.api.views_volume import volume_json
from tsunagu.model.errors import InvalidParameter

_TYPES = ("container", "image", "volume", "build-cache")


async def usage(request: Request) -> Response:
    wanted = request.values("type") or list(_TYPES)
    for kind in wanted:
        if kind not in _TYPES:
            raise InvalidParameter(f"unknown object type: {kind}")
    app = request.app
    total, shared = app.images.disk_usage()
    out: Json = {
        "LayersSize": total if "image" in wanted else 0,
        "Images": None,
        "Containers": None,
        "Volumes": None,
        "BuildCache": [] if "build-cache" in wanted else None,
    }
    if "image" in wanted:
        counts = Counter(c.image_id for c in app.engine.world.containers.values())
        out["Images"] = [
            image_summary_json(image, request.version, counts[image.id]) | {"SharedSize": shared[image.id]}
            for image in app.images.all()
        ]
    if "container" in wanted:
        out["Containers"] = await summaries(request, app.engine.world.containers.values(), has_sizes=True)
    if "volume" in wanted:
        links = Counter(n for c in app.engine.world.containers.values() for n in {m.name for m in c.mounts if m.name})
        out["Volumes"] = [
            volume_json(v, app.engine.instance)
            | {"UsageData": {"RefCount": links[v.name], "Size": -1 if v.options else await app.volumes.size(v.name)}}
            for v in list(app.engine.world.volumes.values())
        ]
    return json_response(out)


ROUTES = (Route("GET", "/system/df", usage),)
