"""What a hijacked client connection looks like to a service: bytes in, bytes out, half-close."""

from __future__ import annotations

from typing import Protocol


class Duplex(Protocol):
    """A two-way byte stream. Made by `api` (after 101 or Docker's raw 200), used by `services.streams`."""

    async def read(self) -> bytes:
        """Return the next bytes from the client; b"" once the client has half-closed or gone away."""

    async def write(self, data: bytes) -> None:
        """Send bytes, waiting while the client is slow; raises ConnectionError once it has gone away."""

    async def close(self) -> None:
        """Flush what was written and close both directions. Safe to call twice."""
