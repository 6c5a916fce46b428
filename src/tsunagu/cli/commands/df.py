"""`system df`: how much of the disk is used, and how much could be given back. May import: `client`, `cli`.

Must never import the engine.
"""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.output import out
from tsunagu.cli.render import align, print_list, short_id
from tsunagu.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

    Item = dict[str, Any]

_FLAGS: tuple[Flag, ...] = (
    ("format", "", "string", "", 'Format output using a custom template: "table", "json" or a Go template'),
    ("verbose", "v", "bool", False, "Show detailed information on space usage"),
)
_COLUMNS: dict[str, tuple[str, Callable[[Item], object]]] = {
    "Type": ("TYPE", lambda item: item["type"]),
    "TotalCount": ("TOTAL", lambda item: str(item["total"])),
    "Active": ("ACTIVE", lambda item: str(item["active"])),
    "Size": ("SIZE", lambda item: human_size(item["size"])),
    "Reclaimable": ("RECLAIMABLE", lambda item: item["reclaimable"]),
}
_UP = ("running", "paused", "restarting")


def _share(free: int, size: int) -> str:
    return f"{human_size(free)} ({free * 100 // size}%)" if size > 0 else human_size(free)


def _rows(answer: Item) -> list[Item]:
    images, containers = answer["Images"] or [], answer["Containers"] or []
    used = sum(
        i["Size"] - i["SharedSize"] for i in images if i["Containers"] and -1 not in (i["Size"], i["SharedSize"])
    )
    total = answer["LayersSize"]
    written = sum(c.get("SizeRw") or 0 for c in containers)
    idle = sum(c.get("SizeRw") or 0 for c in containers if c["State"] not in _UP)
    volumes = answer["Volumes"] or []
    held = sum(v["UsageData"]["Size"] for v in volumes if v["UsageData"]["Size"] > 0)
    unused = sum(
        v["UsageData"]["Size"] for v in volumes if v["UsageData"]["Size"] > 0 and not v["UsageData"]["RefCount"]
    )
    rows = [
        ("Images", len(images), sum(i["Containers"] > 0 for i in images), total, _share(total - used, total)),
        ("Containers", len(containers), sum(c["State"] in _UP for c in containers), written, _share(idle, written)),
        (
            "Local Volumes",
            len(volumes),
            sum(v["UsageData"]["RefCount"] > 0 for v in volumes),
            held,
            _share(unused, held),
        ),
        ("Build Cache", 0, 0, 0, human_size(0)),
    ]
    return [dict(zip(("type", "total", "active", "size", "reclaimable"), row, strict=True)) for row in rows]


def _df(context: Context, options: Options, _arguments: list[str]) -> int:
    answer = context.client().get("/system/df")
    if options["verbose"]:
        _print_all(answer)
        return 0
    print_list(
        _COLUMNS,
        _rows(answer),
        default=tuple(_COLUMNS),
        type_name="*formatter.diskUsageImagesContext",
        template=options["format"],
    )
    return 0


def _print_all(answer: Item) -> None:
    from time import time

    from tsunagu.cli.units import human_duration

    now = time()
    rows = [["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"]]
    for image in answer["Images"] or []:
        sizes = [image["Size"], image["SharedSize"], image["Size"] - image["SharedSize"]]
        for tag in image["RepoTags"] or ["<none>:<none>"]:
            name, _, version = tag.rpartition(":")
            made = f"{human_duration(now - image['Created'])} ago"
            shown = [human_size(size) for size in sizes]
            rows.append([name, version, short_id(image["Id"]), made, *shown, str(image["Containers"])])
    out("Images space usage:\n\n" + align(rows))
    rows = [["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"]]
    for item in answer["Containers"] or []:
        command = item["Command"] if len(item["Command"]) <= 20 else item["Command"][:19] + "…"
        mounted = sum(mount.get("Type") == "volume" for mount in item.get("Mounts") or ())
        made = f"{human_duration(now - item['Created'])} ago"
        names = ",".join(name.lstrip("/") for name in item["Names"])
        size = human_size(item.get("SizeRw") or 0)
        rows.append(
            [short_id(item["Id"]), item["Image"], f'"{command}"', str(mounted), size, made, item["Status"], names]
        )
    out("\nContainers space usage:\n\n" + align(rows))
    rows = [["VOLUME NAME", "LINKS", "SIZE"]]
    for volume in answer["Volumes"] or []:
        usage = volume["UsageData"]
        rows.append([volume["Name"], str(usage["RefCount"]), human_size(max(0, usage["Size"]))])
    out("\nLocal Volumes space usage:\n\n" + align(rows))
    rows = [["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"]]
    out("\nBuild cache usage: 0B\n\n" + align(rows))


DF = Command("[OPTIONS]", "Show disk usage", _df, flags=_FLAGS, most=0)
