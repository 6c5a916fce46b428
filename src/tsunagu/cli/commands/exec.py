"""`exec`. May import: `client`, `cli`. Must never import the engine."""

from __future__ import annotations

from tsunagu.cli.attaching import detach_bytes, resizer
from tsunagu.cli.command import Command
from tsunagu.cli.create_body import read_environment
from tsunagu.cli.output import Failure, is_terminal
from tsunagu.cli.paths import api_path
from tsunagu.cli.session import Session, check_terminal, window_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

FLAGS: tuple[Flag, ...] = (
    ("detach", "d", "bool", False, "Run the command in the background"),
    ("detach-keys", "", "string", "", "Keys that detach from the container"),
    ("env", "e", "list:env", (), "Set environment variables"),
    ("env-file", "", "list", (), "Read environment variables from a file"),
    ("interactive", "i", "bool", False, "Keep STDIN open even if not attached"),
    ("privileged", "", "bool", False, "Give the command all privileges"),
    ("tty", "t", "bool", False, "Allocate a pseudo-TTY"),
    ("user", "u", "string", "", 'User name or UID (format: "<name|uid>[:<group|gid>]")'),
    ("workdir", "w", "string", "", "Working directory inside the container"),
)


def _exec(context: Context, options: Options, arguments: list[str]) -> int:
    is_detached, is_tty, wants_stdin = options["detach"], options["tty"], options["interactive"]
    body: dict[str, Any] = {
        "Cmd": arguments[1:],
        "AttachStdin": wants_stdin and not is_detached,
        "AttachStdout": not is_detached,
        "AttachStderr": not is_detached,
        "Tty": is_tty,
    }
    environment = read_environment(options)
    if environment:
        body["Env"] = environment
    for name, field in (("user", "User"), ("workdir", "WorkingDir"), ("privileged", "Privileged")):
        if options[name]:
            body[field] = options[name]
    if options["detach-keys"]:
        body["DetachKeys"] = options["detach-keys"]
    if not is_detached:
        check_terminal(wants_stdin, is_tty)
    client = context.client()
    identity = client.post(api_path("container", arguments[0]) + "/exec", None, body)["Id"]
    start: dict[str, Any] = {"Detach": is_detached, "Tty": is_tty}
    if is_detached:
        client.post(f"/exec/{identity}/start", None, start)
        return 0
    has_window = is_tty and is_terminal(1)
    if has_window:
        start["ConsoleSize"] = list(window_size())
    stream = client.hijack(f"/exec/{identity}/start", None, start)
    session = Session(
        stream,
        wants_stdin=wants_stdin,
        is_tty=is_tty,
        detach_keys=detach_bytes(options["detach-keys"]),
        resize=resizer(context, f"/exec/{identity}") if has_window else None,
    )
    session.catch_signals()
    if not session.run():
        raise Failure("read escape sequence")
    return int(client.get(f"/exec/{identity}/json")["ExitCode"] or 0)


EXEC = Command(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    "Run a command in a running container",
    _exec,
    flags=FLAGS,
    least=2,
    is_interspersed=False,
)
