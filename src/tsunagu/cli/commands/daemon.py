"""`daemon`: become the engine. May import: `cli`. Must never import the engine: it is another process image."""

from __future__ import annotations

from tsunagu.cli.command import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

FLAGS: tuple[Flag, ...] = (
    ("root", "", "string", "", 'Directory of images, containers and networks (default "/var/lib/tsunagu")'),
    ("run-dir", "", "string", "", 'Directory of sockets, mounts and pids (default "/run/tsunagu")'),
    ("host", "H", "string", "", 'Socket to listen on (default "unix:///run/tsunagu/tsunagu.sock")'),
    ("ip", "", "string", "", 'Where ports are published that name no address (default "0.0.0.0": everywhere)'),
    ("icc", "", "bool", True, "Containers of the default bridge reach each other, also without --link"),
    ("log-level", "l", "string", "", 'Least level of what is logged: debug, info, warn, error (default "info")'),
    ("debug", "D", "bool", False, "Log everything"),
)


def _daemon(context: Context, options: Options, _arguments: list[str]) -> int:
    from tsunagu.cli.autostart import become_engine

    words: list[str] = []
    for flag in ("root", "run-dir", "ip"):
        if options[flag]:
            words += [f"--{flag}", options[flag]]
    if not options["icc"]:
        words.append("--icc=false")
    host = options["host"] or ("" if context.is_default_host else context.host)
    if host:
        words += ["--host", host]
    level = "debug" if options["debug"] else options["log-level"]
    if not level and "log-level" in context.options:
        level = context.options["log-level"]
    if level:
        words += ["--log-level", level]
    become_engine(words)


DAEMON = Command("[OPTIONS]", "Run the engine in the foreground", _daemon, flags=FLAGS, most=0)
