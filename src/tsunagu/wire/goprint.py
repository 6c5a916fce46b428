"""Go's fmt: `%v` of any value a template can hold, and `printf` with its verbs, flags and complaints.

For: `gotemplate_eval`. May import `gotypes`, `goquote`. Must never import anything slow; must never let a width or a
precision ask for more than Go allows (a million).
"""

from __future__ import annotations

from tsunagu.wire.goquote import code_point, quote
from tsunagu.wire.gotypes import Interface, Invalid, Number, Row, Strings, Typed

_LARGEST = 1_000_000  # Go's limit for widths and precisions
_INTEGER_VERBS = {"d": 10, "b": 2, "o": 8, "O": 8, "x": 16, "X": 16}


def type_name(value: object) -> str:
    """Go's name of the value's type, as `%T` and errors print it."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, Number):
        return "json.Number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, Strings):
        return "[]string"
    if isinstance(value, (list, tuple)):
        return "[]interface {}"
    if isinstance(value, dict):
        return "map[string]interface {}"
    if isinstance(value, Interface):
        return "interface {}"
    if isinstance(value, Typed):
        return value.type.name
    if isinstance(value, Row):
        return value.type_name
    return "<nil>"


def text_of(value: object) -> str:
    """What an action prints: pointers followed, a missing value `<no value>`."""
    if isinstance(value, str):
        return value
    if isinstance(value, Invalid):
        return "<no value>"
    return _Printer().value(pointed(value), "v", 0)


def pointed(value: object) -> object:
    """What a pointer points to; nil pointers and other values as they are."""
    while isinstance(value, Typed) and value.type.kind == "pointer" and value.value is not None:
        value = value.target()
    return value


def sprint(values: list[object]) -> str:
    """Go's fmt.Sprint: a space between two operands when neither is a string."""
    parts: list[str] = []
    values = [_bare(value) for value in values]
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            parts.append(" ")
        parts.append(_Printer().value(value, "v", 0))
    return "".join(parts)


def sprintln(values: list[object]) -> str:
    """Go's fmt.Sprintln."""
    return " ".join(_Printer().value(value, "v", 0) for value in values) + "\n"


def sprintf(form: str, values: list[object]) -> str:
    """Go's fmt.Sprintf; wrong verbs, missing and extra operands show in the text (`%!d(string=x)`), never as errors."""
    parts: list[str] = []
    index = start = 0
    is_reordered = False
    while True:
        percent = form.find("%", start)
        if percent < 0:
            parts.append(form[start:])
            break
        parts.append(form[start:percent])
        printer = _Printer()
        start, index, was_reordered = printer.parse(form, percent + 1, values, index)
        is_reordered = is_reordered or was_reordered
        parts.extend(printer.complaints)
        if start >= len(form):
            parts.append("%!(NOVERB)")
            break
        verb = form[start]
        start += 1
        if verb == "%":
            parts.append("%")
        elif not printer.is_good:
            parts.append(f"%!{verb}(BADINDEX)")
        elif index >= len(values):
            parts.append(f"%!{verb}(MISSING)")
        else:
            parts.append(printer.operand(values[index], verb))
            index += 1
    if not is_reordered and index < len(values):
        extra = ", ".join(
            "<nil>" if _bare(value) is None else f"{type_name(_bare(value))}={_Printer().value(value, 'v', 0)}"
            for value in values[index:]
        )
        parts.append(f"%!(EXTRA {extra})")
    return "".join(parts)


def _bare(value: object) -> object:
    while isinstance(value, Interface):
        value = value.value
    return None if isinstance(value, Invalid) else value


