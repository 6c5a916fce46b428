"""Which handler answers which request, which API versions are spoken, and which status each kind of error has.

May import `api.request` and the kinds of errors; handlers are handed in as a table.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from tsunagu.model.errors import (
    Conflict,
    EngineError,
    Forbidden,
    InvalidParameter,
    KernelFailure,
    NotFound,
    NotModified,
    NotSupported,
    Unauthorized,
    Unavailable,
)
from tsunagu.wire.http import Malformed

from .request import (
    API_VERSION,
    MIN_API_VERSION,
    Answer,
    HandlerFunction,
    Request,
    Response,
    empty_response,
    json_response,
)

if TYPE_CHECKING:
    from .app import App

log = logging.getLogger("tsunagu.api")

_VERSION = re.compile(r"/v([0-9.]+)(?=/|$)")

STATUSES: dict[type[EngineError], int] = {
    InvalidParameter: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    NotModified: 304,
    NotSupported: 501,
    Unavailable: 503,
    KernelFailure: 500,
}


class Route(NamedTuple):
    """`pattern` holds `{name}` for one path segment and `{name*}` for several.

    `is_cancellable`: the handler only watches or reads, so it is cancelled when its client goes away.
    """

    method: str
    pattern: str
    handler: HandlerFunction
    is_cancellable: bool = False


class Router:
    """The route table. Exact paths are one dictionary lookup; the others are tried by first segment, in order."""

    def __init__(self, app: App, routes: Iterable[Route]) -> None:
        self._app = app
        self._exact: dict[tuple[str, str], Route] = {}
        self._patterns: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            if "{" in route.pattern:
                key = (route.method, route.pattern.split("/", 2)[1])
                self._patterns.setdefault(key, []).append((_compile(route.pattern), route))
            else:
                self._exact[route.method, route.pattern] = route

    def answer(self, request: Request) -> Answer:
        """Start to answer: a finished response, or a coroutine that makes one. Raises EngineError."""
        if "origin" in request.headers:
            # A browser page must never drive the engine (DNS rebinding, cross-site requests); no client sends this.
            raise Forbidden("requests from browsers are refused (the request has an Origin header)")
        self._strip_version(request)
        route = self._find(request)
        if route is None:
            raise NotFound("page not found")
        request.app = self._app
        request.is_cancellable = route.is_cancellable
        return route.handler(request)

    def _find(self, request: Request) -> Route | None:
        if route := self._exact.get((request.method, request.path)):
            return route
        first = request.path.split("/", 2)[1] if "/" in request.path else ""
        for pattern, route in self._patterns.get((request.method, first), ()):
            if match := pattern.fullmatch(request.path):
                request.words = match.groupdict()
                return route
        return None

    @staticmethod
    def _strip_version(request: Request) -> None:
        match = _VERSION.match(request.path)
        if match is None:
            return
        text = match[1]
        request.path = request.path[match.end() :] or "/"
        if text == "1.51":
            return
        version = _parse_version(text)
        if version > API_VERSION:
            raise InvalidParameter(
                f"client version {text} is too new. Maximum supported API version is {API_VERSION[0]}.{API_VERSION[1]}"
            )
        if version < MIN_API_VERSION:
            raise InvalidParameter(
                f"client version {text} is too old. Minimum supported API version is "
                f"{MIN_API_VERSION[0]}.{MIN_API_VERSION[1]}, please upgrade your client to a newer version"
            )
        request.version = version


def _compile(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+\*?)\}", pattern)
    for i in range(1, len(parts), 2):
        name = parts[i]
        parts[i] = f"(?P<{name[:-1]}>.+)" if name.endswith("*") else f"(?P<{name}>[^/]+)"
    for i in range(0, len(parts), 2):
        parts[i] = re.escape(parts[i])
    return re.compile("".join(parts))


def _parse_version(text: str) -> tuple[int, int]:
    """Missing or empty parts count as 0, as Docker's comparison does."""
    numbers = [int(part or "0") for part in text.split(".")]
    return numbers[0], numbers[1] if len(numbers) > 1 else 0


def status_of(error: EngineError) -> int:
    """Return the HTTP status of an error's kind."""
    # Docker answers 400 when the container's own command cannot be executed (126) or found (127).
    if getattr(error, "exit_code", None) in (126, 127):
        return 400
    for kind in type(error).__mro__:
        if kind in STATUSES:
            return STATUSES[kind]
    raise LookupError(f"{type(error).__name__} has no HTTP status")


def error_response(error: Exception, request: Request) -> Response:
    """Turn any exception into an answer; a bug gets an id that is in the log together with its traceback."""
    if isinstance(error, EngineError):
        status = status_of(error)
        if status == 304:
            return empty_response(304)
        if status == 500:
            log.error("request failed request=%r error=%s", request, str(error).replace("\n", "; "))
        return json_response({"message": str(error)}, status)
    if isinstance(error, ConnectionError):
        return json_response({"message": str(error)}, 400)  # nobody reads it: the client is gone
    identifier = secrets.token_hex(4)
    log.error("internal error id=%s request=%r", identifier, request, exc_info=error)
    text = f"internal error {identifier}: {type(error).__name__}\nthis is a bug; the engine's log has the details"
    return json_response({"message": text}, 500)


def malformed_response(error: Malformed) -> Response:
    """Answer bytes that are not HTTP."""
    return json_response({"message": f"malformed request: {error.message}"}, error.status)
