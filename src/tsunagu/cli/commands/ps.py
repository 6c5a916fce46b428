"""`ps`, alias `container ls`. May import: `client`, `cli`. Must never import the engine."""

from __future__ import annotations

from time import time

from tsunagu.cli.command import Command
from tsunagu.cli.output import Failure
from tsunagu.cli.render import ellipsis, go_quote, print_list, short_id
from tsunagu.cli.units import human_duration, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

    Item = dict[str, Any]

FORMAT_HELP = (
    "Format the output:\n'table': a table with column headers (default)\n"
    "'table TEMPLATE': a table made by a Go template\n"
    "'json': JSON, one object a line\n'TEMPLATE': the text of a Go template"
)
FLAGS: tuple[Flag, ...] = (
    ("all", "a", "bool", False, "Show all containers (only running ones are shown otherwise)"),
    ("filter", "f", "filter", (), "Show only what matches"),
    ("format", "", "string", "", FORMAT_HELP),
    ("last", "n", "int", -1, "Show the n containers created last, in any state (default -1)"),
    ("latest", "l", "bool", False, "Show the container created last, in any state"),
    ("no-trunc", "", "bool", False, "Do not shorten"),
    ("quiet", "q", "bool", False, "Print IDs only"),
    ("size", "s", "bool", False, "Show the sizes of the files"),
)


def _ps(context: Context, options: Options, _arguments: list[str]) -> int:
    query: dict[str, str | int] = {}
    template = options["format"]
    if options["all"]:
        query["all"] = 1
    limit = 1 if options["latest"] and "last" not in options else options["last"]
    if limit > 0:
        query["limit"] = limit
    if options["filter"]:
        from tsunagu.cli.render import query_filters

        query["filters"] = query_filters(options["filter"])
    has_size = options["size"]
    if _uses_size(template) or has_size:
        query["size"] = 1
    is_short = not options["no-trunc"]
    default = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
    print_list(
        _columns(is_short),
        context.client().get("/containers/json", query),
        default=(*default, "Size") if has_size else default,
        type_name="*formatter.ContainerContext",
        template=template,
        quiet=(lambda item: _id(item, is_short)) if options["quiet"] else None,
        is_quiet_first=True,
        raw=(*_RAW, ("size", " {{.Size}}")) if has_size else _RAW,
        label=lambda item, name: (item.get("Labels") or {}).get(name, ""),
    )
    return 0


def _uses_size(template: str) -> bool:
    """Whether a template asks for sizes, which cost the engine time. Raises Failure for one that cannot be used.

    As in Docker's client a container without any properties is rendered; its errors come before any request.
    """
    if "{{" not in template:
        return False
    from tsunagu.wire.gotemplate import Row, Template, TemplateError

    nobody: Item = {"Id": "", "Image": "", "ImageID": "", "Command": "", "Created": 0, "Status": "", "State": ""}
    asked: list[str] = []
    fields = {name: _Asked(name, function, nobody, asked) for name, (_, function) in _columns(True).items()}
    try:
        compiled = Template(template)
    except TemplateError as error:
        raise Failure(f"failed to parse template: {error}") from None
    try:
        compiled.render(Row("*formatter.ContainerContext", fields, {"Label": lambda _name: ""}))
    except TemplateError as error:
        raise Failure(f"failed to execute template: {error}") from None
    return "Size" in asked


class _Asked:
    """A column of an item that notes that it was asked for."""

    __slots__ = ("asked", "function", "item", "name")

    def __init__(self, name: str, function: Any, item: Item, asked: list[str]) -> None:
        self.name = name
        self.function = function
        self.item = item
        self.asked = asked

    def __call__(self) -> object:
        self.asked.append(self.name)
        return self.function(self.item)


def _columns(is_short: bool) -> dict[str, tuple[str, Any]]:
    return {
        "ID": ("CONTAINER ID", lambda item: _id(item, is_short)),
        "Image": ("IMAGE", lambda item: _image(item, is_short)),
        "Command": ("COMMAND", lambda item: _command(item, is_short)),
        "RunningFor": ("CREATED", lambda item: f"{human_duration(time() - item['Created'])} ago"),
        "Status": ("STATUS", lambda item: item["Status"]),
        "Ports": ("PORTS", lambda item: display_ports(item.get("Ports") or ())),
        "Names": ("NAMES", lambda item: _names(item, is_short)),
        "Size": ("SIZE", _size),
        "CreatedAt": ("CREATED AT", _created_at),
        "Labels": ("LABELS", lambda item: join_labels(item.get("Labels"))),
        "LocalVolumes": ("LOCAL VOLUMES", _local_volumes),
        "Mounts": ("MOUNTS", lambda item: _mounts(item, is_short)),
        "Networks": ("NETWORKS", _networks),
        "Platform": ("PLATFORM", lambda item: (item.get("ImageManifestDescriptor") or {}).get("platform")),
        "State": ("STATE", lambda item: item["State"]),
    }


