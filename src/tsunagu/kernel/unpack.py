"""Unpacks one image layer into an overlayfs directory, trusting nothing in it.

Every path is resolved by openat2(2) RESOLVE_IN_ROOT relative to the layer's own directory, so that `..`, absolute names
and symlinks of the archive never lead outside; the last component is never followed. Whiteouts become what overlayfs
reads: `.wh.name` a character device 0/0, `.wh..wh..opq` the attribute trusted.overlay.opaque (OCI image-spec "Layer
Filesystem Changeset", kernel Documentation/filesystems/overlayfs.rst). May import kernel and model.errors; must never
touch a path outside the directory it is given, and never run on the event loop's thread.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from tsunagu.model.errors import InvalidParameter, KernelFailure

from . import tarstream
from .syscalls import open_in_root
from .tarstream import Entry, TarStream
from .trees import remove_tree_at

MAX_ENTRIES = 2_000_000
OPAQUE = "trusted.overlay.opaque"
WHITEOUT = b".wh."
OPAQUE_MARK = b".wh..wh..opq"
_AUFS_MARK = b".wh..wh."
_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Attributes of the archive that are set. trusted.overlay.* would let an image steer overlayfs itself; labels and
# signatures of the packer's machine (security.selinux, security.ima) mean nothing here.
_XATTRS = (b"user.", b"security.capability", b"system.posix_acl_")
_REFUSALS = {
    errno.ENAMETOOLONG: "its name is too long",
    errno.ENOTDIR: "a file stands where it needs a directory",
    errno.ELOOP: "its path runs in circles",
    errno.EFBIG: "it is larger than a file can be",
    errno.EINVAL: "the file system refuses its name or attributes",
    errno.EILSEQ: "the file system refuses its name",
    errno.EMLINK: "it has too many links",
}


class Recorder(Protocol):
    """Where the parts of the tar that are not in the directory go, so that the tar can be rebuilt."""

    def raw(self, data: bytes) -> None: ...

    def file(self, path: bytes, size: int) -> None: ...


class Unpacked(msgspec.Struct):
    """What a layer held. `size` is the length of its files; `is_exact` says that every file recorded is still there."""

    size: int = 0
    entries: int = 0
    devices: int = 0
    implied: list[bytes] = msgspec.field(default_factory=list)  # directories no entry describes; b"" is the root
    is_exact: bool = True


class Unpacker:
    """Writes entries below the open directory `root`. One use, one thread."""

    doing = "unpacking a layer"  # for errors

    def __init__(self, root: int, stream: TarStream, recorder: Recorder) -> None:
        self._root = root
        self._stream = stream
        self._recorder = recorder
        self._made = Unpacked()
        self._implied: dict[bytes, None] = {b"": None}
        self._times: dict[bytes, int] = {}  # directories' times are set last: writing into them changes them
        self._parent_path: bytes | None = None
        self._parent = -1

    def run(self) -> Unpacked:
        """Unpack everything. Raises InvalidParameter for a bad archive, KernelFailure when the disk fails."""
        entry: Entry | None = None
        try:
            while (entry := self._stream.next()) is not None:
                self._made.entries += 1
                if self._made.entries > MAX_ENTRIES:
                    raise self._stream.fail(f"more than {MAX_ENTRIES} entries")
                self._add(entry)
            for path, when in reversed(self._times.items()):
                self._set_directory_time(path, when)
        except OSError as error:
            where = f" at {tarstream.printable(entry.name)}" if entry else ""
            if error.errno in _REFUSALS:
                raise self._stream.fail(_REFUSALS[error.errno]) from error
            hint = "free some space and try again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            raise KernelFailure(f"{self.doing} failed{where}: {error.strerror}", hint=hint) from error
        finally:
            self._forget_parent()
        self._made.implied = list(self._implied)
        return self._made

    # ---- one entry

    def _add(self, entry: Entry) -> None:
        path = self._clean(entry.name)
        if not path:
            if entry.kind != tarstream.DIRECTORY:
                raise self._stream.fail("the root of a layer must be a directory")
            self._describe_directory(b"", self._root, entry)
            return
        parent_path, _, name = path.rpartition(b"/")
        if name != OPAQUE_MARK and (name.startswith(_AUFS_MARK) or path.startswith(_AUFS_MARK)):
            self._stream.skip()  # bookkeeping of aufs, which Docker skips too
            return
        parent = self._open_parent(parent_path)
        if name == OPAQUE_MARK:
            os.setxattr(f"/proc/self/fd/{parent}", OPAQUE, b"y")
            self._stream.skip()
        elif name.startswith(WHITEOUT):
            self._add_whiteout(parent, name[len(WHITEOUT) :])
            self._stream.skip()
        else:
            self._add_node(path, parent, name, entry)

    def _add_whiteout(self, parent: int, name: bytes) -> None:
        if name in (b"", b".", b".."):
            raise self._stream.fail("a whiteout of nothing")
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # A whiteout hides what lower layers have, not what this one brings (image-spec): a directory of this layer
            # stays and stops showing the lower one's content, anything else hides it already.
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                self._make_opaque(parent, name)

    def _add_node(self, path: bytes, parent: int, name: bytes, entry: Entry) -> None:
        was_whiteout = self._make_room(path, parent, name, entry.kind == tarstream.DIRECTORY)
        match entry.kind:
            case tarstream.DIRECTORY:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=parent)
                self._implied.pop(path, None)
                directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                try:
                    self._describe_directory(path, directory, entry)
                finally:
                    os.close(directory)
                if was_whiteout:
                    self._make_opaque(parent, name)
                return
            case tarstream.FILE:
                self._add_file(path, parent, name, entry)
                return
            case tarstream.HARD_LINK:
                self._add_link(parent, name, entry)
                return
            case tarstream.SYMLINK:
                if not entry.link:
                    raise self._stream.fail("a symbolic link to nothing")
                os.symlink(entry.link, name, dir_fd=parent)
            case tarstream.FIFO:
                os.mkfifo(name, 0o600, dir_fd=parent)
            case tarstream.CHAR | tarstream.BLOCK_DEVICE:
                kind = stat.S_IFCHR if entry.kind == tarstream.CHAR else stat.S_IFBLK
                if entry.major >= 1 << 12 or entry.minor >= 1 << 20:
                    raise self._stream.fail("its device number does not exist")
                os.mknod(name, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
                self._made.devices += 1
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind != tarstream.SYMLINK:
            _chmod(parent, name, entry.mode)
        self._set_xattrs(f"/proc/self/fd/{parent}/".encode() + name, entry, follow=False)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _add_file(self, path: bytes, parent: int, name: bytes, entry: Entry) -> None:
        fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            if entry.fragments is None:
                if entry.size:
                    self._recorder.file(path, entry.size)  # before the content's padding goes to the tap
                for piece in self._stream.content():
                    _write(fd, piece)
            else:
                self._write_sparse(fd, entry)
            # chown first: it clears set-user-id bits and capabilities.
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            self._set_xattrs(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self._made.size += entry.size

    def _write_sparse(self, fd: int, entry: Entry) -> None:
        os.ftruncate(fd, entry.size)
        fragments = iter(entry.fragments or ())
        at = left = 0
        for whole in self._stream.content(is_tapped=True):
            piece = whole
            while piece:
                while not left:
                    at, left = next(fragments)
                os.lseek(fd, at, os.SEEK_SET)
                part = piece[:left]
                _write(fd, part)
                piece = piece[len(part) :]
                at, left = at + len(part), left - len(part)

    def _add_link(self, parent: int, name: bytes, entry: Entry) -> None:
        target = self._clean(entry.link)
        if not target:
            raise self._stream.fail("a hard link to a directory")
        target_parent, _, target_name = target.rpartition(b"/")
        try:
            directory = open_in_root(self._root, target_parent, _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing_target(entry) from None
        try:
            found = os.stat(target_name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                raise self._stream.fail("a hard link to a directory")
            os.link(target_name, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise self._missing_target(entry) from None
        finally:
            os.close(directory)

    def _missing_target(self, entry: Entry) -> InvalidParameter:
        return self._stream.fail(f"a hard link to {tarstream.printable(entry.link)}, which this layer does not hold")

    # ---- places

    def _clean(self, name: bytes) -> bytes:
        """Return the path relative to the layer's root, without `.` and `..`; refuse one that leaves it."""
        parts: list[bytes] = []
        for part in name.split(b"/"):
            if part == b"..":
                if not parts:
                    raise self._stream.fail("its path leads out of the image")
                parts.pop()
            elif part not in (b"", b"."):
                parts.append(part)
        return b"/".join(parts)

    def _open_parent(self, path: bytes) -> int:
        """Return a descriptor of directory `path`, which is made when missing; kept for the next entry."""
        if path == self._parent_path:
            return self._parent
        self._forget_parent()
        self._parent = self._ensure(path)
        self._parent_path = path
        return self._parent

    def _forget_parent(self) -> None:
        if self._parent_path is not None:
            os.close(self._parent)
            self._parent_path = None

    def _ensure(self, path: bytes) -> int:
        """Open directory `path`, making what is missing of it."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return open_in_root(self._root, path, _DIRECTORY)
        parts = path.split(b"/")
        parent = open_in_root(self._root, b"", _DIRECTORY)
        for depth, name in enumerate(parts, 1):
            here = b"/".join(parts[:depth])
            try:
                child = self._step(here, parent, name)
            finally:
                os.close(parent)
            parent = child
        return parent

    def _step(self, path: bytes, parent: int, name: bytes) -> int:
        """Open one directory of a path that no entry has described (yet), or make it.

        `complete_directories` gives it the attributes that it has in the layers below.
        """
        with suppress(FileNotFoundError, NotADirectoryError):
            return open_in_root(self._root, path, _DIRECTORY)
        with suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                raise self._stream.fail(f"its directory {tarstream.printable(path)} is a symbolic link to nothing")
            if not is_whiteout(found):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        was_whiteout = self._make_room(path, parent, name, True)
        os.mkdir(name, 0o755, dir_fd=parent)
        _chmod(parent, name, 0o755)
        if was_whiteout:
            self._make_opaque(parent, name)
        self._implied[path] = None
        self._times[path] = 0
        return open_in_root(self._root, path, _DIRECTORY)

    def _make_room(self, path: bytes, parent: int, name: bytes, for_directory: bool) -> bool:
        """Remove what an earlier entry of the same name left: the last one wins. Returns whether it was a whiteout."""
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(found.st_mode):
            if for_directory:
                return False
            self._made.is_exact = False
            remove_tree_at(parent, name)
            for known in [p for p in self._times if p == path or p.startswith(path + b"/")]:
                del self._times[known]
                self._implied.pop(known, None)
            return False
        if not is_whiteout(found):
            self._made.is_exact = False  # its content is gone, or a path that led through it leads elsewhere now
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            self._made.size -= found.st_size
        os.unlink(name, dir_fd=parent)
        return is_whiteout(found)

    # ---- attributes

    def _describe_directory(self, path: bytes, fd: int, entry: Entry) -> None:
        self._implied.pop(path, None)
        directory = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchown(directory, entry.uid, entry.gid)
            os.fchmod(directory, entry.mode)
            self._set_xattrs(directory, entry)
        finally:
            os.close(directory)
        self._times[path] = entry.mtime_ns
        self._stream.skip()

    def _set_xattrs(self, target: int | bytes, entry: Entry, *, follow: bool = True) -> None:
        for name, value in entry.xattrs.items():
            if not name.startswith(_XATTRS) or name.startswith(b"user.overlay."):
                continue
            try:
                os.setxattr(target, name, value, follow_symlinks=follow)
            except OSError as error:
                # user.* is not allowed on links and devices, and a file system may have no attributes at all
                if error.errno not in (errno.EPERM, errno.ENOTSUP):
                    raise

    def _make_opaque(self, parent: int, name: bytes) -> None:
        os.setxattr(f"/proc/self/fd/{parent}/".encode() + name, OPAQUE, b"y", follow_symlinks=False)

    def _set_directory_time(self, path: bytes, when: int) -> None:
        try:
            fd = open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return  # it was reached through a symlink that a later entry replaced
        try:
            os.utime(fd, ns=(when, when))
        finally:
            os.close(fd)


def unpack(root: int, read: Callable[[int], bytes], recorder: Recorder, *, what: str) -> Unpacked:
    """Unpack the tar that `read` gives into the open, empty directory `root`."""
    return Unpacker(root, TarStream(read, what=what, tap=recorder.raw), recorder).run()


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _chmod(parent: int, name: bytes, mode: int) -> None:
    """chmod(2) that follows no link: where a container runs, it may have put one in the name's place."""
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISLNK(os.fstat(handle).st_mode):
            os.chmod(f"/proc/self/fd/{handle}", mode)
    finally:
        os.close(handle)


