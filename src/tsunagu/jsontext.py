"""JSON text <-> Python values without importing `json`, whose start-up (it pulls `re` and `enum`) costs more than all
that `tsunagu ps` does.

CPython's own C scanner and encoder do the work; an interpreter without them falls back to `json`. May import: the
standard library's C modules. Must never accept anything that `json.loads` would refuse.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class JsonError(ValueError):
    """The text is no JSON document."""


class _ScannerOptions:
    """What `_json.make_scanner` reads from its decoder; the same choices as `json.JSONDecoder()`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012 - read by the C code only

    @staticmethod
    def parse_constant(name: str) -> Any:
        raise JsonError(f"{name} is no JSON value")


def _refuse(value: object) -> Any:
    raise TypeError(f"a {type(value).__name__} has no JSON form")


try:
    from _json import encode_basestring as _quote
    from _json import make_encoder, make_scanner

    _scan: Any = make_scanner(_ScannerOptions())  # type: ignore[arg-type]
    _encode: Any = make_encoder(None, _refuse, _quote, None, ":", ",", False, False, False)
except ImportError:  # not CPython: slower, but the same answers
    from json import JSONDecoder, JSONEncoder
    from json.encoder import encode_basestring as _quote

    _scan = getattr(JSONDecoder(parse_constant=_ScannerOptions.parse_constant), "scan_once")  # noqa: B009 - not in stubs
    _pure = JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_refuse)

    def _encode(value: object, _level: int) -> Any:
        return _pure.iterencode(value)


_SPACE = " \t\r\n"


def loads(text: str | bytes) -> Any:
    """The value of one JSON document. Raises JsonError for anything else, trailing text included."""
    if not isinstance(text, str):
        try:
            text = bytes(text).decode("utf-8")
        except UnicodeDecodeError as error:
            raise JsonError(f"not UTF-8: {error}") from None
    start, length = 0, len(text)
    while start < length and text[start] in _SPACE:
        start += 1
    value, end = _scan_at(text, start)
    if text[end:].strip(_SPACE):
        raise JsonError(f"text after the JSON value at character {end}")
    return value


def dumps(value: object) -> str:
    """Compact JSON with non-ASCII characters as they are. Raises TypeError for values that JSON does not have."""
    return "".join(_encode(value, 0))


def dumps_go(value: object) -> str:
    """Compact JSON as Go's json.Marshal prints it: `<`, `>` and `&` escaped for HTML."""
    return dumps(value).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def pretty(value: object, indent: str = "    ", level: int = 0) -> str:
    """Indented JSON in Go's json.Indent form, which prints empty containers as `{}` and `[]`."""
    if isinstance(value, dict) and value:
        opening, closing = "{", "}"
        items = [f"{_quote(str(key))}: {pretty(item, indent, level + 1)}" for key, item in value.items()]
    elif isinstance(value, (list, tuple)) and value:
        opening, closing = "[", "]"
        items = [pretty(item, indent, level + 1) for item in value]
    else:
        return dumps(value)
    pad = "\n" + indent * (level + 1)
    return f"{opening}{pad}{(',' + pad).join(items)}\n{indent * level}{closing}"


def _scan_at(text: str, start: int) -> tuple[Any, int]:
    try:
        value, end = _scan(text, start)
    except StopIteration as stop:
        raise JsonError(f"no JSON value at character {stop.value}") from None
    except JsonError:
        raise
    except (ValueError, SystemError):
        # Without json.decoder loaded the C scanner lacks its exception class, which Python reports as SystemError.
        raise JsonError("malformed JSON") from None
    return value, end
