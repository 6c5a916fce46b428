"""`/containers/{id}/pause` and `/unpause`."""

from __future__ import annotations

from tsunagu.api.request import Request, Response, empty_response
from tsunagu.api.router import Route


async def pause(request: Request) -> Response:
    await request.app.pausing.pause(request.words["word"])
    return empty_response()


async def unpause(request: Request) -> Response:
    await request.app.pausing.unpause(request.words["word"])
    return empty_response()


ROUTES = (
    Route("POST", "/containers/{word}/pause", pause),
    Route("POST", "/containers/{word}/unpause", unpause),
)
