"""`info`, alias `system info`. May import: `client`, `cli`. Must never import the engine.

The lines are Docker's, in Docker's order; what this engine alone can tell (runtime, firewall, resolver) follows under
"Tsunagu:".
"""

from __future__ import annotations

from tsunagu import __version__
from tsunagu.cli.command import Command
from tsunagu.cli.main import describe
from tsunagu.cli.output import PROGRAM, Failure, out, say, warn
from tsunagu.cli.render import compile_template
from tsunagu.cli.units import bytes_size, human_duration
from tsunagu.client import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context
    from tsunagu.wire.gotemplate import Template

    Facts = dict[str, Any]

FLAGS: tuple[Flag, ...] = (
    ("format", "f", "string", "", "Format the output:\n'json': JSON\n'TEMPLATE': the text of a Go template"),
)


def _info(context: Context, options: Options, _arguments: list[str]) -> int:
    template = options["format"]
    compiled = compile_template(template) if template not in ("", "json") else None
    facts: Facts = {}
    problem: ClientError | None = None
    try:
        facts = context.client().get("/info")
    except ClientError as error:
        problem = error
    client = {"Debug": context.options["debug"], "Context": "default", "Version": __version__, "Plugins": []}
    if compiled is not None:
        say(_rendered(compiled, facts | {"ClientInfo": client}))
    elif template == "json":
        from tsunagu.jsontext import dumps_go

        errors = {"ServerErrors": [describe(problem)]} if problem else {}
        say(dumps_go(facts | errors | {"ClientInfo": client}))
    else:
        lines = ["Client:", f" Version:    {__version__}", " Context:    default"]
        lines += [f" Debug Mode: {_bool(context.options['debug'])}", "", "Server:"]
        out("\n".join(lines + (_lines(facts) if facts else [])) + "\n")
        if facts:
            out("\n")
    if problem is not None:
        warn(describe(problem))
        return 1
    if not template:
        for warning in facts.get("Warnings") or ():
            warn(warning)
    return 0


def _rendered(compiled: Template, facts: Facts) -> str:
    """The template on Docker's Go type, else on the JSON, where `.Tsunagu` is; the error shown is the first one."""
    from tsunagu.wire.gotemplate import TemplateError, typed

    try:
        return compiled.render(typed(facts, "info"))
    except TemplateError as error:
        try:
            return compiled.render(facts, fails_on_missing=True)
        except TemplateError:
            say("")
            raise Failure(str(error)) from None


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _lines(facts: Facts) -> list[str]:
    lines = [f" Containers: {facts['Containers']}"]
    lines += [f"  {state}: {facts[f'Containers{state}']}" for state in ("Running", "Paused", "Stopped")]
    lines += [f" Images: {facts['Images']}"]
    lines += _if_known("Server Version", facts["ServerVersion"])
    lines += [f" Storage Driver: {facts['Driver']}"]
    lines += [f"  {name}: {value}" for name, value in facts.get("DriverStatus") or ()]
    lines += _if_known("Logging Driver", facts["LoggingDriver"])
    lines += _if_known("Cgroup Driver", facts["CgroupDriver"])
    lines += _if_known("Cgroup Version", facts["CgroupVersion"])
    plugins = facts["Plugins"]
    lines += [" Plugins:", f"  Volume: {' '.join(plugins.get('Volume') or ())}"]
    lines += [f"  Network: {' '.join(plugins.get('Network') or ())}"]
    if plugins.get("Authorization"):
        lines.append(f"  Authorization: {' '.join(plugins['Authorization'])}")
    lines += [f"  Log: {' '.join(plugins.get('Log') or ())}"]
    lines += [f" Swarm: {facts['Swarm']['LocalNodeState']}"]
    if facts.get("Runtimes"):
        lines += [f" Runtimes: {' '.join(facts['Runtimes'])}", f" Default Runtime: {facts['DefaultRuntime']}"]
    lines += _if_known("Init Binary", facts.get("InitBinary"))
    for title, field in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        lines += _if_known(f"{title} version", (facts.get(field) or {}).get("ID"))
    lines += _security(facts.get("SecurityOptions") or ())
    for title, field in (
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
    ):
        lines += _if_known(title, facts.get(field))
    lines += [f" CPUs: {facts['NCPU']}", f" Total Memory: {bytes_size(facts['MemTotal'])}"]
    lines += _if_known("Name", facts["Name"]) + _if_known("ID", facts["ID"])
    lines += [f" Docker Root Dir: {facts['DockerRootDir']}", f" Debug Mode: {_bool(facts['Debug'])}"]
    for title, field in (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")):
        lines += _if_known(title, facts.get(field))
    if facts.get("Labels"):
        lines += [" Labels:", *[f"  {label}" for label in facts["Labels"]]]
    lines += [f" Experimental: {_bool(facts['ExperimentalBuild'])}"]
    lines += [f" Live Restore Enabled: {_bool(facts['LiveRestoreEnabled'])}"]
    if facts.get("DefaultAddressPools"):
        lines.append(" Default Address Pools:")
        lines += [f"   Base: {pool['Base']}, Size: {pool['Size']}" for pool in facts["DefaultAddressPools"]]
    firewall = facts.get("FirewallBackend")
    if firewall:
        lines.append(f" Firewall Backend: {firewall['Driver']}")
        lines += [f"  {name}: {value}" for name, value in firewall.get("Info") or ()]
    return lines + _own_lines(facts.get("Tsunagu") or {})


def _if_known(title: str, value: object) -> list[str]:
    return [f" {title}: {value}"] if value else []


def _security(texts: tuple[str, ...] | list[str]) -> list[str]:
    lines: list[str] = []
    for text in texts:
        fields = dict(part.partition("=")[::2] for part in text.split(","))
        lines.append(f"  {fields.pop('name', text)}")
        lines += [f"   {name.capitalize()}: {value}" for name, value in fields.items()]
    return [" Security Options:", *lines] if lines else []


def _own_lines(facts: Facts) -> list[str]:
    """What `/info` says under "Tsunagu", each fact on a line, one level of objects deep."""
    if not facts:
        return []
    lines = [f" {PROGRAM.capitalize()}:"]
    for name, value in facts.items():
        if isinstance(value, dict):
            shown = [f"{_words(key)} {_shown(key, one)}" for key, one in value.items() if one not in ("", None)]
            lines.append(f"  {_words(name)}: {', '.join(shown)}")
        else:
            lines.append(f"  {_words(name)}: {_shown(name, value)}")
    return lines


def _words(name: str) -> str:
    """ "RunDir" -> "Run Dir", "restarts" as it is."""
    words = "".join([f" {letter}" if letter.isupper() else letter for letter in name]).strip()
    return words.replace("_", " ")


def _shown(name: str, value: object) -> str:
    if isinstance(value, bool):
        return _bool(value)
    if isinstance(value, (list, tuple)):
        return " ".join([str(one) for one in value])
    if name == "StartedAt" and isinstance(value, str):
        from time import time

        from tsunagu.cli.units import seconds_of

        return f"{value} ({human_duration(time() - seconds_of(value))} ago)"
    return str(value)


INFO = Command("[OPTIONS]", "Show what the engine is and has", _info, flags=FLAGS, most=0)
