"""Identifiers and names: their form, their short form, and how a user's word finds an object.

Ids are made elsewhere (they need randomness) and come in as arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .errors import InvalidParameter, NotFound

SHORT = 12
_CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_NETWORK_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_. -]*")
_HEX = re.compile(r"[0-9a-f]+")


def short(identifier: str) -> str:
    """Return the 12-character form that Docker prints; an `algorithm:` prefix is dropped."""
    return identifier.rpartition(":")[2][:SHORT]


def check_container_name(name: str) -> str:
    """Return `name` without a leading slash, or raise InvalidParameter in Docker's words (two characters or more)."""
    bare = name.removeprefix("/")
    if not _CONTAINER_NAME.fullmatch(bare):
        raise InvalidParameter(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    if len(bare) > 255:
        raise InvalidParameter(f"Invalid container name ({bare[:32]}…): longer than 255 characters")
    return bare


def check_network_name(name: str) -> str:
    """Return `name`, or raise InvalidParameter. Stricter than Docker: a name is also a DNS suffix, never a path."""
    if not name.strip():
        raise InvalidParameter("invalid name: name is empty")
    if not _NETWORK_NAME.fullmatch(name) or len(name) > 253:
        raise InvalidParameter(f"invalid network name ({name[:64]}), only [a-zA-Z0-9][a-zA-Z0-9_. -] are allowed")
    return name


def find_by_prefix(word: str, identifiers: Iterable[str], *, noun: str) -> str | None:
    """Return the one id that starts with `word`, None if there is none.

    Raises NotFound in Docker's words when several ids match.
    """
    if not _HEX.fullmatch(word):
        return None
    found = [identifier for identifier in identifiers if identifier.startswith(word)]
    if len(found) > 1:
        raise NotFound(
            f"Multiple IDs found with provided prefix: {word}", hint=f"give more characters of the {noun} id"
        )
    return found[0] if found else None
