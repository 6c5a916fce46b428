"""`prune` of containers, images, networks, volumes and of everything. May import: `client`, `cli`.

Must never import the engine.
"""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.output import Failure, out, say
from tsunagu.cli.render import query_filters
from tsunagu.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

_FLAGS: tuple[Flag, ...] = (
    ("filter", "", "filter", (), 'Remove only what matches (e.g. "until=<timestamp>")'),
    ("force", "f", "bool", False, "Do not ask"),
)


def _is_confirmed(options: Options, warning: str, *, form: str = "WARNING! This will remove {}.\n") -> bool:
    if options["force"]:
        return True
    from posix import read

    out(f"{form.format(warning)}Are you sure you want to continue? [y/N] ")
    answer = b""
    while not answer.endswith(b"\n"):
        byte = read(0, 1)
        if not byte:
            break
        answer += byte
    return answer.strip().lower() in (b"y", b"yes")


def _prune(context: Context, options: Options, kind: str, extra: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    pairs = [*options["filter"], *extra]
    query = {"filters": query_filters(pairs)} if pairs else None
    answer: dict[str, Any] = context.client().post(f"/{kind}/prune", query) or {}
    return answer


def _containers(context: Context, options: Options, _arguments: list[str]) -> int:
    if not _is_confirmed(options, "all stopped containers"):
        return 0
    answer = _prune(context, options, "containers")
    deleted = answer.get("ContainersDeleted") or []
    if deleted:
        say("Deleted Containers:\n" + "".join([name + "\n" for name in deleted]))
    say(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed') or 0)}")
    return 0


def _images(context: Context, options: Options, _arguments: list[str]) -> int:
    is_all = options["all"]
    warning = "all images without at least one container associated to them" if is_all else "all dangling images"
    if not _is_confirmed(options, warning):
        return 0
    answer = _prune(context, options, "images", (("dangling", "false" if is_all else "true"),))
    deleted = answer.get("ImagesDeleted") or []
    if deleted:
        lines = [
            f"untagged: {one['Untagged']}\n" if one.get("Untagged") else f"deleted: {one['Deleted']}\n"
            for one in deleted
        ]
        say("Deleted Images:\n" + "".join(lines))
    say(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed') or 0)}")
    return 0


def _networks(context: Context, options: Options, _arguments: list[str]) -> int:
    if not _is_confirmed(options, "all custom networks not used by at least one container"):
        return 0
    deleted = _prune(context, options, "networks").get("NetworksDeleted") or []
    if deleted:
        say("Deleted Networks:\n" + "".join([name + "\n" for name in deleted]))
    return 0


def _system(context: Context, options: Options, _arguments: list[str]) -> int:
    is_all = options["all"]
    if options["volumes"] and any(name == "until" for name, _ in options["filter"]):
        raise Failure('ERROR: The "until" filter is not supported with "--volumes"')
    kinds = [
        "all stopped containers",
        "all networks not used by at least one container",
        *(["all anonymous volumes not used by at least one container"] if options["volumes"] else []),
        "all images without at least one container associated to them" if is_all else "all dangling images",
        "all build cache" if is_all else "unused build cache",
    ]
    lines = "".join([f"\n  - {kind}" for kind in kinds])
    if options["filter"]:
        lines += "\n\n  Items to be pruned will be filtered with:"
        lines += "".join([f"\n  - {name}={value}" for name, value in options["filter"]])
    if not _is_confirmed(options, lines, form="WARNING! This will remove:{}\n\n"):
        return 0
    freed = 0
    for kind, title, extra in (
        ("containers", "Containers", ()),
        ("networks", "Networks", ()),
        *((("volumes", "Volumes", ()),) if options["volumes"] else ()),
        ("images", "Images", (("dangling", "false" if is_all else "true"),)),
    ):
        answer = _prune(context, options, kind, extra)
        freed += answer.get("SpaceReclaimed") or 0
        if deleted := answer.get(f"{title}Deleted"):
            say(f"Deleted {title}:\n" + "".join([f"{_line(one)}\n" for one in deleted]))
    say(f"Total reclaimed space: {human_size(freed)}")
    return 0


def _line(one: str | dict[str, str]) -> str:
    if isinstance(one, str):
        return one
    return f"untagged: {one['Untagged']}" if one.get("Untagged") else f"deleted: {one['Deleted']}"


SYSTEM_PRUNE = Command(
    "[OPTIONS]",
    "Remove unused data",
    _system,
    flags=(
        ("all", "a", "bool", False, "Remove all unused images not just dangling ones"),
        *_FLAGS,
        ("volumes", "", "bool", False, "Remove anonymous volumes too"),
    ),
    most=0,
)


def _volumes(context: Context, options: Options, _arguments: list[str]) -> int:
    is_all = options["all"]
    if is_all and any(name == "all" for name, _ in options["filter"]):
        raise Failure("conflicting options: cannot specify both --all and --filter all=1")
    what = "all local volumes" if is_all else "anonymous local volumes"
    if not _is_confirmed(options, f"{what} not used by at least one container"):
        return 0
    _print_volumes(_prune(context, options, "volumes", (("all", "true"),) if is_all else ()))
    return 0


def _print_volumes(answer: dict[str, Any]) -> None:
    deleted = answer.get("VolumesDeleted") or []
    if deleted:
        say("Deleted Volumes:\n" + "".join([name + "\n" for name in deleted]))
    say(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed') or 0)}")


CONTAINER_PRUNE = Command("[OPTIONS]", "Remove all stopped containers", _containers, flags=_FLAGS, most=0)
IMAGE_PRUNE = Command(
    "[OPTIONS]",
    "Remove unused images",
    _images,
    flags=(("all", "a", "bool", False, "Remove all unused images, not only nameless ones"), *_FLAGS),
    most=0,
)
NETWORK_PRUNE = Command("[OPTIONS]", "Remove all unused networks", _networks, flags=_FLAGS, most=0)
VOLUME_PRUNE = Command(
    "[OPTIONS]",
    "Remove unused local volumes",
    _volumes,
    flags=(("all", "a", "bool", False, "Remove all unused volumes, not only anonymous ones"), *_FLAGS),
    most=0,
)
