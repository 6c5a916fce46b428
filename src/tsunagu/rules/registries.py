"""Decisions about registries: who may be asked without TLS, which image of an index is meant, what a refusal is called.

Pure; may import model. Docker's sentences are made here from what skopeo says.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tsunagu.model.errors import EngineError, InvalidParameter, NotFound, NotSupported, Unavailable
from tsunagu.model.image import DEFAULT_DOMAIN, Reference

_FATAL = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*")')
_REQUEST = re.compile(r'(?:Get|Head|Put|Post|Patch) "')


def is_loopback(domain: str) -> bool:
    """Whether a registry (`host[:port]`) is on this machine; Docker asks only such ones without TLS by itself."""
    host = domain[1 : domain.index("]")] if domain.startswith("[") else domain.partition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def remote_name(reference: Reference, digest: str = "") -> str:
    """Return the whole name that skopeo asks for; `digest` instead of the reference's own tag or digest."""
    name = f"docker://{reference.domain}/{reference.path}"
    digest = digest or reference.digest
    if digest:
        return f"{name}@{digest}"
    return f"{name}:{reference.tag}" if reference.tag else name


def auth_file(header: str, domain: str) -> bytes:
    """Turn an X-Registry-Auth header into the authentication file of containers-auth.json(5) for one registry.

    Raises InvalidParameter for a header that is no base64url of a JSON object. An empty one means no credentials.
    """
    found: Any = {}
    if header:
        try:
            padded = header + "=" * (-len(header) % 4)
            found = msgspec.json.decode(base64.urlsafe_b64decode(padded) or b"{}")
        except (binascii.Error, ValueError) as error:
            raise InvalidParameter(f"invalid X-Registry-Auth header: {error}") from error
        if not isinstance(found, dict):
            raise InvalidParameter("invalid X-Registry-Auth header: it holds no object")
    if found.get("registrytoken"):
        raise NotSupported("X-Registry-Auth.registrytoken is not supported", hint="use a user name and a password")
    user, password = str(found.get("username") or ""), str(found.get("password") or "")
    entry: dict[str, str] = {}
    if found.get("identitytoken"):
        entry = {
            "auth": base64.b64encode(f"{user or '<token>'}:".encode()).decode(),
            "identitytoken": str(found["identitytoken"]),
        }
    elif user or password:
        entry = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
    return msgspec.json.encode({"auths": {domain: entry} if entry else {}})


def choose(manifests: Sequence[Mapping[str, Any]], wanted: str) -> str:
    """Return the digest of an index's entry for a platform `os/architecture[/variant]`; raises NotFound."""
    parts = wanted.split("/")
    for entry in manifests:
        platform = entry.get("platform") or {}
        has = (platform.get("os", ""), platform.get("architecture", ""), platform.get("variant", ""))
        if has[: len(parts)] == tuple(parts):
            return str(entry.get("digest", ""))
    raise NotFound(f"no matching manifest for {wanted} in the manifest list entries")


def check_platform(text: str) -> str:
    """Return `os/architecture[/variant]`; raises InvalidParameter for anything else."""
    if not re.fullmatch(r"linux/[a-z0-9_]+(/[a-z0-9_]+)?", text):
        raise InvalidParameter(f"{text!r} is no platform that this engine can use", hint="write linux/ARCHITECTURE")
    return text


def fatal_words(stderr: str) -> str:
    """Return what skopeo died of, without its log decoration."""
    found = _FATAL.search(stderr)
    if found is None:
        return stderr.strip().rpartition("\n")[2] or "skopeo failed"
    return str(msgspec.json.decode(found[1].encode())) if "\\x" not in found[1] else found[1].strip('"')


def pull_failure(reference: Reference, words: str) -> EngineError:
    """Return the error that Docker makes of what a registry or the way to it answered."""
    cause = ": ".join(words.rsplit(": ", 2)[1:])
    if "manifest unknown" in words:
        return NotFound(f"manifest for {reference} not found: manifest unknown: {cause.rpartition(': ')[2]}")
    if "name unknown" in words:
        return NotFound(f"repository {reference.name} not found: name unknown: {cause.rpartition(': ')[2]}")
    is_denied = "denied: " in words or "access to the resource is denied" in words
    if is_denied or (reference.domain == DEFAULT_DOMAIN and "authentication required" in words):
        return NotFound(
            f"pull access denied for {reference.name}, repository does not exist or may require 'docker login': "
            "denied: requested access to the resource is denied"
        )
    if "toomanyrequests" in words or "too many requests" in words.lower():
        return Unavailable("toomanyrequests: You have reached your pull rate limit")
    if "unauthorized" in words or "authentication required" in words or "invalid username/password" in words:
        return Unavailable(  # not 401: Docker's client would ask for a name and a password on the terminal
            f"pulling {reference} failed: unauthorized: authentication required",
            hint=f"log in first: docker login {reference.domain}",
        )
    if (start := _REQUEST.search(words)) is not None:
        return Unavailable(words[start.start() :])
    return Unavailable(f"pulling {reference} failed: {words}")
