"""`version` and the global `--version`. May import: `client`, `cli`. Must never import the engine."""

from __future__ import annotations

from posix import uname
from sys import version_info

from tsunagu import __version__
from tsunagu.cli.command import Command
from tsunagu.cli.main import describe
from tsunagu.cli.output import PROGRAM, Failure, out, say, warn
from tsunagu.client import API_VERSION, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

FLAGS: tuple[Flag, ...] = (
    ("format", "f", "string", "", "Format the output:\n'json': JSON\n'TEMPLATE': the text of a Go template"),
)
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def print_short() -> int:
    """`tsunagu --version`."""
    say(f"Tsunagu version {__version__}")
    return 0


def _python() -> str:
    return f"Python {version_info[0]}.{version_info[1]}.{version_info[2]}"


def _client_facts() -> dict[str, Any]:
    system = uname()
    return {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": _python(),
        "Os": system.sysname.lower(),
        "Arch": _MACHINES.get(system.machine, system.machine),
        "BuildTime": "",
        "Context": "default",
    }


def _version(context: Context, options: Options, _arguments: list[str]) -> int:
    facts: dict[str, Any] = {"Client": _client_facts(), "Server": None}
    error: ClientError | None = None
    try:
        facts["Server"] = _with_readable_times(context.client().get("/version"))
    except ClientError as problem:
        error = problem
    template = options["format"]
    if template == "json":
        from tsunagu.jsontext import dumps_go

        say(dumps_go(facts))
    elif template:
        from tsunagu.cli.render import compile_template
        from tsunagu.wire.gotemplate import TemplateError, typed

        compiled = compile_template(template, "version")
        try:
            say(compiled.render(typed(facts, "version")))
        except TemplateError as problem:
            say("")
            raise Failure(str(problem)) from None
    else:
        out(_text(facts))
    if error is not None:
        warn(describe(error))
        return 1
    return 0


def _text(facts: dict[str, Any]) -> str:
    client = facts["Client"]
    lines = ["Client:"]
    for title, value in (
        ("Version", client["Version"]),
        ("API version", client["ApiVersion"]),
        ("Runtime", client["GoVersion"]),
        ("OS/Arch", f"{client['Os']}/{client['Arch']}"),
        ("Context", client["Context"]),
    ):
        lines.append(f" {title + ':':<18} {value}")
    server = facts["Server"]
    if server is None:
        return "\n".join(lines) + "\n"
    platform = (server.get("Platform") or {}).get("Name")
    lines += ["", f"Server: {platform}" if platform else "Server:"]
    for component in server.get("Components") or _single_component(server):
        details = component.get("Details") or {}
        lines.append(f" {component['Name']}:")
        lines.append(f"  {'Version:':<17} {component['Version']}")
        if "ApiVersion" in details:
            lines += _engine_lines(details)
        else:
            lines += [f"  {name + ':':<17} {value}" for name, value in sorted(details.items())]
    return "\n".join(lines) + "\n"


def _single_component(server: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"Name": "Engine", "Version": server["Version"], "Details": server}]


def _engine_lines(details: dict[str, str]) -> list[str]:
    lines = []
    for title, value in (
        ("API version", f"{details['ApiVersion']} (minimum version {details.get('MinAPIVersion', '')})"),
        ("Go version", details.get("GoVersion")),
        ("Git commit", details.get("GitCommit")),
        ("Built", details.get("BuildTime")),
        ("OS/Arch", f"{details.get('Os', '')}/{details.get('Arch', '')}"),
        ("Experimental", details.get("Experimental")),
    ):
        # Docker prints empty lines for what it was not built with; a Python engine has no Go version to hide.
        if value:
            lines.append(f"  {title + ':':<17} {value}")
    return lines


def _with_readable_times(server: dict[str, Any]) -> dict[str, Any]:
    """The engine's answer with the components' build times as Docker's client shows them, in JSON too."""
    for component in server.get("Components") or ():
        details = component.get("Details") or {}
        if details.get("BuildTime"):
            from tsunagu.cli.units import ansi_time

            details["BuildTime"] = ansi_time(details["BuildTime"])
    return server


VERSION = Command("[OPTIONS]", f"Show the versions of {PROGRAM} and of its engine", _version, flags=FLAGS, most=0)
