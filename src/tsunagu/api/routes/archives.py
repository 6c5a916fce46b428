"""`/containers/{name}/archive`, `/export`, `/changes`: files of containers out and in, and what changed."""

from __future__ import annotations

import base64
import os
import stat

import msgspec

from tsunagu.api.request import STANDARD, Headers, Request, Response, empty_response, json_response
from tsunagu.api.router import Route
from tsunagu.api.views import rfc3339
from tsunagu.model.files import Stat

_TAR = b"application/x-tar"
_EPOCH = "1970-01-01T00:00:00Z"
_STAT_HEADER = b"X-Docker-Container-Path-Stat"
# Bits of Go's io/fs.FileMode, which is how Docker writes modes.
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


def go_mode(mode: int) -> int:
    """Return a file's mode as Go numbers it."""
    found = stat.S_IMODE(mode) & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0)
    for bit, go_bit in _GO_BITS:
        if mode & bit:
            found |= go_bit
    return found


def _stat_headers(path: str, found: Stat) -> Headers:
    value = msgspec.json.encode(
        {
            "name": os.path.basename(path.rstrip("/")) or "/",
            "size": found.size,
            "mode": go_mode(found.mode),
            "mtime": rfc3339(found.mtime_ns) if found.mtime_ns else _EPOCH,
            "linkTarget": found.target,
        }
    )
    return ((_STAT_HEADER, base64.b64encode(value)),)


async def describe(request: Request) -> Response:
    path = request.text("path")
    found = await request.app.archives.stat(request.words["word"], path)
    return Response(200, (*STANDARD, *_stat_headers(path, found)), b"")


async def copy_out(request: Request) -> None:
    path = request.text("path")
    async with request.app.archives.copy_out(request.words["word"], path) as (found, pieces):
        first = await anext(pieces)  # a file that has just gone is an HTTP status
        request.stream(_TAR, extra=_stat_headers(path, found))
        await request.write(first)
        async for piece in pieces:
            await request.write(piece)


async def copy_in(request: Request) -> Response:
    await request.app.archives.copy_in(
        request.words["word"],
        request.text("path"),
        request.chunks(),
        keeps_kinds=request.flag("noOverwriteDirNonDir"),
        takes_user=request.flag("copyUIDGID"),
    )
    return empty_response(200)


async def export(request: Request) -> None:
    async with request.app.archives.export(request.words["word"]) as pieces:
        request.stream(b"application/octet-stream")
        async for piece in pieces:
            await request.write(piece)


async def changes(request: Request) -> Response:
    found = await request.app.archives.changes(request.words["word"])
    return json_response([{"Path": change.path, "Kind": change.kind} for change in found])


ROUTES = (
    Route("HEAD", "/containers/{word}/archive", describe),
    Route("GET", "/containers/{word}/archive", copy_out, is_cancellable=True),
    Route("PUT", "/containers/{word}/archive", copy_in),
    Route("GET", "/containers/{word}/export", export, is_cancellable=True),
    Route("GET", "/containers/{word}/changes", changes),
)
