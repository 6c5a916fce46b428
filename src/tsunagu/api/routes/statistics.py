"""`/containers/{name}/stats`: what a container uses, once or as a stream of one line a second."""

from __future__ import annotations

from contextlib import aclosing

from tsunagu.api.request import Request, Response, json_response
from tsunagu.api.router import Route
from tsunagu.api.views_statistics import stats_json
from tsunagu.model.errors import InvalidParameter


async def stats(request: Request) -> Response | None:
    app = request.app
    container = app.engine.world.container(request.words["word"])
    is_stream, is_one_shot = request.flag("stream", default=True), request.flag("one-shot")
    if is_stream and is_one_shot:
        raise InvalidParameter("cannot have stream=true and one-shot=true")
    if is_one_shot:
        return json_response(stats_json(container, None, await app.statistics.once(container.id)))
    if not is_stream:
        return json_response(stats_json(container, *await app.statistics.twice(container.id)))
    request.stream()
    pairs = app.statistics.stream(container.id)
    async with aclosing(pairs):  # type: ignore[type-var]
        async for before, sample in pairs:
            await request.write_json(stats_json(container, before, sample))
    return None


ROUTES = (Route("GET", "/containers/{word}/stats", stats, is_cancellable=True),)