class _Printer:
    """One verb with its flags, width and precision."""

    __slots__ = (
        "complaints",
        "has_minus",
        "has_plus",
        "has_sharp",
        "has_space",
        "has_zero",
        "is_good",
        "is_source",
        "names_fields",
        "precision",
        "width",
    )

    def __init__(self) -> None:
        self.has_minus = self.has_plus = self.has_sharp = self.has_space = self.has_zero = False
        self.names_fields = self.is_source = False  # %+v, %#v
        self.width: int | None = None
        self.precision: int | None = None
        self.is_good = True
        self.complaints: list[str] = []

    # The verb's flags.

    def parse(self, form: str, at: int, values: list[object], index: int) -> tuple[int, int, bool]:
        """Reads flags from `form[at]` on; gives the verb's place, the next operand, and whether `[n]` was used."""
        while at < len(form) and form[at] in "#0+- ":
            self.has_sharp |= form[at] == "#"
            self.has_zero |= form[at] == "0"
            self.has_plus |= form[at] == "+"
            self.has_minus |= form[at] == "-"
            self.has_space |= form[at] == " "
            at += 1
        at, index, is_reordered = self._place(form, at, len(values), index)
        at, index, self.width = self._size(form, at, values, index, "%!(BADWIDTH)")
        if self.width is not None and self.width < 0:
            self.width, self.has_minus = -self.width, True
        if at < len(form) and form[at] == ".":
            at, index, again = self._place(form, at + 1, len(values), index)
            is_reordered |= again
            at, index, precision = self._size(form, at, values, index, "%!(BADPREC)")
            self.precision = 0 if precision is None else precision
            if self.precision < 0:
                self.precision = None
                self.complaints.append("%!(BADPREC)")
        at, index, again = self._place(form, at, len(values), index)
        return at, index, is_reordered or again

    def _place(self, form: str, at: int, count: int, index: int) -> tuple[int, int, bool]:
        """An explicit operand number `[n]`."""
        if form[at : at + 1] != "[":
            return at, index, False
        end = form.find("]", at)
        number = form[at + 1 : end] if end > 0 else ""
        if not number.isdecimal() or not 1 <= int(number) <= count:
            self.is_good = False
            return (end if end > 0 else at) + 1, index, True
        return end + 1, int(number) - 1, True

    def _size(
        self, form: str, at: int, values: list[object], index: int, complaint: str
    ) -> tuple[int, int, int | None]:
        if form[at : at + 1] == "*":
            value = _bare(values[index]) if index < len(values) else None
            if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST:
                self.complaints.append(complaint)
                return at + 1, index + 1, None
            return at + 1, index + 1, value
        end = at
        while end < len(form) and form[end] in "0123456789":
            end += 1
        if end == at:
            return at, index, None
        if end - at > 7 or int(form[at:end]) > _LARGEST:
            return end, index, None
        return end, index, int(form[at:end])

    # Values.

    def operand(self, value: object, verb: str) -> str:
        """One operand of printf."""
        value = _bare(value)
        if verb == "T":
            return self._padded(type_name(value))
        if verb == "v":  # `%+v` and `%#v` speak of the form of structs, not of signs and prefixes
            self.names_fields, self.has_plus = self.has_plus, False
            self.is_source, self.has_sharp = self.has_sharp, False
        return self.value(value, verb, 0)

    def value(self, value: object, verb: str, depth: int) -> str:
        """The value under that verb; `depth` > 0 inside of a list, map or struct."""
        value = _bare(value)
        if value is None:
            if self.is_source and depth:
                return "interface {}(nil)"
            # Inside of a list or map Go prints a nil interface the same under every verb.
            return self._padded("<nil>") if verb == "v" else "<nil>" if depth else f"%!{verb}(<nil>)"
        if isinstance(value, bool):
            return self._padded("true" if value else "false") if verb in "tv" else self._wrong(value, verb)
        if isinstance(value, int):
            return self._integer(value, verb)
        if isinstance(value, float):
            return self._float(value, verb)
        if isinstance(value, str):
            return self._string(value, verb)
        if isinstance(value, (list, tuple)):
            return self._list(list(value), verb, depth, type_name(value))
        if isinstance(value, dict):
            return self._map([(key, value[key]) for key in sorted(value)], verb, depth, type_name(value))
        if isinstance(value, Typed):
            return self._typed(value, verb, depth)
        if isinstance(value, Row):
            return self._struct(list(value.items()), verb, depth, value.type_name)
        return self._wrong(value, verb)

    def _wrong(self, value: object, verb: str) -> str:
        return f"%!{verb}({type_name(value)}={self.value(value, 'v', 0)})"  # with its flags, as Go does

    def _padded(self, text: str) -> str:
        if self.width is None or len(text) >= self.width:
            return text
        if self.has_minus:
            return text.ljust(self.width)
        return text.rjust(self.width, "0" if self.has_zero else " ")

    def _integer(self, value: int, verb: str) -> str:
        if verb == "v":
            verb = "d"
        if verb == "c":
            return self._padded(_character(value))
        if verb == "q":
            return self._padded(quote(_character(value), mark="'", is_ascii=self.has_plus))
        if verb == "U":
            return self._padded(code_point(_character(value)) if self.has_sharp else f"U+{value:04X}")
        if verb not in _INTEGER_VERBS:
            return self._wrong(value, verb)
        digits = {"d": f"{abs(value)}", "b": f"{abs(value):b}", "X": f"{abs(value):X}", "x": f"{abs(value):x}"}.get(
            verb, f"{abs(value):o}"
        )
        sign = "-" if value < 0 else "+" if self.has_plus else " " if self.has_space else ""
        prefix = ""
        if self.has_sharp:
            prefix = {"b": "0b", "x": "0x", "X": "0X", "o": "" if digits.startswith("0") else "0"}.get(verb, "")
        if verb == "O":
            prefix = "0o"
        if self.precision is not None:
            digits = "" if self.precision == 0 and value == 0 else digits.rjust(self.precision, "0")
            text = sign + prefix + digits if digits else ""
            return text.ljust(self.width or 0) if self.has_minus else text.rjust(self.width or 0)
        if self.has_zero and not self.has_minus and self.width is not None:
            digits = digits.rjust(self.width - len(sign), "0")
        return self._padded(sign + prefix + digits)

    def _float(self, value: float, verb: str) -> str:
        if verb not in "veEfFgG":
            return self._wrong(value, verb)
        kind = "g" if verb == "v" else verb
        if value not in (float("inf"), float("-inf")) and not value <= 0 and not value > 0:
            text, sign = "NaN", "+" if self.has_plus else " " if self.has_space else ""
        else:
            sign = "-" if str(value).startswith("-") else "+" if self.has_plus else " " if self.has_space else ""
            text = "Inf" if value in (float("inf"), float("-inf")) else float_text(abs(value), kind, self.precision)
        if sign == "" and text == "Inf" and verb == "v":
            sign = "+"
        if self.has_zero and not self.has_minus and self.width is not None and text[0].isdecimal():
            text = text.rjust(self.width - len(sign), "0")
        return self._padded(sign + text)

    def _string(self, value: str, verb: str) -> str:
        if verb in "vs":
            if self.is_source:
                return self._padded(quote(value))
            return self._padded(value if self.precision is None else value[: self.precision])
        if verb == "q":
            text = value if self.precision is None else value[: self.precision]
            if self.has_sharp and "`" not in text and all(char.isprintable() or char == "\t" for char in text):
                return self._padded(f"`{text}`")
            return self._padded(quote(text, is_ascii=self.has_plus))
        if verb in "xX":
            raw = value.encode("utf-8", "surrogateescape")
            raw = raw if self.precision is None else raw[: self.precision]
            text = raw.hex(" ") if self.has_space and raw else raw.hex()
            if self.has_sharp and raw:
                text = " ".join("0x" + part for part in text.split(" "))
            return self._padded(text.upper() if verb == "X" else text)
        return self._wrong(value, verb)

    def _list(self, items: list[object], verb: str, depth: int, name: str) -> str:
        if self.is_source:
            return f"{name}{{{', '.join(self.value(item, verb, depth + 1) for item in items)}}}"
        return "[" + " ".join(self.value(item, verb, depth + 1) for item in items) + "]"

    def _map(self, items: list[tuple[str, object]], verb: str, depth: int, name: str) -> str:
        if self.is_source:
            inner = ", ".join(f"{quote(key)}:{self.value(item, verb, depth + 1)}" for key, item in items)
            return f"{name}{{{inner}}}"
        inner = " ".join(
            f"{self.value(key, verb, depth + 1)}:{self.value(item, verb, depth + 1)}" for key, item in items
        )
        return f"map[{inner}]"

    def _struct(self, items: list[tuple[str, object]], verb: str, depth: int, name: str) -> str:
        if self.is_source:
            return f"{name}{{{', '.join(f'{key}:{self.value(item, verb, depth + 1)}' for key, item in items)}}}"
        has_names = self.names_fields
        parts = [(f"{key}:" if has_names else "") + self.value(item, verb, depth + 1) for key, item in items]
        return "{" + " ".join(parts) + "}"

    def _typed(self, value: Typed, verb: str, depth: int) -> str:
        kind, name = value.type.kind, value.type.name
        if self.is_source and value.value is None and kind in ("pointer", "map", "slice"):
            return f"({name})(nil)" if kind == "pointer" else f"{name}(nil)"
        if kind == "time":
            return self._string(time_text(value.value), verb)
        if kind == "struct":
            return self._struct([(field.name, value.get(field)) for field in value.type.fields], verb, depth, name)
        if kind == "pointer":
            if value.value is None:
                if verb in "bdoxX":
                    return self._integer(0, verb)
                return self._padded("<nil>") if verb == "v" else f"%!{verb}({name}=<nil>)"
            # Go prints an address for a pointer inside of something; its contents say more.
            target = self.value(value.target(), verb, depth + 1)
            element = value.type.element.kind if value.type.element else ""
            return "&" + target if depth == 0 and element in ("struct", "map", "slice", "array") else target
        if kind in ("slice", "array"):
            return self._list(value.items(), verb, depth, name)
        return self._map([(key, value.entry(key)) for key in value.sorted_keys()], verb, depth, name)


