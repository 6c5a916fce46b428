"""`/containers/{id}/exec` and `/exec`."""

from __future__ import annotations

from tsunagu.api.request import Request, Response, empty_response, json_response
from tsunagu.api.router import Route
from tsunagu.api.schema import ExecStart, decode, exec_create
from tsunagu.api.views import Json

from .attachments import size_of


async def create(request: Request) -> Response:
    body = exec_create(await request.json())
    identifier = await request.app.execs.create(
        request.words["word"],
        cmd=body.cmd,
        env=body.env,
        user=body.user,
        working_dir=body.working_dir,
        tty=body.tty,
        attach_stdin=body.attach_stdin,
        attach_stdout=body.attach_stdout,
        attach_stderr=body.attach_stderr,
        privileged=body.privileged,
        detach_keys=body.detach_keys,
    )
    return json_response({"Id": identifier}, 201)


async def start(request: Request) -> Response | None:
    """Not cancellable: the process runs on when its client goes away, as in Docker."""
    body = decode(await request.json(is_optional=True), ExecStart)
    execs, identifier = request.app.execs, request.words["exec"]
    record = execs.check_start(identifier)
    if body.detach:
        await execs.start(identifier, None, tty=record.has_tty, detach=True, console_size=body.console_size)
        return empty_response(200)
    client = request.hijack(has_tty=record.has_tty)
    await execs.start(identifier, client, tty=record.has_tty, detach=False, console_size=body.console_size)
    return None


async def resize(request: Request) -> Response:
    await request.app.execs.resize(request.words["exec"], *size_of(request))
    return empty_response(200)


def inspect(request: Request) -> Response:
    record = request.app.execs.inspect(request.words["exec"])
    entrypoint, *arguments = record.cmd
    out: Json = {
        "ID": record.id,
        "Running": record.is_running,
        "ExitCode": record.exit_code,
        "ProcessConfig": {
            "tty": record.has_tty,
            "entrypoint": entrypoint,
            "arguments": arguments,
            "privileged": record.is_privileged,
            "user": record.user,
        },
        "OpenStdin": record.attaches_stdin,
        "OpenStderr": record.attaches_stderr,
        "OpenStdout": record.attaches_stdout,
        "CanRemove": False,
        "ContainerID": record.container_id,
        "DetachKeys": record.detach_keys,
        "Pid": record.pid,
    }
    return json_response(out)


ROUTES = (
    Route("POST", "/containers/{word}/exec", create),
    Route("POST", "/exec/{exec}/start", start),
    Route("POST", "/exec/{exec}/resize", resize),
    Route("GET", "/exec/{exec}/json", inspect),
)
