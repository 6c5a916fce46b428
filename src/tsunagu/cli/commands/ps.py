"""`ps`, alias `container ls`. May import: `client`, `cli`. Must never import the engine."""

from __future__ import annotations

from time import time

from tsunagu.cli.command import Command
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
    if has_size or ((".Size" in template or template == "{{json .}}") and not options["quiet"]):
        query["size"] = 1
    is_short = not options["no-trunc"]
    default = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
    if template == "raw":
        template = _raw_template(has_size)
    print_list(
        _columns(is_short),
        context.client().get("/containers/json", query),
        default=(*default, "Size") if has_size else default,
        type_name="*formatter.ContainerContext",
        template=template,
        quiet=(lambda item: _id(item, is_short)) if options["quiet"] else None,
        label=lambda item, name: (item.get("Labels") or {}).get(name, ""),
    )
    return 0


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


def _raw_template(has_size: bool) -> str:
    names = ("ID", "Image", "Command", "CreatedAt", "State", "Status", "Names", "Labels", "Ports")
    titles = ("container_id", "image", "command", "created_at", "state", "status", "names", "labels", "ports")
    lines = [f"{title}: {{{{.{name}}}}}\n" for title, name in zip(titles, names, strict=True)]
    return "".join(lines) + ("size: {{.Size}}\n" if has_size else "")


PS = Command("[OPTIONS]", "List containers", _ps, flags=FLAGS, most=0)
