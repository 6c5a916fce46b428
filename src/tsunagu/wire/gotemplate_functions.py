"""Functions that templates call: Go's builtins and those that Docker adds (`json`, `join`, `split`, `pad`, …).

For: `gotemplate_eval`. May import `gotypes`; `goprint` and `gojson` inside functions (loaded when needed). Must
never do I/O.
A function that fails raises FunctionError; its text follows `error calling NAME: `.
"""

from __future__ import annotations

from tsunagu.wire.gotypes import INVALID, Interface, Invalid, Number, Row, Strings, Typed, zero

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# A template may not make a text longer than this, whatever it asks for.
MAX_TEXT = 16 << 20


class FunctionError(Exception):
    """A function refused its operands."""


class Function:
    """`parameters` are Go type names ("value" takes anything, nil included); the last repeats if `is_variadic`."""

    __slots__ = ("call", "is_variadic", "parameters")

    def __init__(self, call: Callable[..., object], *parameters: str, is_variadic: bool = False) -> None:
        self.call = call
        self.parameters = parameters
        self.is_variadic = is_variadic


def bare(value: object) -> object:
    """The value inside of interfaces; a nil interface becomes INVALID."""
    while isinstance(value, Interface):
        value = value.value
    return INVALID if value is None else value


def indirect(value: object) -> object:
    """The value behind interfaces and pointers; None for a nil pointer or a nil interface."""
    while True:
        if isinstance(value, Interface):
            if value.value is None:
                return None
            value = value.value
        elif isinstance(value, Typed) and value.type.kind == "pointer":
            if value.value is None:
                return None
            value = value.target()
        else:
            return value


def is_true(value: object) -> bool:
    """Go's truth: false for false, 0, "", nil, missing, and empty lists and maps; structs are always true."""
    value = bare(value)
    if isinstance(value, Typed):
        return value.type.kind in ("struct", "time") or bool(
            value.value if value.type.kind != "pointer" else value.value is not None
        )
    return not isinstance(value, Invalid) and (isinstance(value, Row) or bool(value))


def _type(value: object) -> str:
    from tsunagu.wire.goprint import type_name

    return type_name(value)


# Indexing.


def _position(index: object, length: int) -> int:
    index = bare(index)
    if isinstance(index, Invalid):
        raise FunctionError("cannot index slice/array with nil")
    if isinstance(index, bool) or not isinstance(index, int):
        raise FunctionError(f"cannot index slice/array with type {_type(index)}")
    if not 0 <= index <= length:
        raise FunctionError(f"index out of range: {index}")
    return index


def _index(item: object, *indexes: object) -> object:
    if isinstance(bare(item), Invalid):
        raise FunctionError("index of untyped nil")
    for index in indexes:
        item = indirect(item)
        if item is None:
            raise FunctionError("index of nil pointer")
        item = _element(item, bare(index))
    return item


def _element(item: object, index: object) -> object:
    kind = item.type.kind if isinstance(item, Typed) else ""
    if isinstance(item, dict) or kind == "map":
        key_type = item.type.key if isinstance(item, Typed) else "string"
        if isinstance(index, Invalid):
            raise FunctionError(f"value is nil; should be of type {key_type}")
        if not isinstance(index, str) or isinstance(index, Number) or key_type != "string":
            raise FunctionError(f"value has type {_type(index)}; should be {key_type}")
        if isinstance(item, dict):
            return Interface(item.get(index))
        assert isinstance(item, Typed) and item.type.element is not None
        found = item.entry(index)
        return zero(item.type.element) if isinstance(found, Invalid) else found
    if isinstance(item, Typed) and kind in ("slice", "array"):
        elements, name = item.items(), kind
    elif isinstance(item, (list, tuple)):
        elements, name = list(item), "slice"
    elif isinstance(item, str):
        elements, name = list(item.encode("utf-8", "surrogateescape")), "string"
    else:
        raise FunctionError(f"can't index item of type {_type(item)}")
    place = _position(index, len(elements))
    if place == len(elements):
        raise FunctionError(f"reflect: {name} index out of range")
    found = elements[place]
    return found if isinstance(item, (str, Strings, Typed)) else Interface(found)


