"""Give up everything that a process which parses packets from containers does not need. Linux, by ctypes.

Order matters: what needs root first. Every step must succeed, else OSError and the process ends: it fails closed.
"""

from __future__ import annotations

import ctypes
import os
import resource

from . import seccomp

NOBODY = 65534
_PR_SET_DUMPABLE, _PR_SET_NAME, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 15, 24, 38
_ADDRESS_SPACE = 2 << 30
_LOG_SIZE = 64 << 20


def drop(empty_directory: str) -> None:
    """Become nobody inside an empty root directory, with no way back. Raises OSError.

    Not root already (a test without privileges): only the steps that need none are done.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 1 << 16), hard))
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, _LOG_SIZE)
    _limit(resource.RLIMIT_AS, _ADDRESS_SPACE)
    if os.geteuid() == 0:
        os.chroot(empty_directory)
        os.chdir("/")
        for capability in range(64):
            if _prctl(_PR_CAPBSET_DROP, capability, may_fail=True) < 0:
                break  # past the last capability of this kernel
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)  # clears every capability set (capabilities(7))
    else:
        os.chdir("/")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    _limit(resource.RLIMIT_NPROC, 0)
    seccomp.apply()


def name_process(name: str) -> None:
    """Set the name that ps and top show, at most 15 characters."""
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int, *, may_fail: bool = False) -> int:
    result: int = _libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0)
    if result < 0 and not may_fail:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl {option}: {os.strerror(error)}")
    return result
