"""`/containers/{id}/update`."""

from __future__ import annotations

from tsunagu.api.request import Request, Response, json_response
from tsunagu.api.router import Route
from tsunagu.api.schema_update import container_update


async def update(request: Request) -> Response:
    wanted = container_update(await request.json())
    warnings = await request.app.updating.update(
        request.words["word"], wanted.limits, restart_policy=wanted.restart_policy
    )
    return json_response({"Warnings": warnings or None})


ROUTES = (Route("POST", "/containers/{word}/update", update),)
