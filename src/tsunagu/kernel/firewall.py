"""Apply an nft script to the network namespace of the calling thread, as one transaction; list what is there.

libnftables takes the same text as the `nft` program, without a process: 0.3 ms instead of 4. Where the library is
missing, `nft -f -` does the same. May import `model` and `descriptors`. Must never know what the rules mean, and must
never be given a script that names a table which is not ours.
"""

from __future__ import annotations

import ctypes
import subprocess
import threading
from contextlib import suppress
from functools import cache

from tsunagu.model.errors import KernelFailure

from .descriptors import LowNumbers

_LIBRARY = "libnftables.so.1"
_TIMEOUT = 60.0  # seconds; a whole table of thousands of rules takes a tenth of one

# libnftables keeps its list of interfaces and its parser tables in globals: one caller at a time
_one_at_a_time = threading.Lock()


def backend() -> str:
    """Return "libnftables" or "nft": what carries the rules into the kernel (for `system info`)."""
    return "libnftables" if _library() is not None else "nft"


def apply(script: str) -> None:
    """Run `script`; all of it or nothing takes effect. Raises KernelFailure with nft's own words."""
    library = _library()
    with _one_at_a_time:
        if library is None:
            _spawn(script)
        else:
            _call(library, script)


def listing(*blocks: str) -> str:
    """Return what nft lists of `blocks` ("ruleset", "table inet x", "chain inet x y"), counters included.

    A block that is not there is left out. Raises KernelFailure.
    """
    library = _library()
    found = []
    with _one_at_a_time:
        for block in blocks:
            script = f"list {block}\n"
            with suppress(_Absent):
                found.append(_spawn(script) if library is None else _call(library, script))
    return "\n".join(found)


class _Absent(KernelFailure):
    """What was to be listed is not there."""


def _call(library: ctypes.CDLL, script: str) -> str:
    # a context holds a netlink socket, and a socket stays in its namespace: one context per call
    with _low_numbers().lent() as has_low_number:
        context = library.nft_ctx_new(0) if has_low_number else None
    if not has_low_number:
        return _spawn(script)
    if not context:
        raise KernelFailure("nftables: no context (out of descriptors?)")
    try:
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_buffer_output(context)
        if library.nft_run_cmd_from_buffer(context, script.encode()):
            raise _refused(library.nft_ctx_get_error_buffer(context).decode(errors="replace"))
        return str(library.nft_ctx_get_output_buffer(context).decode(errors="replace"))
    finally:
        library.nft_ctx_free(context)


def _spawn(script: str) -> str:
    try:
        # a child starts in the namespace of the thread that forks it
        done = subprocess.run(
            ["nft", "-f", "-"], input=script, text=True, capture_output=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelFailure(
            f"nftables cannot be used: {error}", hint="install the packages libnftables1 and nftables"
        ) from error
    if done.returncode:
        raise _refused(done.stderr)
    return done.stdout


def _refused(words: str) -> KernelFailure:
    hint = ""
    if "\nlist " in words and "No such file" in words:
        return _Absent(words.strip())
    if "Operation not supported" in words or "No such file or directory" in words:
        hint = "the kernel may lack nf_tables support for this rule (modules nf_tables, nft_masq, nft_meta_bridge)"
    return KernelFailure(f"nftables refused the rules: {words.strip() or 'no reason given'}", hint=hint)


@cache
def _low_numbers() -> LowNumbers:
    return LowNumbers()


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    _low_numbers()  # now, while few descriptors are open
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    library.nft_ctx_buffer_output.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_output_buffer.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library
