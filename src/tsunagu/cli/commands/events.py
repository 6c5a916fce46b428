"""`events`. May import: `client`, `cli`. Must never import the engine."""

from __future__ import annotations

from time import time

from tsunagu.cli.command import Command
from tsunagu.cli.output import Failure, say
from tsunagu.cli.render import compile_template, query_filters
from tsunagu.cli.units import rfc3339, timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

_FLAGS: tuple[Flag, ...] = (
    ("filter", "f", "filter", (), "Show only what matches"),
    ("format", "", "string", "", "Format the output:\n'json': JSON\n'TEMPLATE': the text of a Go template"),
    ("since", "", "string", "", "Begin with the events since a time"),
    ("until", "", "string", "", "End at a time"),
)

# Go's field, JSON's key, Go's zero value
_FIELDS: tuple[tuple[str, str, object], ...] = (
    ("Type", "Type", ""),
    ("Action", "Action", ""),
    ("Actor", "Actor", {}),
    ("Scope", "scope", ""),
    ("Time", "time", 0),
    ("TimeNano", "timeNano", 0),
    ("Status", "status", ""),
    ("ID", "id", ""),
    ("From", "from", ""),
)


def _events(context: Context, options: Options, _arguments: list[str]) -> int:
    template = options["format"]
    if template == "json":
        template = "{{json .}}"
    is_plain_json = template == "{{json .}}"
    compiled = (
        compile_template(template, complaint="Error parsing format: ") if template and not is_plain_json else None
    )
    query: dict[str, str | int] = {}
    for flag in ("since", "until"):
        if options[flag]:
            try:
                query[flag] = timestamp(options[flag], time())
            except ValueError as error:
                raise Failure(str(error)) from None
    if options["filter"]:
        query["filters"] = query_filters(options["filter"])
    response = context.client().open("GET", "/events", query).raise_for_status()
    for event in response.documents():
        if compiled is not None:
            from tsunagu.wire.gotemplate import Row, TemplateError

            fields = {name: event.get(key) or zero for name, key, zero in _FIELDS}
            try:
                say(compiled.render(Row("*events.Message", fields)))
            except TemplateError as error:
                raise Failure(f"Error parsing format: {error}", 64) from None
        elif is_plain_json:
            from tsunagu.jsontext import dumps

            say(dumps(event))
        else:
            say(_line(event))
    return 0


def _line(event: dict[str, Any]) -> str:
    actor = event["Actor"]
    nanoseconds = event.get("timeNano") or event["time"] * 10**9
    clock = rfc3339(nanoseconds // 10**9)
    text = f"{clock[:19]}.{nanoseconds % 10**9:09}{clock[19:]} {event['Type']} {event['Action']} {actor['ID']}"
    attributes = actor.get("Attributes") or {}
    if attributes:
        text += " (" + ", ".join([f"{name}={attributes[name]}" for name in sorted(attributes)]) + ")"
    return text


EVENTS = Command("[OPTIONS]", "Print what happens in the engine, as it happens", _events, flags=_FLAGS, most=0)
