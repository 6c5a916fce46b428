"""Go's quoted literals: what `strconv.Quote`, `strconv.Unquote` and the verb `%#U` do.

For: the template lexer and parser (string constants, error texts) and the verb `%q`. May import nothing.
Must never: import `re` or anything else that costs the command line start-up time.
"""

from __future__ import annotations

_SHORT = {7: "\\a", 8: "\\b", 12: "\\f", 10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v"}
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34}


def quote(text: str, *, mark: str = '"', is_ascii: bool = False) -> str:
    """`text` as a Go literal between `mark`s; characters that do not print become escapes (Go: strconv.Quote)."""
    parts = [mark]
    for char in text:
        code = ord(char)
        if char in (mark, "\\"):
            parts.append("\\" + char)
        elif char.isprintable() and (code < 128 or not is_ascii):
            parts.append(char)
        elif code in _SHORT:
            parts.append(_SHORT[code])
        elif code < 32 or code == 127:
            parts.append(f"\\x{code:02x}")
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8, kept by Python's surrogateescape
            parts.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x10000:
            parts.append(f"\\u{code:04x}")
        else:
            parts.append(f"\\U{code:08x}")
    parts.append(mark)
    return "".join(parts)


def code_point(char: str) -> str:
    """Go's `%#U`: `U+002D '-'`."""
    number = f"U+{ord(char):04X}"
    return f"{number} '{char}'" if char.isprintable() else number


def unquote(literal: str) -> str:
    """The text of a Go string literal (`"…"` or raw); ValueError "invalid syntax" as Go's strconv.Unquote says."""
    mark = literal[0]
    body = literal[1:-1]
    if mark == "`":
        return body.replace("\r", "")
    if "\\" not in body:
        return body
    raw = bytearray()
    rest = 0
    while rest < len(body):
        if body[rest] != "\\":
            raw += body[rest].encode("utf-8", "surrogatepass")
            rest += 1
            continue
        value, rest, is_byte = _escape(body, rest, mark)
        raw += bytes((value,)) if is_byte else chr(value).encode("utf-8", "surrogatepass")
    return raw.decode("utf-8", "surrogateescape")


def unquote_char(literal: str) -> int:
    """The code point of a Go character literal (`'x'`); ValueError when it holds none or several."""
    body = literal[1:-1]
    if not body or body == "'":
        raise ValueError("invalid syntax")
    if body[0] != "\\":
        value, rest = ord(body[0]), 1
    else:
        value, rest, _ = _escape(body, 0, "'")
    if rest != len(body):
        raise ValueError("malformed character constant")
    return value


def _escape(body: str, start: int, mark: str) -> tuple[int, int, bool]:
    """One escape that begins at `body[start]`: its value, the index after it, and whether it names a byte."""
    kind = body[start + 1 : start + 2]
    if kind in ("'", '"') and kind != mark:
        raise ValueError("invalid syntax")
    if kind and kind in _ESCAPES:
        return _ESCAPES[kind], start + 2, False
    sizes = {"x": 2, "u": 4, "U": 8}
    if kind in sizes:
        end = start + 2 + sizes[kind]
        digits, base = body[start + 2 : end], 16
    elif kind and kind in "01234567":
        end = start + 4
        digits, base = body[start + 1 : end], 8
    else:
        raise ValueError("invalid syntax")
    if len(digits) != (3 if base == 8 else sizes[kind]) or not all(
        char in ("01234567" if base == 8 else "0123456789abcdefABCDEF") for char in digits
    ):
        raise ValueError("invalid syntax")
    value = int(digits, base)
    is_byte = kind == "x" or base == 8
    if value > (255 if is_byte else 0x10FFFF) or (not is_byte and 0xD800 <= value < 0xE000):
        raise ValueError("invalid syntax")
    return value, end, is_byte
