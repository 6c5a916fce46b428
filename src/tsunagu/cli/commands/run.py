"""`run` and `create`. May import: `client`, `cli`. Must never import the engine."""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.create_body import build, check_platform
from tsunagu.cli.create_flags import CREATE_FLAGS, RUN_FLAGS
from tsunagu.cli.main import describe
from tsunagu.cli.output import Failure, say, warn
from tsunagu.cli.references import familiar_name
from tsunagu.client import ApiError, ClientError, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tsunagu.cli.flags import Options
    from tsunagu.cli.main import Context


def _create_command(context: Context, options: Options, arguments: list[str]) -> int:
    body = _body(context, options, arguments, "create")
    say(_create(context, options, body))
    return 0


def _run_command(context: Context, options: Options, arguments: list[str]) -> int:
    body = _body(context, options, arguments, "run")
    if options["detach"]:
        if options["attach"]:
            raise Failure("conflicting options: cannot specify both --attach and --detach")
        body |= {"AttachStdin": False, "AttachStdout": False, "AttachStderr": False, "StdinOnce": False}
    else:
        from tsunagu.cli.session import check_terminal

        check_terminal(body["AttachStdin"], body["Tty"])
    try:
        container = _create(context, options, body)
    except (ClientError, Failure, OSError) as error:
        raise _explained(error, "run") from None
    try:
        if options["detach"]:
            context.client().post(f"/containers/{container}/start")
            say(container)
            return 0
        return _run_attached(context, options, body, container)
    except (ApiError, Unreachable) as error:
        if options["detach"]:
            say(container)
        raise _explained(error, "run") from None


def _run_attached(context: Context, options: Options, body: dict[str, Any], container: str) -> int:
    wants = (body["AttachStdin"], body["AttachStdout"], body["AttachStderr"])
    condition = "removed" if options["rm"] else "next-exit"

    def start() -> None:
        context.client().post(f"/containers/{container}/start")

    from tsunagu.cli.attaching import attached

    code = attached(
        context,
        container,
        wants=wants,
        is_tty=body["Tty"],
        detach_keys=options["detach-keys"],
        has_signal_proxy=options["sig-proxy"],
        condition=condition,
        start=start,
    )
    return 0 if code is None else code


def _explained(error: Exception, command: str) -> Failure:
    """An error in Docker's `docker: …` form, with the help line and the exit code of `docker run`."""
    message = describe(error)
    return Failure(message, exit_code(message), has_name=True, help_for=command)


def exit_code(message: str) -> int:
    """127 when the command cannot be found, 126 when it cannot be run, else 125: told by the sentence as in Docker."""
    if "executable file not found" in message or "no such file or directory" in message:
        return 127
    if "permission denied" in message or "is a directory" in message:
        return 126
    return 125


def _body(context: Context, options: Options, arguments: list[str], command: str) -> dict[str, Any]:
    """The create request; what is wrong in it is explained with exit code 125, whatever its words."""
    check_platform(options)
    try:
        if options["pull"] not in ("always", "missing", "never"):
            allowed = '"always", "missing" or "never"'
            raise Failure(f"invalid pull option: '{options['pull']}': must be one of {allowed}")
        return build(options, arguments[0], arguments[1:], context.host)
    except (Failure, OSError) as error:
        raise Failure(describe(error), 125, has_name=True, help_for=command) from None


def _create(context: Context, options: Options, body: dict[str, Any]) -> str:
    """Create the container, pulling its image first where that is asked for. Returns its id."""
    identity = _IdFile(options["cidfile"])
    try:
        familiar = familiar_name(body["Image"])
    except ValueError as error:
        raise Failure(str(error)) from None
    query = {name: options[name] for name in ("name", "platform") if options[name]}
    client = context.client()
    if options["pull"] == "always":
        _pull(context, options, body["Image"])
    try:
        answer = client.post("/containers/create", query, body)
    except ApiError as error:
        is_absent = error.status == 404 and "no such image" in error.message.lower()
        if not is_absent or options["pull"] != "missing":
            raise
        if not options["quiet"]:
            warn(f"Unable to find image '{familiar}' locally")
        _pull(context, options, body["Image"])
        answer = client.post("/containers/create", query, body)
    for warning in answer.get("Warnings") or ():
        warn(f"WARNING: {warning}")
    container: str = answer["Id"]
    identity.write(container)
    return container


def _pull(context: Context, options: Options, image: str) -> None:
    from tsunagu.cli.pulling import pull_image

    pull_image(context.client(), image, options["platform"], is_quiet=options["quiet"], fd=2)


class _IdFile:
    """`--cidfile`: must not exist before, holds the container's id afterwards."""

    def __init__(self, path: str) -> None:
        self._path = path
        if path:
            from posix import stat

            try:
                stat(path)
            except FileNotFoundError:
                return
            raise Failure(f"container ID file found, make sure the other container isn't running or delete {path}")

    def write(self, container: str) -> None:
        if self._path:
            try:
                with open(self._path, "x", encoding="ascii") as file:
                    file.write(container)
            except OSError as error:
                raise Failure(
                    f"failed to create the container ID file: open {self._path}: {(error.strerror or '').lower()}"
                ) from None


RUN = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    _run_command,
    flags=RUN_FLAGS,
    least=1,
    is_interspersed=False,
)
CREATE = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    _create_command,
    flags=CREATE_FLAGS,
    least=1,
    is_interspersed=False,
)
