"""`dns ls`, `dns query`, `dns log`: the names that containers find, one answer, and who asks what.

May import: `client`, `cli`. Must never import the engine.
"""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.output import Failure, out, paint, say, warn
from tsunagu.cli.render import align

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

_JSON: Flag = ("json", "", "bool", False, "Print the answer as JSON")
_RED, _YELLOW = 31, 33

# Where an answer comes from, by the engine's words; {} is the detail.
_ORIGINS = {
    "network": "network {}",
    "link": "a link of its own",
    "localhost": "every name server knows it",
    "subnet": "an address of a network of ours that nobody has",
    "server": "forwarded to {}",
    "cache": "an answer kept from before",
    "resolv.conf": "the first server of its own resolv.conf, {}",
    "internal": "not forwarded: all its networks are internal",
    "no-server": "not forwarded: there is no name server to ask",
    "search": "not forwarded: its ndots option leaves single labels to the search list",
    "unanswered": "no name server answered",
    "refused": "not forwarded: too many of its questions wait already",
    "malformed": "the question is malformed",
}


def origin(answer: dict[str, Any]) -> str:
    """Return in words where an answer comes from."""
    words = _ORIGINS.get(answer["Origin"], answer["Origin"])
    return words.format(answer["Detail"] or "?")


# ---- ls


def _ls(context: Context, options: Options, arguments: list[str]) -> int:
    query = {"container": arguments[0]} if arguments else None
    entries = context.client().get("/tsunagu/dns/zone", query)
    if options["json"]:
        from tsunagu.jsontext import dumps

        say(dumps(entries))
        return 0
    rows = [["NAME", "TYPE", "ADDRESS", "NETWORK", "WHY", "TTL"]]
    for entry in entries:
        why = ", ".join(entry["Why"])
        if entry["Containers"] != [entry["Name"]]:
            why += f" of {', '.join(entry['Containers'])}"
        for kind, addresses in (("A", entry["IPv4"]), ("AAAA", entry["IPv6"])):
            if addresses:
                rows.append([entry["Name"], kind, ", ".join(addresses), entry["Network"], why, str(entry["TTL"])])
    out(align(rows, least=0))
    return 0


LS = Command(
    "[OPTIONS] [CONTAINER]",
    "List the names that a container finds, or all names",
    _ls,
    flags=(_JSON,),
    most=1,
    more="Each name is also found as NAME.NETWORK, and each address points back to a name (PTR).",
)


# ---- query


def _query(context: Context, options: Options, arguments: list[str]) -> int:
    container, name = arguments[:2]
    query = {"container": container, "name": name, "type": arguments[2] if len(arguments) > 2 else "A"}
    answer = context.client().get("/tsunagu/dns/query", query)
    if options["json"]:
        from tsunagu.jsontext import dumps

        say(dumps(answer))
    else:
        _print(container, answer)
    return 0 if answer["Records"] or answer["Hosts"] else 1


def _print(container: str, answer: dict[str, Any]) -> None:
    name = answer["Name"]
    if answer["Hosts"]:
        warn(f"{name} is in the /etc/hosts of {container} ({', '.join(answer['Hosts'])}): programs find that first")
    rows = [[name, one["Type"], str(one["TTL"]), one["Data"]] for one in answer["Records"]]
    if rows:
        out(align(rows, least=0))
    else:
        status = answer["Status"] or "no answer"
        words = f"{status}: no record of type {answer['Type']}" if status == "NOERROR" else status
        say(f"{name}   {paint(words, _RED)}")
    taken = f", {duration(answer['Microseconds'])}" if answer["Status"] else ""
    say(f"from: {origin(answer)}{taken}")


QUERY = Command(
    "[OPTIONS] CONTAINER NAME [TYPE]",
    "Ask for a name from inside a container",
    _query,
    flags=(_JSON,),
    least=2,
    most=3,
    more="Exit codes: 0 there is an answer, 1 there is none.",
)


# ---- log


def _log(context: Context, options: Options, arguments: list[str]) -> int:
    if not options["follow"]:
        raise Failure(
            "nothing is written down while nobody follows: each query would pay for it\n"
            "follow from now on: tsunagu dns log -f" + "".join(f" {one}" for one in arguments)
        )
    query = {"container": arguments[0]} if arguments else None
    response = context.client().open("GET", "/tsunagu/dns/log", query).raise_for_status()
    for entry in response.documents():
        if options["json"]:
            from tsunagu.jsontext import dumps

            say(dumps(entry))
        elif "Missed" in entry:
            warn(paint(f"({entry['Missed']} more were asked than can be shown)", _YELLOW, 2))
        else:
            say(line(entry))
    return 0


def line(entry: dict[str, Any]) -> str:
    """Return one line of the log: when, who, what, the answer, from where, how fast."""
    from time import localtime, strftime

    seconds, nanoseconds = divmod(entry["Time"], 10**9)
    clock = f"{strftime('%H:%M:%S', localtime(seconds))}.{nanoseconds // 10**6:03}"
    said = ", ".join(entry["Answers"]) or entry["Status"] or "no answer"
    over = " over tcp" if entry["Protocol"] == "tcp" else ""
    return (
        f"{clock}  {entry['Container']}  {entry['Type']} {entry['Name']}{over} → {said}  "
        f"({origin(entry)}, {duration(entry['Microseconds'])})"
    )


def duration(microseconds: int) -> str:
    """Return a duration as people read it."""
    return f"{microseconds} µs" if microseconds < 1000 else f"{microseconds / 1000:.1f} ms"


LOG = Command(
    "[OPTIONS] [CONTAINER]",
    "Show who asks for which name, and what is answered",
    _log,
    flags=(
        ("follow", "f", "bool", False, "Show queries as they come"),
        ("json", "", "bool", False, "Print JSON lines"),
    ),
    most=1,
)
