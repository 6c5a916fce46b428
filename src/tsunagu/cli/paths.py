"""File names and small files on the client's side. May import: C modules, `client`."""

from __future__ import annotations

from posix import getcwd

from tsunagu.cli.output import Failure
from tsunagu.client import quote


def api_path(kind: str, name: str) -> str:
    """The API path of a container, network or image. Raises Failure for an empty name, which would be another path."""
    if not name.strip() and kind != "image":
        raise Failure(f"invalid {kind} name or ID: value is empty")
    return f"/{kind}s/{quote(name)}"


def absolute(path: str) -> str:
    """The path from the root with `.`, `..` and doubled slashes taken out (no link is followed)."""
    parts: list[str] = []
    for part in (path if path.startswith("/") else f"{getcwd()}/{path}").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def read_lines(path: str) -> list[str]:
    """The lines of a UTF-8 file. Raises Failure with the form of Go's error."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise Failure(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise Failure(f"invalid utf8 bytes in file {path}") from None
