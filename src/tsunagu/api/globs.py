"""Go's `path.Match` as a regular expression: `*` and `?` stop at a slash. Pure."""

from __future__ import annotations

import re
from functools import lru_cache


def matches(pattern: str, text: str) -> bool:
    """Tell whether the whole of `text` matches; a malformed pattern matches nothing."""
    expression = _compile(pattern)
    return expression is not None and expression.fullmatch(text) is not None


@lru_cache(maxsize=64)
def _compile(pattern: str) -> re.Pattern[str] | None:
    out, i = [], 0
    while i < len(pattern):
        character = pattern[i]
        i += 1
        if character == "*":
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "\\" and i < len(pattern):
            out.append(re.escape(pattern[i]))
            i += 1
        elif character == "[":
            end = pattern.find("]", i + 1)
            if end < 0:
                return None
            inner = pattern[i:end].replace("\\", "\\\\").replace("[", "\\[")
            out.append(f"[{inner}]")
            i = end + 1
        else:
            out.append(re.escape(character))
    try:
        return re.compile("".join(out))
    except re.error:
        return None
