"""Image references and what the engine knows about one image. No file is read here."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from .errors import InvalidParameter

DEFAULT_DOMAIN = "docker.io"
_DOMAIN = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9-]+)*(?::[0-9]+)?|\[[0-9a-fA-F:]+\](?::[0-9]+)?"
)
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,}")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")


class Reference(msgspec.Struct, frozen=True):
    """A normalised image reference. `name` is the familiar form (`nginx`, `localhost:5000/x`)."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The form that Docker prints: without `docker.io/` and `library/`."""
        if self.domain != DEFAULT_DOMAIN:
            return f"{self.domain}/{self.path}"
        return self.path.removeprefix("library/")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def parse_reference(text: str, *, default_tag: str = "latest") -> Reference:
    """Parse what a user typed (distribution's reference grammar); raises InvalidParameter in Docker's words.

    `default_tag` is used when neither tag nor digest is given; "" leaves it open.
    """
    if _ID.fullmatch(text) and ":" not in text:
        raise InvalidParameter(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    rest, _, digest = text.partition("@")
    if "@" in text and not _DIGEST.fullmatch(digest):
        raise InvalidParameter("invalid reference format")
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidParameter("invalid reference format")
    path = f"{head}{slash}{last}"
    domain = DEFAULT_DOMAIN
    first, slash, remainder = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        domain, path = first, remainder
        if not _DOMAIN.fullmatch(domain):
            raise InvalidParameter("invalid reference format")
        if domain == "index.docker.io":
            domain = DEFAULT_DOMAIN
    if path != path.lower():
        raise InvalidParameter(f"invalid reference format: repository name ({path}) must be lowercase")
    if not _PATH.fullmatch(path) or len(path) > 255:
        raise InvalidParameter("invalid reference format")
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    if not tag and not digest:
        tag = default_tag
    return Reference(domain, path, tag, digest)


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is present. `config` is the OCI image configuration as stored (its digest is the id)."""

    id: str  # sha256:<hex>
    config: dict[str, Any]
    diff_ids: tuple[str, ...]  # layer digests of the uncompressed tar, lowest first
    size: int = 0  # bytes of all layers, unpacked
    tags: tuple[str, ...] = ()  # familiar references with tag, sorted
    digests: tuple[str, ...] = ()  # name@sha256:…

    @property
    def run(self) -> dict[str, Any]:
        """The `config` section: Cmd, Entrypoint, Env, User, WorkingDir, Labels, ExposedPorts, …"""
        section = self.config.get("config")
        return section if isinstance(section, dict) else {}


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """Return the identity of each layer together with all layers below it (OCI image-spec, "Layer ChainID")."""
    return _chain_ids(tuple(diff_ids))


@functools.lru_cache(maxsize=1024)
def _chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    found: list[str] = []
    for diff_id in diff_ids:
        below = found[-1] if found else ""
        found.append(f"sha256:{hashlib.sha256(f'{below} {diff_id}'.encode()).hexdigest()}" if below else diff_id)
    return tuple(found)
