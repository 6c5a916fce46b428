"""What streams between a client and a container: attach, logs, wait, resize, top."""

from __future__ import annotations

from contextlib import aclosing

from tsunagu.api.request import Request, Response, empty_response, json_response
from tsunagu.api.router import Route
from tsunagu.api.times import parse_time
from tsunagu.api.views import rfc3339
from tsunagu.model.errors import InvalidParameter
from tsunagu.wire import stdcopy

_NUMBERS = {"stdout": stdcopy.STDOUT, "stderr": stdcopy.STDERR}


async def attach(request: Request) -> None:
    """Hijack the connection. Between the head and the registration inside `sessions.attach` nothing else can run, so a
    start that the client sends as soon as it has seen the head cannot come too early."""
    await request.body()
    word, keys = request.words["word"], request.text("detachKeys")
    container = request.app.sessions.check_attach(word, keys)
    client = request.hijack(has_tty=container.config.tty)
    await request.app.sessions.attach(
        container.id,
        client,
        logs=request.flag("logs"),
        stream=request.flag("stream"),
        stdin=request.flag("stdin"),
        stdout=request.flag("stdout"),
        stderr=request.flag("stderr"),
        detach_keys=keys,
    )


async def logs(request: Request) -> None:
    wants_stdout, wants_stderr = request.flag("stdout"), request.flag("stderr")
    if not (wants_stdout or wants_stderr):
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    container = request.app.sessions.check_logs(request.words["word"])
    lines = request.app.sessions.logs(
        container.id,
        stdout=wants_stdout,
        stderr=wants_stderr,
        since_ns=parse_time(request.text("since")),
        until_ns=parse_time(request.text("until")),
        tail=_tail(request.text("tail")),
        follow=request.flag("follow"),
    )
    has_tty, has_times = container.config.tty, request.flag("timestamps")
    request.stream(request.stream_type(has_tty=has_tty))
    async with aclosing(lines):
        async for stream, time_ns, data in lines:
            line = f"{rfc3339(time_ns, is_fixed=True)} ".encode() + data if has_times else data
            await request.write(line if has_tty else stdcopy.frame(_NUMBERS[stream], line))


def _tail(text: str) -> int | None:
    """Docker: everything that is no number, and negative numbers, mean all."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


async def wait(request: Request) -> None:
    """The head is sent at once: `docker run` starts the container when it has seen it, so that no end is missed."""
    waiter = request.app.containers.waiter(request.words["word"], request.text("condition"))
    request.stream()
    code, error = await waiter
    await request.write_json({"StatusCode": code, **({"Error": {"Message": error}} if error else {})})


def size_of(request: Request) -> tuple[int, int]:
    """Return height and width of a terminal, in characters."""
    height, width = request.number("h"), request.number("w")
    if height is None or width is None or not (0 <= height < 65536 and 0 <= width < 65536):
        raise InvalidParameter("invalid resize height or width: h and w are numbers from 0 to 65535")
    return height, width


async def resize(request: Request) -> Response:
    await request.app.sessions.resize(request.words["word"], *size_of(request))
    return empty_response(200)


async def top(request: Request) -> Response:
    titles, processes = await request.app.sessions.top(request.words["word"], request.text("ps_args", "-ef"))
    return json_response({"Titles": titles, "Processes": processes})


ROUTES = (
    Route("POST", "/containers/{word}/attach", attach, is_cancellable=True),
    Route("GET", "/containers/{word}/logs", logs, is_cancellable=True),
    Route("POST", "/containers/{word}/wait", wait, is_cancellable=True),
    Route("POST", "/containers/{word}/resize", resize),
    Route("GET", "/containers/{word}/top", top),
)
