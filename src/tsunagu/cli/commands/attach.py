"""`start` and `attach`. May import: `client`, `cli`. Must never import the engine."""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.main import describe
from tsunagu.cli.output import Failure, say, warn
from tsunagu.cli.paths import api_path
from tsunagu.client import ApiError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

_DETACH_KEYS: Flag = ("detach-keys", "", "string", "", "Keys that detach from the container")
_START_FLAGS: tuple[Flag, ...] = (
    ("attach", "a", "bool", False, "Attach STDOUT/STDERR and forward signals"),
    ("checkpoint", "", "string", "", "Restore from this checkpoint"),
    ("checkpoint-dir", "", "string", "", "Directory of the checkpoints"),
    _DETACH_KEYS,
    ("interactive", "i", "bool", False, "Attach the container's STDIN"),
)
_ATTACH_FLAGS: tuple[Flag, ...] = (
    _DETACH_KEYS,
    ("no-stdin", "", "bool", False, "Do not attach STDIN"),
    ("sig-proxy", "", "bool", True, "Hand received signals to the process (default true)"),
)


def _start(context: Context, options: Options, names: list[str]) -> int:
    if options["attach"] or options["interactive"]:
        if len(names) > 1:
            raise Failure("you cannot start and attach multiple containers at once")
        return _start_attached(context, options, names[0])
    query = _checkpoint(options)
    client = context.client()
    failed: list[str] = []
    for name in names:
        try:
            client.post(api_path("container", name) + "/start", query)
        except (ClientError, Failure) as error:
            warn(describe(error))
            failed.append(name)
        else:
            say(name)
    if failed:
        raise Failure(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def _checkpoint(options: Options) -> dict[str, str]:
    pairs = (("checkpoint", "checkpoint"), ("checkpoint-dir", "checkpoint-dir"))
    return {key: options[flag] for flag, key in pairs if options[flag]}


def _start_attached(context: Context, options: Options, name: str) -> int:
    client = context.client()
    container = client.get(api_path("container", name) + "/json")
    identity, config = container["Id"], container["Config"]
    wants_stdin = options["interactive"] and config["OpenStdin"]

    def start() -> None:
        client.post(f"/containers/{identity}/start", _checkpoint(options))

    from tsunagu.cli.attaching import attached
    from tsunagu.cli.session import check_terminal

    check_terminal(wants_stdin, config["Tty"])
    code = attached(
        context,
        identity,
        wants=(wants_stdin, True, True),
        is_tty=config["Tty"],
        detach_keys=options["detach-keys"],
        has_signal_proxy=True,
        condition="removed" if container["HostConfig"].get("AutoRemove") else "next-exit",
        start=start,
    )
    return 0 if code is None else code


def _attach(context: Context, options: Options, arguments: list[str]) -> int:
    client = context.client()
    container = client.get(api_path("container", arguments[0]) + "/json")
    state, config = container["State"], container["Config"]
    if not state["Running"]:
        raise Failure("cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise Failure("cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise Failure("cannot attach to a restarting container, wait until it is running")
    from tsunagu.cli.attaching import attached
    from tsunagu.cli.session import check_terminal

    wants_stdin = not options["no-stdin"] and config["OpenStdin"]
    check_terminal(wants_stdin, config["Tty"])
    try:
        code = attached(
            context,
            container["Id"],
            wants=(wants_stdin, True, True),
            is_tty=config["Tty"],
            detach_keys=options["detach-keys"],
            has_signal_proxy=options["sig-proxy"],
            condition="not-running",
            start=None,
        )
    except ApiError as error:
        if error.status == 404:
            return 0  # the container was removed as soon as it had stopped: its exit code went with it
        raise
    if code is None:
        raise Failure("read escape sequence")
    return code


START = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers", _start, flags=_START_FLAGS, least=1
)
ATTACH = Command(
    "[OPTIONS] CONTAINER",
    "Attach the terminal's input, output and error streams to a running container",
    _attach,
    flags=_ATTACH_FLAGS,
    least=1,
    most=1,
)
