"""System calls that Python 3.11 has no function for, for files and mounts: openat2, mount, umount2, unshare(CLONE_FS).

May import nothing of ours. Must never decide anything: each function is one call and raises OSError as the kernel says.
"""

from __future__ import annotations

import ctypes
import errno
import os

CLONE_FS = 0x200
CLONE_NEWNS = 0x20000
MS_RDONLY = 1
MS_REMOUNT = 32
MS_REC = 16384
MS_NODEV = 4
MS_BIND = 4096
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

MS_REC = 1 << 14
MS_RDONLY = 1
MS_REMOUNT = 32
RESOLVE_BENEATH = 0x08

_OPENAT2 = 437  # the same number on every architecture (include/uapi/asm-generic/unistd.h)
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW_SIZE = ctypes.c_size_t(ctypes.sizeof(_OpenHow))


def open_in_root(
    root: int, path: bytes, flags: int, mode: int = 0, resolve: int = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS
) -> int:
    """Open `path` as if directory `root` (a descriptor) were "/": no `..`, absolute name or symlink leads out of it.

    Raises OSError as open(2) does (openat2(2), Linux 5.6).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(64):
        found = _libc.syscall(_OPENAT2, root, path or b".", ctypes.byref(how), _HOW_SIZE)
        if found >= 0:
            return int(found)
        number = ctypes.get_errno()
        # EAGAIN: a rename anywhere on the host raced with the resolution of "..", the kernel asks to try again.
        if number not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number), os.fsdecode(path))
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), os.fsdecode(path))


def open_beneath(root: int, path: bytes, flags: int) -> int:
    """Open `path` below directory `root`; a `..`, absolute name or symlink that would lead out of it raises EXDEV."""
    return open_in_root(root, path, flags, resolve=RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    if _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(options)
    ):
        _fail(target)


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2); never follows a symlink."""
    if _libc.umount2(os.fsencode(target), flags | UMOUNT_NOFOLLOW):
        _fail(target)


def leave_shared_directory() -> None:
    """Give the calling thread its own working directory and umask: unshare(CLONE_FS)."""
    if _libc.unshare(CLONE_FS):
        _fail("unshare")


def leave_shared_mounts() -> None:
    """Give the calling thread a mount namespace of its own, for good: unshare(CLONE_NEWNS)."""
    if _libc.unshare(CLONE_NEWNS):
        _fail("unshare")


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), what)
