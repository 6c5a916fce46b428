"""`cp`: files between a container and this machine, or a tar stream on `-`. May import: `client`, `cli`.

Must never import the engine.
"""

from __future__ import annotations

import os
import posix

from tsunagu.cli import copying
from tsunagu.cli.command import Command
from tsunagu.cli.copying import Place
from tsunagu.cli.output import Failure, is_terminal, warn, write_all
from tsunagu.cli.paths import absolute, api_path
from tsunagu.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

_PIECE = 1 << 18
_DIRECTORY, _LINK = 1 << 31, 1 << 27  # bits of Go's file mode
_IRREGULAR = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 19
_FLAGS: tuple[Flag, ...] = (
    ("archive", "a", "bool", False, "Archive mode (what is copied in belongs to the container's user)"),
    ("follow-link", "L", "bool", False, "Always follow symbol link in SRC_PATH"),
    ("quiet", "q", "bool", False, "Suppress progress output during copy"),
)


def _split(argument: str) -> tuple[str, str]:
    """Container and path; no container for what is absolute, has no colon or begins with a dot."""
    name, colon, path = argument.partition(":")
    if argument.startswith("/") or not colon or name.startswith("."):
        return "", argument
    return name, path


def _cp(context: Context, options: Options, arguments: list[str]) -> int:
    for argument, what in zip(arguments, ("source", "destination"), strict=True):
        if not argument:
            raise Failure(f"{what} can not be empty")
    (source_container, source), (container, destination) = map(_split, arguments)
    if source_container and container:
        raise Failure("copying between containers is not supported")
    if source_container:
        _copy_out(context, options, source_container, source, destination)
    elif container:
        _copy_in(context, options, container, source, destination)
    else:
        raise Failure("must specify at least one container source")
    return 0


def _local(path: str) -> str:
    """An absolute path that still ends as it was written: a slash or a dot at the end has a meaning."""
    full = absolute(path)
    if copying.names_content(path):
        return f"{full.rstrip('/')}/."
    return f"{full}/" if path.endswith("/") and full != "/" else full


def _stat(context: Context, container: str, path: str) -> dict[str, Any] | None:
    """What the engine says of a file; None when there is none, or no such container."""
    response = context.client().open("HEAD", api_path("container", container) + "/archive", {"path": path})
    for _ in response.pieces():
        pass
    encoded = response.headers.get("x-docker-container-path-stat", "")
    if response.status >= 400 or not encoded:
        return None
    from binascii import a2b_base64

    from tsunagu.jsontext import loads

    found: dict[str, Any] = loads(a2b_base64(encoded))
    return found


def _link_target(path: str, target: str) -> str:
    return target if target.startswith("/") else os.path.join(copying.split_entry(path)[0], target)


class _Counted:
    """Pieces of bytes, and how many there were."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.count += len(piece)
            yield piece


def _tell(options: Options, counted: _Counted, where: str) -> None:
    # Docker is quiet by itself where nobody looks at a terminal.
    if not options["quiet"] and is_terminal(1):
        warn(f"Successfully copied {human_size(counted.count, 3)} to {where}")


def _copy_out(context: Context, options: Options, container: str, source: str, destination: str) -> None:
    if destination != "-":
        destination = _local(destination)
        above = os.path.dirname(os.path.normpath(destination))
        if not os.path.isdir(above):
            raise Failure(f'invalid output path: directory "{above}" does not exist')
    rebase = ""
    if options["follow-link"]:
        found = _stat(context, container, source)
        if found is not None and found["mode"] & _LINK:
            source, rebase = copying.rebase_name(source, _link_target(source, found["linkTarget"]))
    client = context.client()
    response = client.open("GET", api_path("container", container) + "/archive", {"path": source}).raise_for_status()
    if destination == "-":
        for piece in response.pieces():
            write_all(1, piece)
        return
    from binascii import a2b_base64

    from tsunagu.jsontext import loads

    found = loads(a2b_base64(response.headers["x-docker-container-path-stat"]))
    place = Place(source, True, bool(found["mode"] & _DIRECTORY), rebase)
    directory, rename = copying.plan(place, copying.destination_place(destination))
    counted = _Counted(response.pieces())
    copying.extract(counted, directory, rename)
    _tell(options, counted, destination)


def _copy_in(context: Context, options: Options, container: str, source: str, destination: str) -> None:
    place = Place(destination, False)
    found = _stat(context, container, destination)
    if found is not None and found["mode"] & _LINK:
        place = place._replace(path=_link_target(destination, found["linkTarget"]))
        found = _stat(context, container, place.path)
    if found is not None:
        if found["mode"] & _IRREGULAR:
            raise Failure(f'destination "{container}:{destination}" must be a directory or a regular file')
        place = place._replace(exists=True, is_directory=bool(found["mode"] & _DIRECTORY))
    pieces: Iterable[bytes]
    if source == "-":
        directory, pieces = place.path, _read_input()
        if not place.is_directory:
            raise Failure(f'destination "{container}:{destination}" must be a directory')
    else:
        origin = copying.source_place(_local(source), follows=options["follow-link"])
        directory, rename = copying.plan(origin, place)
        pieces = copying.pack(origin, rename)
    counted = _Counted(pieces)
    query: dict[str, str | int | list[str]] = {"path": directory, "noOverwriteDirNonDir": "true"}
    if options["archive"]:
        query["copyUIDGID"] = "true"
    target = api_path("container", container) + "/archive"
    client = context.client()
    client.open("PUT", target, query, upload=counted, content_type="application/x-tar").raise_for_status().read()
    _tell(options, counted, f"{container}:{place.path}")


def _read_input() -> Iterator[bytes]:
    while piece := posix.read(0, _PIECE):
        yield piece


CP = Command(
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\ttsunagu cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem",
    _cp,
    flags=_FLAGS,
    least=2,
    most=2,
)
