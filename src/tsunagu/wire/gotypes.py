"""The values a Go template sees: what Go's reflection knows beyond Python's own types.

Docker runs `inspect` templates on typed structs first: there an absent `Health` is a nil pointer and an unknown
label is `<no value>`, while the same template on plain JSON fails. So values carry a Go type where one is known, and
are plain Python values (dict, list, str, int, float, bool) where only JSON is known. Types are tables of text
(`gotypes_docker`) and values are wrapped when they are asked for.

For: `gotemplate_eval`, `goprint`, `gojson`. May import nothing of the project. Must never copy or change the JSON it
wraps.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Invalid:
    """Go's zero reflect.Value: the missing map key, prints `<no value>`."""

    __slots__ = ()


INVALID = Invalid()


class Interface:
    """A value whose static Go type is `interface {}` (an element of plain JSON); `value` None is nil."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Number(str):
    """Go's json.Number: a number kept as text, as Docker's second run on the raw JSON sees every number."""

    __slots__ = ()


class Strings(list[str]):
    """Go's `[]string`, what `split` gives."""

    __slots__ = ()


class Type:
    """One Go type. `kind`: bool int uint float string any time pointer slice array map struct."""

    __slots__ = ("element", "fields", "key", "kind", "name")

    def __init__(self, name: str, kind: str, element: Type | None = None, key: str = "") -> None:
        self.name = name
        self.kind = kind
        self.element = element
        self.key = key
        self.fields: list[StructField] = []

    def field(self, name: str) -> StructField | None:
        """The field of that Go name; embedded structs are asked last, as Go's promotion rules say."""
        for field in self.fields:
            if field.name == name:
                return field
        for field in self.fields:
            if field.is_embedded:
                target = field.type.element if field.type.kind == "pointer" else field.type
                found = target.field(name) if target is not None else None
                if found is not None:
                    return found
        return None


class StructField:
    """`name` in Go, `key` in JSON; an embedded struct's fields lie in its owner's JSON object."""

    __slots__ = ("is_embedded", "is_omitted_empty", "key", "name", "type")

    def __init__(self, name: str, key: str, type_: Type, *, is_omitted_empty: bool, is_embedded: bool) -> None:
        self.name = name
        self.key = key
        self.type = type_
        self.is_omitted_empty = is_omitted_empty
        self.is_embedded = is_embedded


class Typed:
    """A JSON value seen through a Go type; `value` None is the nil pointer, map or slice."""

    __slots__ = ("type", "value")

    def __init__(self, type_: Type, value: object) -> None:
        self.type = type_
        self.value = value

    def target(self) -> object:
        """What a non-nil pointer points to."""
        assert self.type.element is not None
        return wrap(self.type.element, self.value)

    def items(self) -> list[object]:
        """Elements of a slice or array."""
        assert self.type.element is not None
        element = self.type.element
        return [wrap(element, item) for item in self.value] if isinstance(self.value, list) else []

    def sorted_keys(self) -> list[str]:
        """Keys of a map in Go's printing and ranging order."""
        return sorted(self.value) if isinstance(self.value, dict) else []

    def entry(self, key: str) -> object:
        """A map's value, INVALID when there is none."""
        assert self.type.element is not None
        if not isinstance(self.value, dict) or key not in self.value:
            return INVALID
        return wrap(self.type.element, self.value[key])

    def get(self, field: StructField) -> object:
        """A struct's field."""
        found = self.value.get(field.key) if isinstance(self.value, dict) else None
        return wrap(field.type, self.value if field.is_embedded else found)


# The nil pointer that a row's field gives for None: prints `<nil>`, is false, and null in JSON.
NIL = Typed(Type("*struct {}", "pointer", Type("struct {}", "struct")), None)


