"""Compares what a command printed with what it should print, where ids, addresses and times may differ.

May import the standard library only. A pattern is plain text; `<id>`, `<id12>`, `<ip>`, `<mac>`, `<ms>`, `<n>`, `<any>`
and `<time>` stand for such values, `<space>` for a space at the end of a line, and `<name>` for a value that the
caller gives under that name.
"""

from __future__ import annotations

import difflib
import re

_PLACES = {
    "id": r"[0-9a-f]{64}",
    "id12": r"[0-9a-f]{12}",
    "ip": r"\d{1,3}(?:\.\d{1,3}){3}",
    "mac": r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}",
    "ms": r"\d+\.\d{3}",
    "n": r"\d+",
    "any": r".*",
    "space": " ",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)",
}
_PLACE = re.compile(r"<([a-z][a-z0-9_]*)>")


def matches(pattern: str, text: str, **values: str) -> bool:
    """Whether `text` is `pattern` with its places filled. Newlines at both ends do not count."""
    wanted, got = pattern.strip("\n").split("\n"), text.strip("\n").split("\n")
    return len(wanted) == len(got) and all(
        re.fullmatch(_expression(line, values), actual) for line, actual in zip(wanted, got, strict=True)
    )


def check(pattern: str, text: str, **values: str) -> None:
    """AssertionError with a line by line difference unless `text` is `pattern` with its places filled."""
    if matches(pattern, text, **values):
        return
    wanted, got = pattern.strip("\n").split("\n"), text.strip("\n").split("\n")
    # a line that fits its pattern is shown as equal, so that only the real differences stand out
    for index in range(min(len(wanted), len(got))):
        if re.fullmatch(_expression(wanted[index], values), got[index]):
            wanted[index] = got[index]
    difference = "\n".join(difflib.unified_diff(wanted, got, "expected", "printed", lineterm="", n=100))
    raise AssertionError(f"the output differs:\n{difference}")


def check_one_of(patterns: tuple[str, ...], text: str, **values: str) -> None:
    """AssertionError unless one of `patterns` fits (answers that race, such as A and AAAA, come in either order)."""
    if not any(matches(pattern, text, **values) for pattern in patterns):
        check(patterns[0], text, **values)


def _expression(line: str, values: dict[str, str]) -> str:
    expression, position = "", 0
    for place in _PLACE.finditer(line):
        name = place[1]
        known = re.escape(values[name]) if name in values else _PLACES.get(name)
        if known is None:
            continue
        expression += re.escape(line[position : place.start()]) + known
        position = place.end()
    return expression + re.escape(line[position:])
