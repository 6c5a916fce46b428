"""`stats`: what containers use, as a table that is drawn anew every second, or once.

May import: `client`, `cli`. Must never import the engine.
"""

from __future__ import annotations

from time import sleep

from tsunagu.cli.command import Command
from tsunagu.cli.main import describe
from tsunagu.cli.output import is_terminal, out, warn
from tsunagu.cli.paths import api_path
from tsunagu.cli.render import print_list, short_id
from tsunagu.cli.units import bytes_size, human_size
from tsunagu.client import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

    Item = dict[str, Any]

_DEFAULT = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_FLAGS: tuple[Flag, ...] = (
    ("all", "a", "bool", False, "Show all containers (default shows just running)"),
    ("format", "", "string", "", 'Format output using a custom template: "table", "json" or a Go template'),
    ("no-stream", "", "bool", False, "Disable streaming stats and only pull the first result"),
    ("no-trunc", "", "bool", False, "Do not truncate output"),
)


def cpu_percent(item: Item) -> float:
    """The container's share of the host's time between two samples, in percent of one processor."""
    now, before = item["cpu_stats"], item["precpu_stats"]
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    online = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or ())
    return used / passed * online * 100.0 if used > 0 and passed > 0 else 0.0


def _memory(item: Item) -> float:
    """Memory in use without what the kernel would give back at once: pages of files that nobody used lately."""
    memory = item["memory_stats"]
    details = memory.get("stats") or {}
    usage = memory.get("usage", 0)
    for key in ("total_inactive_file", "inactive_file"):  # cgroup v1, v2
        if key in details:
            return float(usage - details[key] if details[key] < usage else usage)
    return float(usage)


def _memory_percent(item: Item) -> float:
    limit = item["memory_stats"].get("limit", 0)
    return _memory(item) / limit * 100.0 if limit else 0.0


def _memory_of(item: Item) -> str:
    return f"{bytes_size(_memory(item))} / {bytes_size(item['memory_stats'].get('limit', 0))}"


def _net(item: Item) -> str:
    links = (item.get("networks") or {}).values()
    received, sent = sum(link["rx_bytes"] for link in links), sum(link["tx_bytes"] for link in links)
    return f"{human_size(received, 3)} / {human_size(sent, 3)}"


def _block(item: Item) -> str:
    counts = {"r": 0, "w": 0}
    for entry in item["blkio_stats"].get("io_service_bytes_recursive") or ():
        kind = entry["op"][:1].lower()
        if kind in counts:
            counts[kind] += entry["value"]
    return f"{human_size(counts['r'], 3)} / {human_size(counts['w'], 3)}"


def _columns(is_whole: bool) -> dict[str, tuple[str, Callable[[Item], object]]]:
    def identity(item: Item) -> str:
        return str(item["id"]) if is_whole else short_id(item["id"])

    return {
        "Container": ("CONTAINER", lambda item: item["word"] if item["word"] != item["id"] else identity(item)),
        "ID": ("CONTAINER ID", identity),
        "Name": ("NAME", lambda item: item["name"].lstrip("/")),
        "CPUPerc": ("CPU %", lambda item: f"{cpu_percent(item):.2f}%"),
        "MemUsage": ("MEM USAGE / LIMIT", _memory_of),
        "MemPerc": ("MEM %", lambda item: f"{_memory_percent(item):.2f}%"),
        "NetIO": ("NET I/O", _net),
        "BlockIO": ("BLOCK I/O", _block),
        "PIDs": ("PIDS", lambda item: str(item["pids_stats"].get("current", 0))),
    }


def _read(context: Context, words: list[str], query: dict[str, str | int]) -> list[Item]:
    """One sample of each container, all asked at once; those that went meanwhile are left out."""
    pending = [(w, context.another_client().begin("GET", api_path("container", w) + "/stats", query)) for w in words]
    items: list[Item] = []
    for word, request in pending:
        try:
            items.append({**request.finish(), "word": word})
        except ApiError as error:
            if error.status != 404:
                warn(describe(error))
    return items


def _words(context: Context, options: Options, names: list[str]) -> list[str]:
    if names:
        return names
    listed = context.client().get("/containers/json", {"all": 1} if options["all"] else None)
    return [item["Id"] for item in listed]


def _stats(context: Context, options: Options, names: list[str]) -> int:
    failed = False
    for name in names:
        try:
            context.client().get(api_path("container", name) + "/json")
        except ApiError as error:
            warn(describe(error))
            failed = True
    if failed:
        return 1
    columns = _columns(options["no-trunc"])

    def show(items: list[Item]) -> None:
        print_list(columns, items, default=_DEFAULT, type_name="*container.statsContext", template=options["format"])

    if options["no-stream"]:
        items = _read(context, _words(context, options, names), {"stream": 0})
        show(items)
        return 0
    before: dict[str, Item] = {}
    clears = is_terminal(1)
    while True:
        items = _read(context, _words(context, options, names), {"stream": 0, "one-shot": 1})
        for item in items:
            if item["id"] in before:
                item["precpu_stats"] = before[item["id"]]["cpu_stats"]
            else:  # a rate needs two samples
                item["precpu_stats"] = item["cpu_stats"]
        before = {item["id"]: item for item in items}
        out("\033[2J\033[H" if clears else "")
        show(items)
        if names and not items:
            return 0  # all of them are gone
        sleep(1.0)


STATS = Command(
    "[OPTIONS] [CONTAINER...]", "Display a live stream of container(s) resource usage statistics", _stats, flags=_FLAGS
)
