"""Commands on existing containers that need no attached session: kill, port, rename, restart, rm, stop, top, wait.

With several names every one is tried: successes are printed as they come, errors after them, and the exit code is 1.
May import: `client`, `cli`. Must never import the engine.
"""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.main import describe
from tsunagu.cli.output import Failure, say, warn
from tsunagu.cli.paths import api_path
from tsunagu.client import ApiError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

_SIGNAL: Flag = ("signal", "s", "string", "", "Signal to send to the container")
_STOP_FLAGS: tuple[Flag, ...] = (
    _SIGNAL,
    ("time", "", "=timeout", None, None),
    ("timeout", "t", "int", 0, "Seconds to wait before killing the container"),
)
_RM_FLAGS: tuple[Flag, ...] = (
    ("force", "f", "bool", False, "Remove a running container too (it is killed)"),
    ("link", "l", "bool", False, "Remove the link, not the container"),
    ("volumes", "v", "bool", False, "Remove the container's anonymous volumes too"),
)
_PARALLEL = 50  # requests under way at once, as many as Docker's client has


def for_each(names: list[str], act: Callable[[str], str]) -> int:
    """Act on one name after the other; print what `act` returns, then the errors. Returns the exit code."""
    errors: list[Exception] = []
    for name in names:
        try:
            say(act(name))
        except (ClientError, Failure) as error:
            errors.append(error)
    return _report(errors)


def at_once(
    context: Context,
    names: list[str],
    method: str,
    action: str,
    query: dict[str, str | int],
    *,
    is_forced: bool = False,
) -> int:
    """One request for each name, many of them at a time; `action` ends the container's path. Returns the exit code.

    With `is_forced` an object that does not exist is an error that leaves the exit code 0, as `rm -f` has it.
    """
    context.client()  # starts the engine where that is wanted, and fails once rather than for every name
    errors: list[Exception] = []
    paths: list[tuple[str, str]] = []
    for name in names:
        try:
            paths.append((name, api_path("container", name.strip("/")) + action))
        except Failure as error:
            errors.append(error)
    is_failed = bool(errors)
    for start in range(0, len(paths), _PARALLEL):
        batch = paths[start : start + _PARALLEL]
        pending = [context.another_client().begin(method, path, query) for _, path in batch]
        for (name, _), request in zip(batch, pending, strict=True):
            try:
                request.finish()
            except ClientError as error:
                errors.append(error)
                is_failed = is_failed or not (is_forced and isinstance(error, ApiError) and error.status == 404)
            else:
                say(name)
    _report(errors)
    return int(is_failed)


def _report(errors: list[Exception]) -> int:
    for error in errors:
        warn(describe(error))
    return 1 if errors else 0


def _kill(context: Context, options: Options, names: list[str]) -> int:
    query: dict[str, str | int] = {"signal": options["signal"]} if options["signal"] else {}
    return at_once(context, names, "POST", "/kill", query)


def _stop_query(options: Options) -> dict[str, str | int]:
    query: dict[str, str | int] = {}
    if options["signal"]:
        query["signal"] = options["signal"]
    if "timeout" in options:
        query["t"] = options["timeout"]
    return query


def _stop(context: Context, options: Options, names: list[str]) -> int:
    return at_once(context, names, "POST", "/stop", _stop_query(options))


def _restart(context: Context, options: Options, names: list[str]) -> int:
    query = _stop_query(options)

    def act(name: str) -> str:
        context.client().post(api_path("container", name) + "/restart", query)
        return name

    return for_each(names, act)


def _rm(context: Context, options: Options, names: list[str]) -> int:
    query: dict[str, str | int] = {}
    for name, key in (("force", "force"), ("link", "link"), ("volumes", "v")):
        if options[name]:
            query[key] = 1
    code = at_once(
        context,
        [name for name in names if name.strip("/")],
        "DELETE",
        "",
        query,
        is_forced=options["force"],
    )
    for name in names:
        if not name.strip("/"):
            warn("container name cannot be empty")
            code = 1
    return code


def _wait(context: Context, _options: Options, names: list[str]) -> int:
    def act(name: str) -> str:
        return str(context.client().post(api_path("container", name) + "/wait")["StatusCode"])

    return for_each(names, act)


def _rename(context: Context, _options: Options, arguments: list[str]) -> int:
    old, new = (argument.strip() for argument in arguments)
    if not old or not new:
        raise Failure("Error: Neither old nor new names may be empty")
    try:
        context.client().post(api_path("container", old) + "/rename", {"name": new})
    except ApiError as error:
        raise Failure(f"{describe(error)}\nError: failed to rename container named {old}") from None
    return 0


def _top(context: Context, _options: Options, arguments: list[str]) -> int:
    query: dict[str, str | int] = {"ps_args": " ".join(arguments[1:])} if len(arguments) > 1 else {}
    answer = context.client().get(api_path("container", arguments[0]) + "/top", query)
    from tsunagu.cli.output import out
    from tsunagu.cli.render import tab_write

    rows = [answer["Titles"], *answer["Processes"]]
    # Docker uses a wider table here than in lists: 20 columns at least.
    out(tab_write("".join(["\t".join(row) + "\n" for row in rows]), least=20, padding=3))
    return 0


def _port(context: Context, _options: Options, arguments: list[str]) -> int:
    name = arguments[0]
    ports: dict[str, Any] = (
        context.client().get(api_path("container", name) + "/json")["NetworkSettings"]["Ports"] or {}
    )
    if len(arguments) > 1:
        number, slash, protocol = arguments[1].partition("/")
        from tsunagu.cli.flags import parse_uint

        try:
            parse_uint(number, 16)
        except ValueError as error:
            raise Failure(f"Error: invalid port ({number}): {error}") from None
        bindings = ports.get(f"{number}/{protocol if slash else 'tcp'}")
        if not bindings:
            raise Failure(f"Error: No public port '{arguments[1]}' published for {name}")
        for binding in bindings:
            say(_address(binding))
        return 0
    lines = [(port, f"{port} -> {_address(one)}") for port, bindings in ports.items() for one in bindings or ()]
    for _, line in sorted(lines, key=lambda pair: (int(pair[0].partition("/")[0]), pair[0], pair[1])):
        say(line)
    return 0


def _address(binding: dict[str, str]) -> str:
    ip = binding["HostIp"]
    return f"[{ip}]:{binding['HostPort']}" if ":" in ip else f"{ip}:{binding['HostPort']}"


_MANY = "[OPTIONS] CONTAINER [CONTAINER...]"
KILL = Command(_MANY, "Kill one or more running containers", _kill, flags=(_SIGNAL,), least=1)
STOP = Command(_MANY, "Stop one or more running containers", _stop, flags=_STOP_FLAGS, least=1)
RESTART = Command(_MANY, "Restart one or more containers", _restart, flags=_STOP_FLAGS, least=1)
RM = Command(_MANY, "Remove one or more containers", _rm, flags=_RM_FLAGS, least=1)
WAIT = Command("CONTAINER [CONTAINER...]", "Wait until containers stop, then print their exit codes", _wait, least=1)
RENAME = Command("CONTAINER NEW_NAME", "Rename a container", _rename, least=2, most=2)
TOP = Command(
    "CONTAINER [ps OPTIONS]", "Show the processes running in a container", _top, least=1, is_interspersed=False
)
PORT = Command(
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List the published ports of a container, or one of them",
    _port,
    least=1,
    most=2,
)
