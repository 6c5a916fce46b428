"""Copies a directory of an image into a volume: everything with its owner, mode, times, links and attributes.

Neither side is trusted: an image may hold any tree, and a volume may be in use while it is filled. So every name is
opened below an open directory and never followed, and new files are made exclusively. May import kernel and model only.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH = 1000  # levels of directories, two descriptors each
_PIECE = 1 << 30


def copy_tree(source: int, target: int) -> None:
    """Copy what is in directory `source` into the empty directory `target` (descriptors), and its attributes.

    Raises OSError, ENAMETOOLONG for a tree deeper than 1000 levels.
    """
    links: dict[tuple[int, int], bytes] = {}
    first = os.open(".", _DIRECTORY, dir_fd=source)
    levels = [(first, os.open(".", _DIRECTORY, dir_fd=target), b"", _names(first))]
    try:
        while levels:
            here, there, path, names = levels[-1]
            name = next(names, None)
            if name is None:
                _copy_attributes(here, there)
                levels.pop()
                os.close(here)
                os.close(there)
                continue
            found = os.stat(name, dir_fd=here, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                if len(levels) == _DEPTH:
                    raise OSError(errno.ENAMETOOLONG, "directories are nested too deeply", os.fsdecode(path))
                os.mkdir(name, 0o700, dir_fd=there)
                below = os.open(name, _DIRECTORY, dir_fd=here)
                try:
                    made = os.open(name, _DIRECTORY, dir_fd=there)
                except OSError:
                    os.close(below)
                    raise
                levels.append((below, made, path + name + b"/", _names(below)))
            elif found.st_nlink > 1 and (known := links.get((found.st_dev, found.st_ino))) is not None:
                os.link(known, name, src_dir_fd=target, dst_dir_fd=there, follow_symlinks=False)
            else:
                _copy_one(here, there, name, found)
                if found.st_nlink > 1:
                    links[found.st_dev, found.st_ino] = path + name
    finally:
        for here, there, _, _ in levels:
            os.close(here)
            os.close(there)


def is_empty(directory: int) -> bool:
    """Tell whether an open directory (a readable descriptor) holds nothing."""
    with os.scandir(directory) as entries:
        return next(entries, None) is None


def _names(directory: int) -> Iterator[bytes]:
    return iter([os.fsencode(name) for name in os.listdir(directory)])


def _copy_one(here: int, there: int, name: bytes, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        source = os.open(name, _READ, dir_fd=here)
        try:
            made = os.open(name, _MAKE, 0o600, dir_fd=there)
            try:
                _copy_data(source, made)
                _copy_attributes(source, made)
            finally:
                os.close(made)
        finally:
            os.close(source)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=here), name, dir_fd=there)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=there, follow_symlinks=False)
        os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=there, follow_symlinks=False)
    else:
        os.mknod(name, stat.S_IFMT(found.st_mode) | 0o600, found.st_rdev, dir_fd=there)
        made = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=there)
        try:
            if stat.S_IFMT(os.fstat(made).st_mode) == stat.S_IFMT(found.st_mode):
                # fchmod(2) refuses descriptors of O_PATH; the magic link names this very inode
                os.chown(f"/proc/self/fd/{made}", found.st_uid, found.st_gid)
                os.chmod(f"/proc/self/fd/{made}", stat.S_IMODE(found.st_mode))
        finally:
            os.close(made)


def _copy_data(source: int, made: int) -> None:
    try:
        while os.copy_file_range(source, made, _PIECE):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        while os.sendfile(made, source, None, _PIECE):  # file systems that cannot copy from each other
            pass


def _copy_attributes(source: int, made: int) -> None:
    """Owner first: changing it takes set-user-id bits and file capabilities away."""
    found = os.fstat(source)
    os.fchown(made, found.st_uid, found.st_gid)
    for key in os.listxattr(source):
        if not key.startswith(("trusted.overlay.", "security.selinux")):
            with suppress(OSError) if key.startswith("user.") else _tolerated():
                os.setxattr(made, key, os.getxattr(source, key))
    os.fchmod(made, stat.S_IMODE(found.st_mode))
    os.utime(made, ns=(found.st_atime_ns, found.st_mtime_ns))


class _tolerated:
    """Context manager: a file system that has no extended attributes is no failure."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        return isinstance(error, OSError) and error.errno == errno.EOPNOTSUPP
