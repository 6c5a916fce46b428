"""`why A B[:port][/udp]`: does A reach B, and if not, what is the first cause and what is to be done.

May import: `client`, `cli`. Must never import the engine.
"""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.main import describe
from tsunagu.cli.output import Failure, out, paint, say, warn
from tsunagu.client import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

REACHABLE, NOT_REACHABLE, UNKNOWN = 0, 1, 2
# Reasons that say that there is no such thing, rather than that it cannot be reached.
_UNKNOWN_REASONS = ("name-unknown",)
# Ports of services whose addresses people copy from a program's settings.
_SCHEMES = {
    "amqp": 5672, "ftp": 21, "http": 80, "https": 443, "mongodb": 27017, "mysql": 3306, "nats": 4222,
    "postgres": 5432, "postgresql": 5432, "redis": 6379, "ws": 80, "wss": 443,
}  # fmt: skip
_GREEN, _RED, _YELLOW = 32, 31, 33

_FLAGS: tuple[Flag, ...] = (
    ("json", "", "bool", False, "Print the answer as JSON"),
    ("quiet", "q", "bool", False, "Print nothing: the exit code tells"),
)
_MORE = """A is a container, "host" or "outside". B is what A would use: a name, an alias, an address, a URL; or a
container that A cannot name, "host" or "outside". Without a port the way to B is judged and tried.

Exit codes: 0 it is reachable, 1 it is not, 2 there is no such thing."""


def split_target(text: str) -> tuple[str, int, str]:
    """Split `B[:port][/udp]` or a URL into name or address, port (0: none given) and protocol ("": none given).

    Raises Failure for a port or protocol that cannot be.
    """
    port = 0
    scheme, separator, rest = text.partition("://")
    if separator:
        text = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
        port = _SCHEMES.get(scheme.lower(), 0)
    text, _, protocol = text.partition("/")
    protocol = protocol.lower()
    if protocol not in ("", "tcp", "udp", "icmp"):
        raise Failure(f"invalid protocol: {protocol} (tcp, udp or icmp)", 125)
    if text.startswith("["):
        name, _, number = text[1:].partition("]")
        number = number.removeprefix(":")
    elif text.count(":") > 1:  # an IPv6 address without a port
        name, number = text, ""
    else:
        name, colon, number = text.partition(":")
        if colon and not number:
            raise Failure(f"invalid port: {text}", 125)
    if number:
        if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
            raise Failure(f"invalid port: {number} (1 to 65535)", 125)
        port = int(number)
    if not name:
        raise Failure(f"nothing to reach in {text!r}", 125)
    if protocol in ("tcp", "udp") and not port:
        raise Failure(f"{protocol} needs a port: {name}:PORT/{protocol}", 125)
    return name, port, protocol


def _why(context: Context, options: Options, arguments: list[str]) -> int:
    source, target = arguments
    name, port, protocol = split_target(target)
    query: dict[str, str | int] = {"from": source, "to": name}
    if port:
        query["port"] = port
    if protocol:
        query["protocol"] = protocol
    try:
        answer = context.client().get("/tsunagu/why", query)
    except ApiError as error:
        if error.status != 404:
            raise
        warn(describe(error))
        return UNKNOWN
    if options["json"]:
        from tsunagu.jsontext import dumps

        say(dumps(answer))
    elif not options["quiet"]:
        _print(source, target, answer)
    if answer["Reachable"]:
        return REACHABLE
    return UNKNOWN if answer["Reason"] in _UNKNOWN_REASONS else NOT_REACHABLE


def _print(source: str, target: str, answer: dict[str, Any]) -> None:
    lines = []
    for step in answer["Steps"]:
        mark = paint("✓", _GREEN) if step["Ok"] else paint("✗", _RED)
        lines.append(f"{mark} {step['Text']}")
    lines += _counted(answer)
    lines += [f"{paint('!', _YELLOW)} {warning}" for warning in answer["Warnings"]]
    if answer["Reachable"]:
        lines += ["", f"{source} reaches {target}."]
    else:
        lines += ["", f"{source} does not reach {target}: {answer['Sentence']} ({answer['Reason']})."]
        if answer["Remedy"]:
            lines += ["Try:", f"  {answer['Remedy']}"]
    out("\n".join(lines) + "\n")


def _counted(answer: dict[str, Any]) -> list[str]:
    """Say below the steps what the rule that decides has really decided."""
    counter = answer.get("Counter")
    if not counter or not counter["Packets"]:
        return []
    did = "dropped" if counter["Verdict"] == "drop" else "let through"
    packets = f"{counter['Packets']} packet{'' if counter['Packets'] == 1 else 's'}"
    return [f"  (the rule {counter['Rule']} has {did} {packets}, {counter['Bytes']} bytes, since it is in force)"]


WHY = Command(
    "[OPTIONS] A B[:PORT][/udp]",
    "Tell why A reaches B, or why not, and what to do",
    _why,
    flags=_FLAGS,
    least=2,
    most=2,
    more=_MORE,
)
