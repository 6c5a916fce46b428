"""Small files known by their SHA-256: image configurations. One file each under `<root>/blobs/sha256`.

May import `model.errors` only. A blob appears by one rename, so that it is whole or absent; it must never be changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import suppress

from tsunagu.model.errors import KernelFailure

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of(data: bytes) -> str:
    """Return `sha256:<hex>` of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Blobs:
    """The files under `root`/blobs; `root` is the engine's data directory."""

    def __init__(self, root: str) -> None:
        self._path = f"{root}/blobs/sha256"

    def open(self) -> None:
        """Make the directory and remove what a crash left half written."""
        os.makedirs(self._path, mode=0o700, exist_ok=True)
        for name in os.listdir(self._path):
            if name.startswith("new-"):
                os.unlink(f"{self._path}/{name}")

    def put(self, data: bytes) -> str:
        """Store `data` and return its digest. Storing the same data again changes nothing."""
        digest = digest_of(data)
        path = self._file(digest)
        if os.path.exists(path):
            return digest
        fresh = f"{self._path}/new-{secrets.token_hex(8)}"
        try:
            with open(fresh, "xb") as file:
                file.write(data)
            os.rename(fresh, path)
        except OSError as error:
            with suppress(OSError):
                os.unlink(fresh)
            raise KernelFailure(f"cannot store {digest}: {error.strerror}") from error
        return digest

    def get(self, digest: str) -> bytes:
        """Return a blob, verified. Raises KernelFailure when it is missing or damaged."""
        try:
            with open(self._file(digest), "rb") as file:
                data = file.read()
        except OSError as error:
            raise KernelFailure(f"cannot read {digest}: {error.strerror}") from error
        if digest_of(data) != digest:
            raise KernelFailure(f"{self._file(digest)} is damaged: its digest is {digest_of(data)}")
        return data

    def remove(self, digest: str) -> None:
        """Remove a blob; no error when it is gone."""
        with suppress(FileNotFoundError):
            os.unlink(self._file(digest))

    def all(self) -> set[str]:
        """Return the digests of all blobs."""
        return {f"sha256:{name}" for name in os.listdir(self._path) if _DIGEST.fullmatch(f"sha256:{name}")}

    def _file(self, digest: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise KernelFailure(f"invalid digest {digest[:100]!r}")
        return f"{self._path}/{digest.removeprefix('sha256:')}"
