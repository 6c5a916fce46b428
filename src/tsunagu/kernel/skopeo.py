"""Runs skopeo, which speaks with registries. May import model; never decides what to ask or what it means."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from tsunagu.model.errors import Unavailable


class SkopeoFailed(Exception):
    """Skopeo ended with an error; the text is all that it wrote to standard error."""


@contextmanager
def credentials(path: str, content: bytes) -> Iterator[str]:
    """Keep an authentication file, readable by root only, at `path` for the time of a with block."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        yield path
    finally:
        os.unlink(path)


async def run(arguments: Sequence[str]) -> bytes:
    """Return what skopeo prints. It is killed when the caller goes away. Raises SkopeoFailed and Unavailable."""
    program = shutil.which("skopeo")
    if program is None:
        raise Unavailable("the program skopeo is missing", hint="install it with: apt-get install skopeo")
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise SkopeoFailed(errors.decode(errors="replace"))
    return output
