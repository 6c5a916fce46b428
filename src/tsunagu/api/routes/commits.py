"""`POST /commit`: an image made of a container."""

from __future__ import annotations

from tsunagu.api.request import Request, Response, json_response
from tsunagu.api.router import Route
from tsunagu.model.errors import InvalidParameter


async def commit(request: Request) -> Response:
    """Runs to its end even if the client goes away, as every request that makes something."""
    config = await request.json(is_optional=True)
    word = request.text("container")
    if not word:
        raise InvalidParameter("bad parameter: container cannot be empty")
    image = await request.app.commits.commit(
        word,
        repo=request.text("repo"),
        tag=request.text("tag"),
        comment=request.text("comment"),
        author=request.text("author"),
        instructions=request.values("changes"),
        config=config or None,
        pauses=request.flag("pause", default=True),
    )
    return json_response({"Id": image.id}, 201)


ROUTES = (Route("POST", "/commit", commit),)
