"""What this version does not do, said clearly: builds, swarm, and single endpoints of later versions.

Questions whose honest answer is "there is none" are answered; requests to make something are refused by name.
"""

from __future__ import annotations

from tsunagu.api.request import HandlerFunction, Request, Response, json_response
from tsunagu.api.router import Route
from tsunagu.model.errors import NotSupported, Unavailable

_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)

# method, pattern, what it is called. Enabling one is moving its line to a module of its own.
LATER = (
    ("GET", "/containers/{word}/attach/ws", "attaching by websocket"),
    ("POST", "/build", "building images"),
    ("POST", "/build/cancel", "building images"),
    ("POST", "/session", "building images"),
    ("POST", "/grpc", "building images"),
    ("POST", "/images/{word*}/push", "pushing images"),
    ("POST", "/swarm/init", "swarm mode"),
    ("POST", "/swarm/join", "swarm mode"),
    ("POST", "/plugins/pull", "plugins"),
    ("GET", "/plugins/privileges", "plugins"),
)


def _refusal(what: str) -> HandlerFunction:
    def refuse(request: Request) -> Response:
        raise NotSupported(f"{what} is not supported yet")

    return refuse


def no_swarm(request: Request) -> Response:
    raise Unavailable(_NO_SWARM)


def no_build_cache(request: Request) -> Response:
    return json_response({"CachesDeleted": None, "SpaceReclaimed": 0})


def no_plugins(request: Request) -> Response:
    return json_response([])


def no_registry(request: Request) -> Response:
    raise Unavailable("asking registries is not supported yet", hint="bring images in with load or import")


ROUTES = (
    *(Route(method, pattern, _refusal(what)) for method, pattern, what in LATER),
    Route("POST", "/build/prune", no_build_cache),  # part of `docker system prune`
    Route("GET", "/plugins", no_plugins),
    Route("GET", "/distribution/{word*}/json", no_registry),
    *(
        Route(method, f"/{noun}{rest}", no_swarm)
        for noun in ("swarm", "nodes", "services", "tasks", "secrets", "configs")
        for method in ("GET", "POST", "DELETE")
        for rest in ("", "/{rest*}")
    ),
)