def _id(item: Item, is_short: bool) -> str:
    identity: str = item["Id"]
    return identity[:12] if is_short else identity


def _image(item: Item, is_short: bool) -> str:
    image: str = item["Image"]
    if not image:
        return "<no image>"
    if is_short:
        if image == item["ImageID"] or image.startswith("sha256:"):
            return short_id(image)
        if "@" in image:
            return image.partition("@")[0]
    return image


def _command(item: Item, is_short: bool) -> str:
    command = item["Command"]
    return go_quote(ellipsis(command, 20) if is_short else command)


def _names(item: Item, is_short: bool) -> str:
    # Names of links have more than one slash ("/web/db"); the short form leaves them out.
    names = [name.lstrip("/") for name in item.get("Names") or ()]
    return ",".join([name for name in names if "/" not in name] if is_short else names)


def _size(item: Item) -> str:
    text = human_size(item.get("SizeRw") or 0, 3)
    total = item.get("SizeRootFs") or 0
    return f"{text} (virtual {human_size(total, 3)})" if total > 0 else text


def _created_at(item: Item) -> str:
    from tsunagu.cli.units import go_time

    return go_time(item["Created"])


def join_labels(labels: dict[str, str] | None) -> str:
    """Labels as "a=1,b=2", sorted."""
    return ",".join(sorted([f"{name}={value}" for name, value in (labels or {}).items()]))


def _local_volumes(item: Item) -> str:
    return str(len([mount for mount in item.get("Mounts") or () if mount.get("Driver") == "local"]))


def _mounts(item: Item, is_short: bool) -> str:
    names = [mount.get("Name") or mount.get("Source") or "" for mount in item.get("Mounts") or ()]
    return ",".join([ellipsis(name, 15) if is_short else name for name in names])


def _networks(item: Item) -> str:
    return ",".join((item.get("NetworkSettings") or {}).get("Networks") or {})


def display_ports(ports: Sequence[Item]) -> str:
    """The PORTS column: runs of equal ports joined ("81-82/tcp"), published ports with their host address."""
    if not ports:
        return ""
    groups: dict[tuple[str, str], list[int]] = {}
    made: list[str] = []
    mapped: list[str] = []
    ordered = sorted(
        ports, key=lambda port: (port["PrivatePort"], port.get("IP") or "", port.get("PublicPort") or 0, port["Type"])
    )
    for port in ordered:
        inner, ip, outer, protocol = (
            port["PrivatePort"],
            port.get("IP") or "",
            port.get("PublicPort") or 0,
            port["Type"],
        )
        if ip and outer != inner:
            mapped.append(f"{_join(ip, str(outer))}->{inner}/{protocol}")
            continue
        key = (ip, protocol)
        group = groups.get(key)
        if group is not None and inner == group[1] + 1:
            group[1] = inner
            continue
        if group is not None:
            made.append(_group(key, group))
        groups[key] = [inner, inner]
    made += [_group(key, group) for key, group in groups.items()]
    return ", ".join(made + mapped)


def _group(key: tuple[str, str], group: list[int]) -> str:
    ip, protocol = key
    text = str(group[0]) if group[0] == group[1] else f"{group[0]}-{group[1]}"
    return f"{_join(ip, text)}->{text}/{protocol}" if ip else f"{text}/{protocol}"


def _join(ip: str, port: str) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


_RAW = (
    ("container_id", " {{.ID}}"),
    ("image", " {{.Image}}"),
    ("command", " {{.Command}}"),
    ("created_at", " {{.CreatedAt}}"),
    ("state", " {{.State}}"),
    ("status", " {{.Status}}"),
    ("names", " {{.Names}}"),
    ("labels", "{{if .Labels}} {{.Labels}}{{end}}"),
    ("ports", "{{if .Ports}} {{.Ports}}{{end}}"),
)
PS = Command("[OPTIONS]", "List containers", _ps, flags=FLAGS, most=0)
