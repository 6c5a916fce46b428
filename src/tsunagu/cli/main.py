"""Entry of the command line: global flags, the command table, one lazy import, exit codes.

Exit codes are Docker's: 125 for a wrong flag (and for a container that `run` cannot start, `commands/run.py`), 1 for a
wrong number of arguments and for errors from the engine, else what the command returns. May import: `client`, `cli`.
Must never import `os`, `re` or anything that imports them on the way to a common command: start-up is most of the
time that a short command takes (a test watches the imported modules).
"""

from __future__ import annotations

import sys
from _signal import SIG_DFL, SIGINT, SIGPIPE, signal  # type: ignore[import-not-found]
from posix import _exit

from tsunagu.cli import commands
from tsunagu.cli.flags import HelpRequested, Options, UsageError, parse
from tsunagu.cli.output import PROGRAM, Failure, env, warn
from tsunagu.client import DEFAULT_HOST, ApiError, Client, ClientError, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from tsunagu.cli.command import Command
    from tsunagu.cli.flags import Flag

GLOBAL_FLAGS: tuple[Flag, ...] = (
    ("config", "", "string", "", "Directory of client config files"),
    ("context", "c", "string", "", 'Name of the context to use: only "default" exists'),
    ("debug", "D", "bool", False, "Show the traceback of an internal error"),
    ("host", "H", "list", (), "Engine socket to connect to (unix:///path)"),
    ("log-level", "l", "string", "info", 'Logging level ("debug", "info", "warn", "error", "fatal") (default "info")'),
    ("tls", "", "bool", False, None),
    ("tlscacert", "", "string", "", None),
    ("tlscert", "", "string", "", None),
    ("tlskey", "", "string", "", None),
    ("tlsverify", "", "bool", False, None),
    ("version", "v", "bool", False, "Print version information and quit"),
)
LOG_LEVELS = ("debug", "info", "warn", "warning", "error", "fatal", "panic", "trace")


class Context:
    """What a command knows about its invocation. `path` is its words ("container ls")."""

    def __init__(self, path: str, options: Options) -> None:
        self.path = path
        self.options = options
        hosts = options["host"]
        if len(hosts) > 1:
            raise Failure("Specify only one -H")
        self.is_default_host = not hosts and not env("DOCKER_HOST")
        self.host: str = hosts[0] if hosts else env("DOCKER_HOST") or DEFAULT_HOST
        self._client: Client | None = None

    def client(self) -> Client:
        """The connected client; as root and without a given host an absent engine is started first."""
        if self._client is None:
            client = Client(self.host)
            if self.is_default_host:
                try:
                    client.connect()
                except Unreachable as error:
                    from tsunagu.cli.autostart import start_engine

                    if error.is_forbidden or not start_engine(client):
                        raise
            self._client = client
        return self._client

    def another_client(self) -> Client:
        """A client with a connection of its own, for a request beside one that is still being read."""
        return Client(self.host)


def describe(error: Exception) -> str:
    """The sentence that Docker's client prints for an error."""
    if isinstance(error, ApiError):
        return f"Error response from daemon: {error.message}"
    if isinstance(error, Unreachable):
        if error.is_forbidden:
            return (
                f"permission denied while trying to connect to the Tsunagu engine at {error.host}\n"
                "Run the command as root, or join the group that owns the socket"
            )
        return (
            f"Cannot connect to the Tsunagu engine at {error.host}. Is the engine running?\n"
            f"Start it as root with: {PROGRAM} daemon"
        )
    if isinstance(error, OSError) and error.strerror:
        # Go's form: "open /x: no such file or directory"
        name = error.filename or ""
        return f"open {name}: {error.strerror.lower()}" if name else error.strerror.lower()
    return str(error)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and end the process, without the interpreter's slow teardown."""
    # Writing into a closed pipe ends the process quietly, as it does every C and Go program; sockets use MSG_NOSIGNAL.
    signal(SIGPIPE, SIG_DFL)
    signal(SIGINT, lambda _number, _frame: _exit(130))
    _exit(run(sys.argv[1:] if arguments is None else arguments))


