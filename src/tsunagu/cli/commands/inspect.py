"""`inspect` of every kind. May import: `client`, `cli`, `wire.gotemplate` lazily. Must never import the engine.

The JSON is printed as the engine sent it, indented; templates see Docker's Go types first and the raw JSON after, so
that both the values and the errors are Docker's. What was found is printed before the error for what was not.
"""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.main import describe
from tsunagu.cli.output import Failure, out, warn
from tsunagu.cli.paths import api_path
from tsunagu.cli.render import compile_template
from tsunagu.client import ApiError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

    # (what was found, its kind); raises ClientError or Failure
    Find = Callable[[str], tuple[Any, str]]

_FORMAT: Flag = ("format", "f", "string", "", "Format the output:\n'json': JSON\n'TEMPLATE': the text of a Go template")
_SIZE: Flag = ("size", "s", "bool", False, "Show the sizes of a container's files")
_KINDS = ("config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume")
_ENDINGS = {"container": "/json", "image": "/json", "network": "", "volume": ""}


def _get(context: Context, kind: str, name: str, query: dict[str, str | int]) -> Any:
    return context.client().get(api_path(kind, name) + _ENDINGS[kind], query)


def _inspect(context: Context, options: Options, names: list[str]) -> int:
    kind = options["type"]
    if "type" in options and kind not in _KINDS:
        shown = ", ".join([f'"{one}"' for one in _KINDS])
        if not kind:
            raise Failure(f"type is empty: must be one of {shown}")
        raise Failure(f'unknown type: "{kind}": must be one of {shown}')
    if kind and kind not in _ENDINGS:
        raise Failure(f"inspecting a {kind} is not supported: this engine has containers, images, networks and volumes")
    has_size = options["size"]

    def query(one: str) -> dict[str, str | int]:
        return {"size": 1} if has_size and one == "container" else {}

    def find(name: str) -> tuple[Any, str]:
        for one in (kind,) if kind else _ENDINGS:
            try:
                return _get(context, one, name, query(one)), one
            except ApiError as error:
                # An address of several objects, or a name that one kind does not allow, may still be another kind's.
                if kind or error.status not in (404, 400):
                    raise
        raise Failure(f"Error: No such object: {name}")

    return _print(options["format"], names, find)


def _of_kind(kind: str) -> Callable[[Context, Options, list[str]], int]:
    def run(context: Context, options: Options, names: list[str]) -> int:
        query: dict[str, str | int] = {}
        if kind == "container" and options["size"]:
            query["size"] = 1
        if kind == "network" and options["verbose"]:
            query["verbose"] = "true"
        if kind == "image" and options["platform"]:
            query["platform"] = options["platform"]
        return _print(options["format"], names, lambda name: (_get(context, kind, name, query), kind))

    return run


def _print(template: str, names: list[str], find: Find) -> int:
    compiled = compile_template(template) if template not in ("", "json") else None
    found: list[Any] = []
    lines: list[str] = []
    errors: list[str] = []
    for name in names:
        try:
            value, kind = find(name)
        except (ClientError, Failure) as error:
            errors.append(describe(error))
            continue
        if compiled is None:
            found.append(value)
            continue
        from tsunagu.wire.gotemplate import TemplateError

        try:
            lines.append(compiled.inspect(value, kind) + "\n")
        except TemplateError as error:
            lines.append("\n")
            errors.append(f"template parsing error: {error}")
            continue
    if compiled is not None:
        out("".join(lines) or "\n")
    elif template == "json":
        from tsunagu.jsontext import dumps

        out(dumps(found) + "\n")
    else:
        from tsunagu.jsontext import pretty

        out(pretty(found) + "\n")
    for message in errors:
        warn(message)
    return int(bool(errors))


INSPECT = Command(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    "Show everything that is known of containers, images, networks and volumes",
    _inspect,
    flags=(_FORMAT, _SIZE, ("type", "", "string", "", "Only look for objects of this type")),
    least=1,
)
CONTAINER_INSPECT = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Show everything that is known of containers",
    _of_kind("container"),
    flags=(_FORMAT, _SIZE),
    least=1,
)
IMAGE_INSPECT = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Show everything that is known of images",
    _of_kind("image"),
    flags=(_FORMAT, ("platform", "", "string", "", "Platform of a multi-platform image")),
    least=1,
)
NETWORK_INSPECT = Command(
    "[OPTIONS] NETWORK [NETWORK...]",
    "Show everything that is known of networks",
    _of_kind("network"),
    flags=(_FORMAT, ("verbose", "v", "bool", False, "Show more, for diagnosis")),
    least=1,
)
VOLUME_INSPECT = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    "Show everything that is known of volumes",
    _of_kind("volume"),
    flags=(_FORMAT,),
    least=1,
)
