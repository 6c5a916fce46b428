"""Writes directory trees as tar streams, piece by piece: for `cp`, `export` and `commit`.

The tree belongs to a container that may run and may be hostile: every directory is opened by openat2(2) RESOLVE_IN_ROOT
relative to the root, every name in it relative to that directory and without following it. A file that shrinks while it
is read is filled up with zeros, one that vanishes is left out. Headers are ustar, with PAX records where ustar is too
small; times are whole seconds, as Docker's are. May import kernel only; must never run on the event loop's thread.
"""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, NamedTuple

from .syscalls import open_in_root
from .tarstream import BLOCK, BLOCK_DEVICE, CHAR, DIRECTORY, FIFO, FILE, HARD_LINK, SYMLINK
from .unpack import OPAQUE, OPAQUE_MARK, WHITEOUT, is_whiteout

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger("tsunagu.pack")
END = bytes(2 * BLOCK)
_CHUNK = 1 << 20
_NAME_SIZE = 100  # bytes of a name in a ustar header
_MAX_ID = 0o7777777
_MAX_SIZE = 0o77777777777
_CAPABILITY = "security.capability"
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHAR,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}


class Node(NamedTuple):
    """One file as its header describes it. `link` is the target of a symbolic or hard link."""

    name: bytes
    kind: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    capability: bytes = b""


def header(node: Node) -> bytes:
    """Return the header blocks of one member (POSIX.1-2017 "pax Interchange Format")."""
    records: list[bytes] = []
    name = _short(node.name, b"path", records)
    link = _short(node.link, b"linkpath", records)
    uid, gid = _small(node.uid, _MAX_ID, b"uid", records), _small(node.gid, _MAX_ID, b"gid", records)
    size = _small(node.size, _MAX_SIZE, b"size", records)
    mtime = _small(node.mtime, _MAX_SIZE, b"mtime", records)
    if node.capability:
        records.append(_record(b"SCHILY.xattr.security.capability", node.capability))
    major, minor = node.device
    block = _block(name, node.kind, node.mode, uid, gid, size, mtime, link, major, minor)
    if not records:
        return block
    body = b"".join(records)
    return (
        _block(b"PaxHeaders.0/" + name[:80], b"x", 0o644, 0, 0, len(body), 0, b"", 0, 0)
        + body
        + bytes(-len(body) % BLOCK)
        + block
    )


def _short(text: bytes, key: bytes, records: list[bytes]) -> bytes:
    if len(text) <= _NAME_SIZE and text.isascii():
        return text
    records.append(_record(key, text))
    return text[:_NAME_SIZE]