def run(words: Sequence[str]) -> int:
    """Run a command line and return its exit code; errors are printed."""
    debug = False
    try:
        options, rest = parse(GLOBAL_FLAGS, words, is_interspersed=False)
        debug = options["debug"]
        return _dispatch(options, rest)
    except HelpRequested:
        _say_deprecated(words)
        from tsunagu.cli.help import print_top

        return print_top()
    except UsageError as error:
        warn(f"{error}\n\nUsage:  {PROGRAM} [OPTIONS] COMMAND [ARG...]\n\nRun '{PROGRAM} --help' for more information")
        return 125
    except Failure as failure:
        if failure.message:
            warn(failure.text())
        return failure.code
    except (ClientError, OSError) as error:
        warn(describe(error))
        return 1
    except Exception as error:
        if debug:
            raise
        warn(f"{PROGRAM}: internal error: {type(error).__name__}: {error}\nRun it with --debug to see where")
        return 1


def _dispatch(options: Options, words: list[str]) -> int:
    _check_globals(options)
    if options["version"]:
        from tsunagu.cli.commands.version import print_short

        return print_short()
    if not words or words[0] == "help":
        from tsunagu.cli.help import print_help

        return print_help(words[1:])
    word = words[0]
    entry = commands.TOP.get(word)
    path = word
    rest = words[1:]
    if entry is None:
        group = commands.GROUPS.get(word)
        if group is None:
            raise Failure(
                f"unknown command: {PROGRAM} {word}\n\nRun '{PROGRAM} --help' for more information", has_name=True
            )
        if not rest or rest[0].startswith("-"):
            return _run_group(word, rest)
        path = f"{word} {rest[0]}"
        entry = group[1].get(rest[0])
        if entry is None:
            from tsunagu.cli.help import unknown_in_group

            raise Failure(unknown_in_group(word, rest[0]), has_name=True)
        rest = rest[1:]
    return _run_command(path, load(entry), options, rest)


def _run_group(word: str, rest: list[str]) -> int:
    from tsunagu.cli.help import print_group

    try:
        parse((), rest)
    except HelpRequested:
        _say_deprecated(rest)
    except UsageError as error:
        warn(f"{error}\n\nUsage:  {PROGRAM} {word}\n\nRun '{PROGRAM} {word} --help' for more information")
        return 125
    return print_group(word)


def load(entry: commands.Entry) -> Command:
    """Import the module of a table entry and return its command."""
    name = f"tsunagu.cli.commands.{entry[0]}"
    __import__(name)
    command: Command = getattr(sys.modules[name], entry[1])
    return command


def _run_command(path: str, command: Command, options: Options, words: list[str]) -> int:
    usage = f"Usage:  {PROGRAM} {path}{' ' + command.usage if command.usage else ''}"
    try:
        given, arguments = parse(command.flags, words, is_interspersed=command.is_interspersed)
    except HelpRequested:
        _say_deprecated(words)
        from tsunagu.cli.help import print_command

        return print_command(path, command)
    except UsageError as error:
        warn(f"{error}\n\n{usage}\n\nRun '{PROGRAM} {path} --help' for more information")
        return 125
    wrong = command.argument_error(len(arguments))
    if wrong:
        verb = "See" if command.most is None else "Run"
        raise Failure(
            f"'{PROGRAM} {path}' {wrong}\n\n{usage}\n\n{verb} '{PROGRAM} {path} --help' for more information",
            has_name=True,
        )
    return command.run(Context(path, options), given, arguments)


def _check_globals(options: Options) -> None:
    for name in ("tls", "tlscacert", "tlscert", "tlskey", "tlsverify"):
        if options[name]:
            raise Failure(f"--{name} is not supported: the engine listens on a unix socket only")
    if options["context"] not in ("", "default"):
        raise Failure(f'context "{options["context"]}": contexts are not supported, use -H unix:///path')
    if options["log-level"] not in LOG_LEVELS:
        raise Failure(f"Unable to parse logging level: {options['log-level']}")


def _say_deprecated(words: Sequence[str]) -> None:
    if "--help" not in words:
        warn("Flag shorthand -h has been deprecated, use --help")
