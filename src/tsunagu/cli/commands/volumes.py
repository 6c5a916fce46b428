"""`volume` commands. May import: `client`, `cli`. Must never import the engine."""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.main import describe
from tsunagu.cli.output import Failure, say, warn
from tsunagu.cli.paths import api_path
from tsunagu.client import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

    Item = dict[str, Any]

_CREATE_FLAGS: tuple[Flag, ...] = (
    ("driver", "d", "string", "local", 'Driver of the volume (default "local")'),
    ("label", "", "list:label", (), "Set labels on the volume"),
    ("name", "", "string", "", None),
    ("opt", "o", "map", (), "Options of the driver (default map[])"),
)
_LS_FLAGS: tuple[Flag, ...] = (
    ("filter", "f", "filter", (), 'Show only what matches (e.g. "dangling=true")'),
    ("format", "", "string", "", "Format the output: 'table', 'table TEMPLATE', 'json' or a Go template"),
    ("quiet", "q", "bool", False, "Print names only"),
)
_FORCE: tuple[Flag, ...] = (("force", "f", "bool", False, "No error when a volume does not exist"),)


def _create(context: Context, options: Options, arguments: list[str]) -> int:
    from tsunagu.cli.create_body import pairs

    name = options["name"]
    if arguments:
        if name:
            raise Failure(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
            )
        name = arguments[0]
    body: Item = {"Driver": options["driver"]}
    if name:
        body["Name"] = name
    if options["opt"]:
        body["DriverOpts"] = pairs(options["opt"])
    if options["label"]:
        body["Labels"] = pairs(options["label"])
    say(context.client().post("/volumes/create", None, body)["Name"])
    return 0


def _rm(context: Context, options: Options, names: list[str]) -> int:
    client = context.client()
    is_failed = False
    for name in names:
        try:
            client.delete(api_path("volume", name), {"force": 1} if options["force"] else None)
        except (ClientError, Failure) as error:
            warn(describe(error))
            is_failed = True
        else:
            say(name)
    return int(is_failed)


def _ls(context: Context, options: Options, _arguments: list[str]) -> int:
    from tsunagu.cli.commands.ps import join_labels
    from tsunagu.cli.render import print_list, query_filters, sort_key

    query = {"filters": query_filters(options["filter"])} if options["filter"] else None
    answer = context.client().get("/volumes", query)
    volumes: list[Item] = sorted(answer.get("Volumes") or [], key=lambda volume: sort_key(volume["Name"]))
    print_list(
        {
            "Driver": ("DRIVER", lambda volume: volume["Driver"]),
            "Name": ("VOLUME NAME", lambda volume: volume["Name"]),
            "Scope": ("SCOPE", lambda volume: volume["Scope"]),
            "Mountpoint": ("MOUNTPOINT", lambda volume: volume["Mountpoint"]),
            "Labels": ("LABELS", lambda volume: join_labels(volume.get("Labels"))),
            "Links": ("LINKS", lambda volume: _usage(volume, "RefCount")),
            "Size": ("SIZE", _size),
            # of swarm clusters: Docker's client shows these for a local volume
            "Group": ("GROUP", lambda volume: "N/A"),
            "Availability": ("AVAILABILITY", lambda volume: "N/A"),
            "Status": ("STATUS", lambda volume: "N/A"),
        },
        volumes,
        default=("Driver", "Name"),
        type_name="*formatter.volumeContext",
        template=options["format"],
        quiet=(lambda volume: volume["Name"]) if options["quiet"] else None,
        raw=(("name", " {{.Name}}"), ("driver", " {{.Driver}}")),
        label=lambda volume, name: (volume.get("Labels") or {}).get(name, ""),
    )
    return 0


def _usage(volume: Item, key: str) -> str:
    usage = volume.get("UsageData")
    return "N/A" if usage is None else str(usage[key])


def _size(volume: Item) -> str:
    usage = volume.get("UsageData")
    if usage is None:
        return "N/A"
    from tsunagu.cli.units import human_size

    return human_size(usage["Size"])


CREATE = Command("[OPTIONS] [VOLUME]", "Create a volume", _create, flags=_CREATE_FLAGS, most=1)
LS = Command("[OPTIONS]", "List volumes", _ls, flags=_LS_FLAGS, most=0)
RM = Command("[OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes", _rm, flags=_FORCE, least=1)