def _small(value: int, most: int, key: bytes, records: list[bytes]) -> int:
    if 0 <= value <= most:
        return value
    records.append(_record(key, b"%d" % value))
    return 0


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`; the length counts its own digits."""
    rest = len(key) + len(value) + 3
    size = rest + len(str(rest))
    size = rest + len(str(size))
    return b"%d %b=%b\n" % (size, key, value)


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    link: bytes,
    major: int,
    minor: int,
) -> bytes:
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%bustar\00000%b%07o\0%07o\0" % (
        name.ljust(100, b"\0"), mode, uid, gid, size, mtime, kind, link.ljust(100, b"\0"), bytes(64), major, minor,
    )  # fmt: skip
    block = head.ljust(BLOCK, b"\0")
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])


class Packer:
    """Makes the members of one archive below the open directory `root`. One use, one thread.

    `is_layer`: the tree is the upper directory of an overlay, and its marks become those of image layers.
    `is_left_out` is asked for the path of each file before it goes in.
    """

    def __init__(
        self,
        root: int,
        *,
        is_layer: bool = False,
        is_left_out: Callable[[bytes, os.stat_result], bool] = lambda path, found: False,
    ) -> None:
        self._root = root
        self._is_layer = is_layer
        self._is_left_out = is_left_out
        self._linked: dict[tuple[int, int], bytes] = {}

    def tree(self, path: bytes, name: bytes, *, has_top: bool = True) -> Generator[bytes, None, None]:
        """Yield what is at `path` and below as members named `name` and `name/…`, sorted; the top itself is optional.

        `path` is relative to the root, its last part is not followed unless it ends in a slash. Raises OSError when it
        is not there.
        """
        found, descriptor = self._look(path)
        if descriptor < 0:
            above, _, base = path.rpartition(b"/")
            parent = open_in_root(self._root, above, _OPEN_DIRECTORY)
            try:
                yield from self._member(parent, base, path, name, found)
            finally:
                os.close(parent)
            return
        os.close(descriptor)
        if has_top:
            yield header(_node(name + b"/", found))
        waiting = [(path, name if has_top else b"")]
        while waiting:
            below, prefix = waiting.pop()
            inner: list[tuple[bytes, bytes]] = []
            yield from self._directory(below, prefix, inner)
            waiting += reversed(inner)

    def _look(self, path: bytes) -> tuple[os.stat_result, int]:
        """What is at the top, and an open descriptor when it is a directory."""
        handle = open_in_root(self._root, path, os.O_PATH | os.O_NOFOLLOW)
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            return found, handle
        os.close(handle)
        return found, -1

    def _directory(self, path: bytes, prefix: bytes, inner: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
        """Yield the members directly in `path`; directories among them are left in `inner`."""
        try:
            directory = open_in_root(self._root, path, _OPEN_DIRECTORY | (os.O_NOFOLLOW if path else 0))
        except (FileNotFoundError, NotADirectoryError):
            return  # it went while we were on our way
        try:
            if self._is_layer and path and _is_opaque(directory):
                yield header(Node(_join(prefix, OPAQUE_MARK), FILE, 0))
            for text in sorted(os.listdir(directory)):
                base = os.fsencode(text)
                here, name = _join(path, base), _join(prefix, base)
                try:
                    found = os.stat(base, dir_fd=directory, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if self._is_left_out(here, found):
                    continue
                if stat.S_ISDIR(found.st_mode):
                    inner.append((here, name))
                yield from self._member(directory, base, here, name, found)
        finally:
            os.close(directory)

    def _member(self, parent: int, base: bytes, path: bytes, name: bytes, found: os.stat_result) -> Iterator[bytes]:
        kind = _KINDS.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            log.debug("a socket is left out path=%s", os.fsdecode(path))  # tar has no form for it
            return
        if self._is_layer and is_whiteout(found):
            yield header(Node(_join(name.rpartition(b"/")[0], WHITEOUT + base), FILE, 0))
            return
        if kind == DIRECTORY:
            yield header(_node(name + b"/", found))
            return
        if found.st_nlink > 1:
            first = self._linked.setdefault((found.st_dev, found.st_ino), name)
            if first is not name:
                yield header(_node(name, found)._replace(kind=HARD_LINK, link=first, size=0))
                return
        if kind == FILE:
            yield from self._file(parent, base, name)
            return
        link = b""
        if kind == SYMLINK:
            try:
                link = os.readlink(base, dir_fd=parent)
            except OSError:
                return  # it became something else
        yield header(_node(name, found, link=link))

    def _file(self, parent: int, base: bytes, name: bytes) -> Iterator[bytes]:
        try:
            descriptor = os.open(base, _OPEN_FILE, dir_fd=parent)
        except OSError as error:
            if isinstance(error, PermissionError):
                raise
            return  # it went, or became a link or a socket
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return
            left = found.st_size
            yield header(_node(name, found, capability=_capability(descriptor)))
            while left:
                data = os.read(descriptor, min(left, _CHUNK))
                if not data:
                    break
                left -= len(data)
                yield data
            while left:  # cut short meanwhile: the header has promised more
                yield bytes(min(left, _CHUNK))
                left -= min(left, _CHUNK)
            if found.st_size % BLOCK:
                yield bytes(-found.st_size % BLOCK)
        finally:
            os.close(descriptor)


class LayerReader(io.RawIOBase):
    """The tar of what is at `paths` (relative, bytes) of an overlay's upper directory, as a file to read once."""

    def __init__(self, upper: str, paths: frozenset[bytes]) -> None:
        self._root = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        packer = Packer(self._root, is_layer=True, is_left_out=lambda path, _: path not in paths)
        self._pieces = packer.tree(b"", b"", has_top=False)
        self._rest = memoryview(b"")
        self._has_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        if not self._rest and not self._has_ended:
            piece = next(self._pieces, None)
            self._has_ended = piece is None
            self._rest = memoryview(END if piece is None else piece)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._pieces.close()
            os.close(self._root)
        super().close()


def _node(name: bytes, found: os.stat_result, *, link: bytes = b"", capability: bytes = b"") -> Node:
    kind = _KINDS[stat.S_IFMT(found.st_mode)]
    return Node(
        name=name,
        kind=kind,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        size=found.st_size if kind == FILE else 0,
        mtime=int(found.st_mtime // 1),
        link=link,
        device=(os.major(found.st_rdev), os.minor(found.st_rdev)) if kind in (CHAR, BLOCK_DEVICE) else (0, 0),
        capability=capability,
    )


def _capability(descriptor: int) -> bytes:
    try:
        return os.getxattr(descriptor, _CAPABILITY)
    except OSError:
        return b""


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, OPAQUE) == b"y"
    except OSError:
        return False


def _join(above: bytes, name: bytes) -> bytes:
    return above + b"/" + name if above else name
