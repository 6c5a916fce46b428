"""The system calls that the resolver may still make once it serves: a seccomp filter (seccomp(2), BPF by ctypes).

What is not on the list fails with EPERM: no file can be opened, nothing executed, no process or namespace made,
no memory
made executable, no socket but IPv4 and IPv6. Only for x86-64, whose numbers were tried; elsewhere `apply` says False.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_ARCH_X86_64 = 0xC000003E
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
_NUMBER, _ARCH, _FIRST, _SECOND, _THIRD = 0, 4, 16, 24, 32  # offsets in struct seccomp_data; arguments: lower halves
_PROT_EXEC = 4

# arch/x86/entry/syscalls/syscall_64.tbl
_CALLS = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "munmap": 11, "brk": 12, "rt_sigaction": 13,
    "rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32, "getpid": 39,
    "connect": 42, "accept": 43, "sendto": 44, "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "shutdown": 48,
    "getsockname": 51, "getpeername": 52, "setsockopt": 54, "getsockopt": 55, "exit": 60, "fcntl": 72,
    "gettimeofday": 96, "getuid": 102, "geteuid": 107, "sigaltstack": 131, "gettid": 186, "futex": 202,
    "restart_syscall": 219, "clock_gettime": 228, "clock_nanosleep": 230, "exit_group": 231, "epoll_wait": 232,
    "epoll_ctl": 233, "epoll_pwait": 281, "accept4": 288, "recvmmsg": 299, "sendmmsg": 307, "getrandom": 318,
}  # fmt: skip
_MMAP, _MPROTECT, _IOCTL, _SOCKET = 9, 10, 16, 41
_FIONBIO, _FIOCLEX = 0x5421, 0x5451
_AF_INET, _AF_INET6 = 2, 10


def apply() -> bool:
    """Install the filter for good; False on a machine it was not written for. Needs no_new_privs. Raises OSError."""
    if os.uname().machine != "x86_64" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    code = ctypes.create_string_buffer(_program())
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code.raw) // 8, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), filter_, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp filter")
    return True


def _program() -> bytes:
    """Return the BPF program. Each rule is self-contained: it returns, or goes on with the number loaded."""
    allow, deny = _step(_RETURN, _ALLOW), _step(_RETURN, _ERRNO | errno.EPERM)
    steps = [_step(_LOAD, _ARCH), _step(_EQUAL, _ARCH_X86_64, 1, 0), deny, _step(_LOAD, _NUMBER)]
    for number in _CALLS.values():
        steps += [_step(_EQUAL, number, 0, 1), allow]
    for number in (_MMAP, _MPROTECT):
        steps += [_step(_EQUAL, number, 0, 4), _step(_LOAD, _THIRD), _step(_ANY_BIT, _PROT_EXEC, 0, 1), deny, allow]
    for number, argument, values in (
        (_IOCTL, _SECOND, (_FIONBIO, _FIOCLEX)),
        (_SOCKET, _FIRST, (_AF_INET, _AF_INET6)),
    ):
        one, other = values
        steps += [
            _step(_EQUAL, number, 0, 5), _step(_LOAD, argument),
            _step(_EQUAL, one, 1, 0), _step(_EQUAL, other, 0, 1), allow, deny,
        ]  # fmt: skip
    return b"".join([*steps, deny])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one struct sock_filter; jumps count the steps that are left out."""
    return struct.pack("HBBI", code, if_true, if_false, value)