def _slice(item: object, *indexes: object) -> object:
    item = bare(item)
    if isinstance(item, Invalid):
        raise FunctionError("slice of untyped nil")
    if len(indexes) > 3:
        raise FunctionError(f"too many slice indexes: {len(indexes)}")
    body: list[object] | bytes
    if isinstance(item, str):
        if len(indexes) == 3:
            raise FunctionError("cannot 3-index slice a string")
        body = item.encode("utf-8", "surrogateescape")
    elif isinstance(item, (list, tuple)):
        body = list(item)
    elif isinstance(item, Typed) and item.type.kind in ("slice", "array"):
        body = list(item.value) if isinstance(item.value, list) else []
    else:
        raise FunctionError(f"can't slice item of type {_type(item)}")
    bounds = [0, len(body), len(body)]
    for number, index in enumerate(indexes):
        if isinstance(index, Interface) and not isinstance(index.value, int):
            raise FunctionError("cannot index slice/array with type interface {}")  # Go looks inside for `index` only
        bounds[number] = _position(index, len(body))
    for low, high in ((bounds[0], bounds[1]), (bounds[1], bounds[2])):
        if low > high:
            raise FunctionError(f"invalid slice index: {low} > {high}")
    part = body[bounds[0] : bounds[1]]
    if isinstance(part, bytes):
        return part.decode("utf-8", "surrogateescape")
    if isinstance(item, Typed):
        return Typed(item.type, part)
    return Strings(str(word) for word in part) if isinstance(item, Strings) else part


def _len(item: object) -> int:
    if isinstance(item, Invalid):
        raise FunctionError("reflect: call of reflect.Value.Type on zero Value")
    target = indirect(item)
    if target is None:
        raise FunctionError("len of nil pointer")
    if isinstance(target, str):
        return len(target.encode("utf-8", "surrogateescape"))
    if isinstance(target, (list, tuple, dict)):
        return len(target)
    if isinstance(target, Typed) and target.type.kind in ("map", "slice", "array"):
        return len(target.value) if isinstance(target.value, (list, dict)) else 0
    raise FunctionError(f"len of type {_type(target)}")


# Comparing.


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    return "string" if isinstance(value, str) else ""


def _shape(value: object) -> str:
    """Go's kind of a value that is no scalar."""
    if isinstance(value, Typed):
        return value.type.kind
    return "map" if isinstance(value, dict) else "pointer" if isinstance(value, Row) else "slice"


def _is_nil(value: object) -> bool:
    return isinstance(value, Invalid) or (isinstance(value, Typed) and value.value is None)


def _eq(first: object, *others: object) -> bool:
    if not others:
        raise FunctionError("missing argument for comparison")
    first = bare(first)
    return any(_equal(first, bare(other)) for other in others)


def _equal(first: object, other: object) -> bool:
    kind = _kind(first)
    if isinstance(first, Invalid) or isinstance(other, Invalid):
        return _is_nil(first) and _is_nil(other)
    if kind != _kind(other):
        raise FunctionError("incompatible types for comparison")
    if kind:
        return first == other
    shape = _shape(first)
    if shape != _shape(other):
        left, right = (_printf("%s", first), _type(first)), (_type(other), _print(other))
        raise FunctionError(f"non-comparable types {left[0]}: {left[1]}, {right[0]}: {right[1]}")
    if _is_nil(first) or _is_nil(other):
        return _is_nil(first) and _is_nil(other)
    if shape in ("map", "slice"):
        raise FunctionError(f"non-comparable type {_printf('%s', other)}: {_type(other)}")
    return first.value is other.value if isinstance(first, Typed) and isinstance(other, Typed) else first is other


def _lt(first: object, second: object) -> bool:
    first, second = bare(first), bare(second)
    kind = _kind(first)
    if not kind or not _kind(second):
        raise FunctionError("invalid type for comparison")
    if kind != _kind(second):
        raise FunctionError("incompatible types for comparison")
    if kind == "bool":
        raise FunctionError("invalid type for comparison")
    return bool(first < second)  # type: ignore[operator]


def _le(first: object, second: object) -> bool:
    return _lt(first, second) or _eq(first, second)


# Texts.


def _print(*values: object) -> str:
    from tsunagu.wire.goprint import sprint

    return sprint(list(values))


def _println(*values: object) -> str:
    from tsunagu.wire.goprint import sprintln

    return sprintln(list(values))


def _printf(form: str, *values: object) -> str:
    from tsunagu.wire.goprint import sprintf

    return sprintf(form, list(values))


def _one_text(values: tuple[object, ...]) -> str:
    """What the escaping functions escape: a single string as it is, anything else printed."""
    from tsunagu.wire.goprint import pointed, sprint

    if len(values) == 1 and isinstance(values[0], str):
        return values[0]
    return sprint(["<no value>" if isinstance(value, Invalid) else pointed(value) for value in map(bare, values)])


