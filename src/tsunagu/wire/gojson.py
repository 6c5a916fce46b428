"""JSON as Go's encoding/json writes it (no HTML escapes but for rows): what `{{json .X}}` prints.

For: `gotemplate_eval`. May import `gotypes`. Must never import `json`: its `re` costs the command line milliseconds.
"""

from __future__ import annotations

from tsunagu.wire.gotypes import Interface, Invalid, Number, Row, Typed

_ESCAPES = {code: f"\\u{code:04x}" for code in range(32)}
_ESCAPES |= {
    8: "\\b",
    9: "\\t",
    10: "\\n",
    12: "\\f",
    13: "\\r",
    34: '\\"',
    92: "\\\\",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
_ESCAPES |= {code: "\\ufffd" for code in range(0xDC80, 0xDD00)}


def encode(value: object) -> str:
    """Compact JSON: maps sorted by key, structs in their fields' order, floats as Go prints them."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPES)}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{encode(str(key))}:{encode(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(encode, value)) + "]"
    if isinstance(value, Interface):
        return encode(value.value)
    if isinstance(value, Typed):
        return _typed(value)
    if isinstance(value, Row):
        # Docker's rows make their JSON themselves, with Go's default of escaping what HTML minds.
        text = "{" + ",".join(f"{encode(name)}:{encode(item)}" for name, item in value.items()) + "}"
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    if value is None or isinstance(value, Invalid):
        return "null"
    raise TypeError(f"no JSON for {type(value).__name__}")


def _float(value: float) -> str:
    if value - value != 0:  # infinities and NaN
        raise TypeError("json: unsupported value: " + str(value))
    text = repr(value)
    if "e" not in text:
        return text.removesuffix(".0")
    mantissa, _, power = text.partition("e")
    mantissa, exponent = mantissa.removesuffix(".0"), int(power)
    if not -7 < exponent < 21:
        return f"{mantissa}e{exponent:+03d}" if exponent > 0 else f"{mantissa}e-{-exponent}"
    # the shortest digits that read back, and zeros: what 'f' with precision -1 means to Go
    sign, digits = ("-", mantissa[1:]) if mantissa[0] == "-" else ("", mantissa)
    digits = digits.replace(".", "")
    return sign + ("0." + "0" * (-exponent - 1) + digits if exponent < 0 else digits.ljust(exponent + 1, "0"))


def _typed(value: Typed) -> str:
    kind = value.type.kind
    if kind == "time":
        return encode(str(value.value or "0001-01-01T00:00:00Z"))
    if kind == "struct":
        fields: list[str] = []
        _fields(value, fields)
        return "{" + ",".join(fields) + "}"
    if value.value is None:
        return "null"
    if kind == "pointer":
        return encode(value.target())
    if kind in ("slice", "array"):
        return "[" + ",".join(map(encode, value.items())) + "]"
    return "{" + ",".join(f"{encode(key)}:{encode(value.entry(key))}" for key in value.sorted_keys()) + "}"


def _fields(value: Typed, into: list[str]) -> None:
    for field in value.type.fields:
        item = value.get(field)
        if field.is_embedded:
            if isinstance(item, Typed) and item.type.kind == "pointer":
                item = item.target()
            assert isinstance(item, Typed)
            _fields(item, into)
        elif not (field.is_omitted_empty and is_empty(item)):
            into.append(f"{encode(field.key)}:{encode(item)}")


def is_empty(value: object) -> bool:
    """Whether `omitempty` leaves it out: false, 0, "", nil, and maps and slices without elements; never a struct."""
    if isinstance(value, Typed):
        kind = value.type.kind
        return kind not in ("struct", "time") and (value.value is None or (kind != "pointer" and not value.value))
    if isinstance(value, Interface):
        return value.value is None
    return not value
