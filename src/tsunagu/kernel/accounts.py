"""Who a container's process is: `user[:group]` resolved in the container's own /etc/passwd and /etc/group.

Everything here reads or makes paths inside a root that an untrusted image filled, so every path is opened with
openat2(2) RESOLVE_IN_ROOT: a symlink in the image never leads out of it. Sizes and numbers are bounded (CVE-2026-46680,
CVE-2024-40635). May import model; must never open a path of the container by name.
"""

from __future__ import annotations

import ctypes
import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence

from tsunagu.model.errors import InvalidParameter, KernelFailure
from tsunagu.model.process import Account

__all__ = ["Account", "make_directory", "open_inside", "resolve_user"]

FILE_LIMIT = 4 << 20  # bytes of passwd or group that are read; a larger file is refused
LINE_LIMIT = 64 << 10
GROUPS_LIMIT = 65536  # NGROUPS_MAX
ID_LIMIT = 2**31 - 1  # Docker's own bound; 2**32 - 1 means "no change" to setuid(2)

_OPENAT2 = 437  # the same number on every architecture (include/uapi/asm-generic/unistd.h)
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def resolve_user(rootfs: str, user: str, group_add: Sequence[str] = ()) -> Account:
    """Return the account that Docker's `user` text means in this root: "", "name", "uid", "name:group", "uid:gid".

    Groups of the user in /etc/group are taken unless a group was given; the primary group and `group_add` (names or
    numbers) always are. A number need not exist in the files. Raises InvalidParameter in Docker's words.
    """
    name, separator, group = user.partition(":")
    uid, gid, home, login = 0, 0, "/", ""
    entry = _find_user(rootfs, name or "0")
    number = _number(name)
    if entry is not None:
        login, uid, gid, home = entry
    elif number is not None or not name:
        uid = number or 0
    else:
        raise InvalidParameter(f"unable to find user {name}: no matching entries in passwd file")
    groups: set[int] = set()
    if separator and group:
        found = _group_id(rootfs, group)
        if found is None:
            raise InvalidParameter(f"unable to find group {group}: no matching entries in group file")
        gid = found
    elif login:
        groups = {found for found, members in ((g, m) for _, g, m in _groups(rootfs)) if login in members}
    for extra in group_add:
        found = _group_id(rootfs, extra)
        if found is None:
            raise InvalidParameter(f"Unable to find group {extra}: no matching entries in group file")
        groups.add(found)
    groups.add(gid)
    if len(groups) > GROUPS_LIMIT:
        raise InvalidParameter(f"user {user} is in more than {GROUPS_LIMIT} groups")
    return Account(uid=uid, gid=gid, groups=tuple(sorted(groups)), home=home or "/")


def _number(text: str) -> int | None:
    """Return the id a text is, None when it is a name; raises InvalidParameter when it is out of range."""
    bare = text.removeprefix("-")
    if not (bare.isascii() and bare.isdigit()):
        return None
    if text.startswith("-") or len(bare) > 10 or int(bare) > ID_LIMIT:
        raise InvalidParameter(f"uids and gids must be in range 0-{ID_LIMIT}", hint=f"{text[:32]} is not")
    return int(bare)


def _find_user(rootfs: str, word: str) -> tuple[str, int, int, str] | None:
    """Return (name, uid, gid, home) of the first entry of that name; of that uid, if the word is a number."""
    number = _number(word)
    for fields in _entries(rootfs, "/etc/passwd", 4):
        uid, gid = _field(fields[2]), _field(fields[3])
        if uid is None or gid is None:
            continue  # a broken line is nobody
        if fields[0] == word or (number is not None and uid == number):
            return fields[0], uid, gid, fields[5] if len(fields) > 5 else ""
    return None


def _group_id(rootfs: str, word: str) -> int | None:
    for name, gid, _ in _groups(rootfs):
        if name == word:
            return gid
    return _number(word)


def _groups(rootfs: str) -> Iterator[tuple[str, int, list[str]]]:
    for fields in _entries(rootfs, "/etc/group", 3):
        gid = _field(fields[2])
        if gid is not None:
            yield fields[0], gid, fields[3].split(",") if len(fields) > 3 else []


def _field(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    return int(text) if int(text) <= ID_LIMIT else None


def _entries(rootfs: str, path: str, count: int) -> Iterator[list[str]]:
    """Yield the fields of each line of passwd(5) or group(5) that has at least `count`; nothing without the file."""
    try:
        fd = open_inside(rootfs, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
            return
        raise KernelFailure(f"cannot read {path} of the container: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):  # a fifo would hang, a device never end
            raise InvalidParameter(f"{path} of the image is not a regular file")
        if info.st_size > FILE_LIMIT:
            raise InvalidParameter(f"{path} of the image is larger than {FILE_LIMIT} bytes")
        for line in file.read(FILE_LIMIT).split(b"\n"):
            fields = line.decode(errors="replace").strip().split(":") if len(line) <= LINE_LIMIT else []
            if len(fields) >= count and fields[0] and not fields[0].startswith("#"):
                yield fields


# ---- paths inside a root


def open_inside(rootfs: str, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` as a process whose root is `rootfs` would see it; returns a file descriptor (close-on-exec).

    Raises OSError as open(2); never leaves the root (openat2(2), Linux 5.6).
    """
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _openat2(root, path, flags, mode)
    finally:
        os.close(root)


def _openat2(root: int, path: str, flags: int, mode: int = 0) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    while True:
        result = int(_libc.syscall(_OPENAT2, root, encoded, ctypes.byref(how), ctypes.sizeof(how)))
        if result >= 0:
            return result
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):  # EAGAIN: a rename raced with the look-up of ".."
            raise OSError(code, os.strerror(code), path)


def make_directory(rootfs: str, path: str, *, uid: int = 0, gid: int = 0) -> None:
    """Make the working directory `path` inside the root if it is missing, with its parents (mode 0755), as Docker does.

    Raises InvalidParameter when something that is no directory is in the way.
    """
    parts = [part for part in posixpath.normpath(f"/{path}").split("/") if part]
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    current = os.dup(root)
    try:
        for number, part in enumerate(parts):
            inside = "/" + "/".join(parts[: number + 1])
            try:
                following = _openat2(root, inside, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                # `current` is inside the root, and mkdir does not follow a symlink at the end of its path.
                try:
                    os.mkdir(part, 0o755, dir_fd=current)
                    os.chown(part, uid, gid, dir_fd=current, follow_symlinks=False)
                except FileExistsError:
                    raise _not_a_directory(path) from None  # a symlink that leads nowhere
                following = _openat2(root, inside, os.O_PATH | os.O_DIRECTORY)
            except NotADirectoryError:
                raise _not_a_directory(path) from None
            os.close(current)
            current = following
    except OSError as error:
        raise KernelFailure(f"cannot make the working directory {path}: {error.strerror}") from error
    finally:
        os.close(current)
        os.close(root)


def _not_a_directory(path: str) -> InvalidParameter:
    return InvalidParameter(f"Cannot mkdir: {path} is not a directory")
