"""Extracts an archive into a container's root file system (`cp`), where things are already and others may write.

Unlike a layer, an archive is laid over what is there: directories are merged, other files replaced, whiteouts are
ordinary names. Every path is resolved inside the container's root by openat2(2), also through symlinks that the
container made or makes meanwhile; nothing of the container is executed or loaded (CVE-2018-15664, CVE-2019-14271,
CVE-2026-41567). May import kernel and model.errors; must never run on the event loop's thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from tsunagu.model.errors import InvalidParameter

from . import tarstream
from .syscalls import open_in_root
from .tarstream import Entry, TarStream
from .unpack import Unpacked, Unpacker


class _Nothing:
    """The recorder of an archive that nobody wants back."""

    def raw(self, data: bytes) -> None:
        pass

    def file(self, path: bytes, size: int) -> None:
        pass


class Extractor(Unpacker):
    """Lays entries over directory `place` (absolute, resolved) of the root. One use, one thread."""

    doing = "copying to the container"

    def __init__(
        self,
        root: int,
        place: bytes,
        stream: TarStream,
        *,
        owner: tuple[int, int] | None,
        keeps_kinds: bool,
    ) -> None:
        super().__init__(root, stream, _Nothing())
        self._place = place.strip(b"/")
        self._owner = owner
        self._keeps_kinds = keeps_kinds

    def _add(self, entry: Entry) -> None:
        inside = self._clean(entry.name)
        if not inside:
            self._stream.skip()  # the place itself stays as it is
            return
        if self._owner is not None:
            entry = replace(entry, uid=self._owner[0], gid=self._owner[1])
        if entry.kind == tarstream.HARD_LINK:
            entry.link = self._inside(self._clean(entry.link))
        path = self._inside(inside)
        parent_path, _, name = path.rpartition(b"/")
        self._check_kind(path, parent_path, name, entry.kind == tarstream.DIRECTORY)
        self._add_node(path, self._open_parent(parent_path), name, entry)

    def _inside(self, path: bytes) -> bytes:
        return self._place + b"/" + path if self._place else path

    def _check_kind(self, path: bytes, parent_path: bytes, name: bytes, is_directory: bool) -> None:
        """Refuse to put a file in a directory's place, or a directory in a file's, when the client asked for that."""
        if not self._keeps_kinds:
            return
        with suppress(FileNotFoundError, NotADirectoryError):
            parent = open_in_root(self._root, parent_path, os.O_PATH | os.O_DIRECTORY)
            try:
                was_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
            finally:
                os.close(parent)
            if was_directory != is_directory:
                old, new = ("directory", "non-directory") if was_directory else ("non-directory", "directory")
                place = tarstream.printable(b"/" + self._place)
                raise InvalidParameter(
                    f'cannot overwrite {old} "{tarstream.printable(b"/" + path)}" with {new} "{place}"'
                )

    def _make_room(self, path: bytes, parent: int, name: bytes, for_directory: bool) -> bool:
        super()._make_room(path, parent, name, for_directory)
        return False  # a whiteout below an overlay is never seen

    def _step(self, path: bytes, parent: int, name: bytes) -> int:
        found = super()._step(path, parent, name)
        self._times.pop(path, None)  # a directory that nobody described is of now
        return found


def extract(
    root: int,
    place: bytes,
    read: Callable[[int], bytes],
    *,
    owner: tuple[int, int] | None = None,
    keeps_kinds: bool = False,
) -> Unpacked:
    """Extract the uncompressed tar that `read` gives at `place` of the open directory `root`.

    `owner` (uid, gid) replaces the archive's owners. With `keeps_kinds` a directory is never replaced by anything else,
    nor anything else by a directory. Raises InvalidParameter, KernelFailure.
    """
    stream = TarStream(read, what="the archive")
    return Extractor(root, place, stream, owner=owner, keeps_kinds=keeps_kinds).run()