class Row:
    """One line of a listing: fields are computed when the template asks for them, with Docker's type name for errors.

    `fields`: name -> value, or a function without arguments. `methods`: name -> function of one string
    (`{{.Label "x"}}`).
    """

    __slots__ = ("fields", "methods", "type_name")
    is_open = False  # whether an unknown field is a missing value rather than an error

    def __init__(
        self,
        type_name: str,
        fields: Mapping[str, object],
        methods: Mapping[str, Callable[[str], object]] | None = None,
    ) -> None:
        self.type_name = type_name
        self.fields = fields
        self.methods = methods or {}

    def get(self, name: str) -> object:
        """The field's value, INVALID when there is none."""
        value = self.fields.get(name, INVALID)
        return value() if callable(value) else value

    def items(self) -> Iterator[tuple[str, object]]:
        """All fields in the order of `{{json .}}`: by name."""
        for name in sorted(self.fields):
            yield name, self.get(name)


_ZEROS: dict[str, object] = {"bool": False, "int": 0, "uint": 0, "float": 0.0, "string": ""}


def wrap(type_: Type, value: object) -> object:
    """The template's view of a JSON value whose Go type is known; None and absent give the type's zero value."""
    kind = type_.kind
    if kind in _ZEROS:
        zero = _ZEROS[kind]
        if value is None or isinstance(value, (dict, list)):
            return zero
        return float(value) if kind == "float" and isinstance(value, (int, float)) else value
    if kind == "any":
        return Interface(value)
    if kind == "array" and value is None:
        return Typed(type_, [None] * int(type_.key))
    return Typed(type_, value)


def zero(type_: Type) -> object:
    """The type's zero value (what `index` gives for a key that is not in a typed map)."""
    return wrap(type_, None)


_SCALARS = {
    "bool": "bool",
    "string": "string",
    "float64": "float",
    "int": "int",
    "int64": "int",
    "uint16": "uint",
    "uint64": "uint",
    "uint": "uint",
    "uint32": "uint",
    "int32": "int",
    "os.FileMode": "uint",
    "time.Duration": "int",
}


class Registry:
    """Resolves type expressions (`map[string]*network.EndpointSettings`) against tables of named types.

    A table's text is either another type expression, or one field a line: `Name=jsonKey type ?` (`=jsonKey` when it
    differs, `?` for omitempty), `+Type` or `+*Type` for an embedded struct.
    """

    def __init__(self, tables: Mapping[str, str]) -> None:
        self.tables = tables
        self.known: dict[str, Type] = {}

    def resolve(self, name: str) -> Type:
        """The type of that expression; KeyError for a name that no table has."""
        found = self.known.get(name)
        if found is not None:
            return found
        if name in _SCALARS:
            type_ = Type(name, _SCALARS[name])
        elif name == "any":
            type_ = Type("interface {}", "any")
        elif name == "time.Time":
            type_ = Type(name, "time")
        elif name in self.tables:
            return self._named(name)
        elif name.startswith("*"):
            type_ = Type(name, "pointer", self.resolve(name[1:]))
        elif name.startswith("[]"):
            type_ = Type(name, "slice", self.resolve(name[2:]))
        elif name.startswith("map["):
            key, _, element = name[4:].partition("]")
            type_ = Type(name, "map", self.resolve(element), key)
        elif name.startswith("["):
            size, _, element = name[1:].partition("]")
            type_ = Type(name, "array", self.resolve(element), size)
        else:
            raise KeyError(name)
        self.known[name] = type_
        return type_

    def _named(self, name: str) -> Type:
        text = self.tables[name].strip()
        if text and " " not in text:
            target = self.resolve(text)
            type_ = Type(name, target.kind, target.element, target.key)
            self.known[name] = type_
            return type_
        type_ = Type(name, "struct")
        self.known[name] = type_  # before its fields: types may hold pointers to themselves
        for line in text.splitlines():
            words = line.split()
            if not words:
                continue
            if words[0].startswith("+"):
                embedded = words[0][1:]
                label = embedded.rpartition(".")[2]
                type_.fields.append(
                    StructField(label, "", self.resolve(embedded), is_omitted_empty=False, is_embedded=True)
                )
                continue
            label, _, key = words[0].partition("=")
            type_.fields.append(
                StructField(
                    label, key or label, self.resolve(words[1]), is_omitted_empty="?" in words, is_embedded=False
                )
            )
        return type_