def _html(*values: object) -> str:
    text = _one_text(values).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&#34;").replace("'", "&#39;").replace("\0", "\ufffd")


def _js(*values: object) -> str:
    named = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}
    return "".join(
        named.get(char) or (char if char.isprintable() else f"\\u{ord(char):04X}") for char in _one_text(values)
    )


def _urlquery(*values: object) -> str:
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"
    raw = _one_text(values).encode("utf-8", "surrogateescape")
    return "".join("+" if byte == 32 else chr(byte) if byte in plain else f"%{byte:02X}" for byte in raw)


def _json(value: object) -> str:
    from tsunagu.wire.gojson import encode

    try:
        return encode(value)
    except TypeError:
        return ""  # Docker's function drops the encoder's error


def _split(text: str, separator: str) -> Strings:
    return Strings(text.split(separator) if separator else list(text))


def _join(words: object, separator: str) -> str:
    return separator.join(_print(word) for word in words)  # type: ignore[attr-defined]


def _upper(text: str) -> str:
    """One character for one: Go leaves alone what would need two (ß)."""
    return "".join([big if len(big := char.upper()) == 1 else char for char in text])


def _lower(text: str) -> str:
    return "".join([small if len(small := char.lower()) == 1 else char for char in text])


def _title(text: str) -> str:
    """Go's strings.Title: only the first letter of each word changes; `_` joins words."""
    parts: list[str] = []
    is_start = True
    for char in text:
        parts.append(_upper(char) if is_start else char)
        is_start = not (char.isalnum() or char == "_") if char.isascii() else char.isspace()
    return "".join(parts)


def _pad(text: str, before: int, after: int) -> str:
    if not text:
        return text
    if before < 0 or after < 0:
        raise FunctionError("strings: negative Repeat count")
    if before + after > MAX_TEXT:
        raise FunctionError("strings: Repeat output length overflow")
    return " " * before + text + " " * after


def _truncate(text: str, length: int) -> str:
    raw = text.encode("utf-8", "surrogateescape")
    if length < 0:
        raise FunctionError(f"runtime error: slice bounds out of range [:{length}]")
    return text if len(raw) < length else raw[:length].decode("utf-8", "surrogateescape")


def _call(function: object, *_values: object) -> object:
    function = bare(function)
    if isinstance(function, Invalid):
        raise FunctionError("call of nil")
    raise FunctionError(f"non-function of type {_type(function)}")


def _same(text: str, *_others: object) -> str:
    return text


FUNCTIONS: dict[str, Function] = {
    # `and` and `or` stop at the first deciding operand: the evaluator does them itself.
    "and": Function(_same, "value", "value", is_variadic=True),
    "or": Function(_same, "value", "value", is_variadic=True),
    "call": Function(_call, "value", "value", is_variadic=True),
    "eq": Function(_eq, "value", "value", is_variadic=True),
    "ge": Function(lambda first, second: not _lt(first, second), "value", "value"),
    "gt": Function(lambda first, second: not _le(first, second), "value", "value"),
    "html": Function(_html, "value", is_variadic=True),
    "index": Function(_index, "value", "value", is_variadic=True),
    "js": Function(_js, "value", is_variadic=True),
    "le": Function(_le, "value", "value"),
    "len": Function(_len, "value"),
    "lt": Function(_lt, "value", "value"),
    "ne": Function(lambda first, second: not _eq(first, second), "value", "value"),
    "not": Function(lambda value: not is_true(value), "value"),
    "print": Function(_print, "value", is_variadic=True),
    "printf": Function(_printf, "string", "value", is_variadic=True),
    "println": Function(_println, "value", is_variadic=True),
    "slice": Function(_slice, "value", "value", is_variadic=True),
    "urlquery": Function(_urlquery, "value", is_variadic=True),
    # Docker's.
    "join": Function(_join, "[]string", "string"),
    "json": Function(_json, "value"),
    "lower": Function(_lower, "string"),
    "pad": Function(_pad, "string", "int", "int"),
    "split": Function(_split, "string", "string"),
    "title": Function(_title, "string"),
    "truncate": Function(_truncate, "string", "int"),
    "upper": Function(_upper, "string"),
}

# For the header line of a table: the functions that would change the value leave the header's words alone.
HEADER_FUNCTIONS: dict[str, Function] = FUNCTIONS | {
    "join": Function(_same, "string", "string"),
    "json": Function(_same, "string"),
    "lower": Function(_same, "string"),
    "split": Function(_same, "string", "string"),
    "title": Function(_same, "string"),
    "truncate": Function(_same, "string", "int"),
    "upper": Function(_same, "string"),
}