def _character(code: int) -> str:
    return chr(code) if 0 <= code <= 0x10FFFF and not 0xD800 <= code < 0xE000 else "\ufffd"


def float_text(value: float, kind: str, precision: int | None) -> str:
    """A non-negative float as Go's strconv.FormatFloat writes it; precision None is the shortest exact form."""
    if precision is None and kind in "eEfF":
        precision = 6
    if precision is not None:
        if kind in "fF":
            return f"{value:.{precision}f}"
        text = f"{value:.{precision}{kind}}"
        return text
    digits, point = _shortest(value)
    exponent = point - 1
    if -4 <= exponent < 6:
        if point <= 0:
            return "0." + "0" * -point + digits
        if point >= len(digits):
            return digits + "0" * (point - len(digits))
        return digits[:point] + "." + digits[point:]
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{mantissa}{'E' if kind == 'G' else 'e'}{exponent:+03d}"


def _shortest(value: float) -> tuple[str, int]:
    """The fewest digits that read back as `value`, and where the decimal point stands."""
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    point = len(whole) + int(exponent or 0)
    digits = whole + fraction
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    return (stripped.rstrip("0") or "0", point) if stripped else ("0", 1)


def time_text(value: object) -> str:
    """An RFC 3339 time as Go's Time.String prints it: `2024-01-02 03:04:05.5 +0000 UTC`."""
    text = str(value or "0001-01-01T00:00:00Z")
    day, _, rest = text.partition("T")
    if rest.endswith("Z"):
        clock, zone = rest[:-1], "+0000 UTC"
    else:
        clock, offset = rest[:-6], rest[-6:].replace(":", "")
        zone = f"{offset} {offset}" if offset != "+0000" else "+0000 +0000"
    if "." in clock:
        clock = clock.rstrip("0").rstrip(".")
    return f"{day} {clock} {zone}"