def is_whiteout(found: os.stat_result) -> bool:
    """Say whether this is overlayfs's mark for a name that is deleted."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def complete_directories(root: int, implied: list[bytes], lowers: list[int]) -> None:
    """Give directories that a layer only implies the owner, mode, times and attributes of the layers below.

    In an overlay the topmost directory's attributes count, so a layer whose tar names `etc/x` but not `etc` would
    otherwise change /etc itself. `lowers` are open directories, nearest first.
    """
    for path in implied:
        source = _find_below(path, lowers)
        if source < 0:
            continue
        target = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            found = os.fstat(source)
            os.fchown(target, found.st_uid, found.st_gid)
            os.fchmod(target, stat.S_IMODE(found.st_mode))
            for name in os.listxattr(source):
                if not name.startswith("trusted.overlay."):
                    os.setxattr(target, name, os.getxattr(source, name))
            os.utime(target, ns=(found.st_mtime_ns, found.st_mtime_ns))
        finally:
            os.close(source)
            os.close(target)


def _find_below(path: bytes, lowers: list[int]) -> int:
    """Open directory `path` as the layers below show it; -1 when they show none."""
    for lower in lowers:
        with suppress(FileNotFoundError):
            if path and _is_hidden(lower, path):
                return -1
            return open_in_root(lower, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    return -1


def _is_hidden(lower: int, path: bytes) -> bool:
    """Say whether this layer ends the search: the path is there but no directory, or something above it was deleted.

    Raises FileNotFoundError when the layer says nothing about the path.
    """
    parts = path.split(b"/")
    is_cut = _is_opaque(lower, b"")
    for depth in range(1, len(parts) + 1):
        here = b"/".join(parts[:depth])
        try:
            fd = open_in_root(lower, here, os.O_PATH | os.O_NOFOLLOW)
        except FileNotFoundError:
            if is_cut:
                return True
            raise
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                return True
        finally:
            os.close(fd)
        is_cut = is_cut or _is_opaque(lower, here)
    return False


def _is_opaque(lower: int, path: bytes) -> bool:
    fd = open_in_root(lower, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return os.getxattr(fd, OPAQUE) == b"y"
    except OSError:
        return False
    finally:
        os.close(fd)
