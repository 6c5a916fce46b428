"""Syntax tree of a Go template, and the one error that all its modules raise.

For: `gotemplate_parse`, `gotemplate_eval`. May import `goquote`. Must never hold more than what the source says.
"""

from __future__ import annotations

from tsunagu.wire.goquote import quote


class TemplateError(Exception):
    """A template that does not parse or does not fit its value; the text is Go's sentence (`template: :1: …`)."""


class Node:
    """One piece of a template. `position` is the index of its first character in the source.

    `str(node)` is its source again in Go's normal form; errors quote it.
    """

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position


class Text(Node):
    __slots__ = ("text",)

    def __init__(self, position: int, text: str) -> None:
        self.position = position
        self.text = text

    def __str__(self) -> str:
        return self.text


class Literal(Node):
    """A constant: `kind` is "string", "bool", "number", "nil" or "dot"; `text` as written, `value` what it means."""

    __slots__ = ("kind", "text", "value")

    def __init__(self, position: int, kind: str, text: str, value: object) -> None:
        self.position = position
        self.kind = kind
        self.text = text
        self.value = value

    def __str__(self) -> str:
        return self.text


class Field(Node):
    """`.A.B`."""

    __slots__ = ("names",)

    def __init__(self, position: int, names: list[str]) -> None:
        self.position = position
        self.names = names

    def __str__(self) -> str:
        return "." + ".".join(self.names)


class Variable(Node):
    """`$x.A.B`; names[0] includes the dollar."""

    __slots__ = ("names",)

    def __init__(self, position: int, names: list[str]) -> None:
        self.position = position
        self.names = names

    def __str__(self) -> str:
        return ".".join(self.names)


class Function(Node):
    __slots__ = ("name",)

    def __init__(self, position: int, name: str) -> None:
        self.position = position
        self.name = name

    def __str__(self) -> str:
        return self.name


class Chain(Node):
    """`(pipeline).A.B`, or a function's result with fields."""

    __slots__ = ("names", "node")

    def __init__(self, position: int, node: Node, names: list[str]) -> None:
        self.position = position
        self.node = node
        self.names = names

    def __str__(self) -> str:
        inner = f"({self.node})" if isinstance(self.node, Pipeline) else str(self.node)
        return inner + "".join("." + name for name in self.names)


class Command(Node):
    __slots__ = ("words",)

    def __init__(self, position: int) -> None:
        self.position = position
        self.words: list[Node] = []

    def __str__(self) -> str:
        return " ".join(f"({word})" if isinstance(word, Pipeline) else str(word) for word in self.words)


class Pipeline(Node):
    """Commands joined by `|`, perhaps assigned to variables."""

    __slots__ = ("commands", "is_assignment", "variables")

    def __init__(self, position: int) -> None:
        self.position = position
        self.commands: list[Command] = []
        self.variables: list[str] = []
        self.is_assignment = False

    def __str__(self) -> str:
        head = ""
        if self.variables:
            head = ", ".join(self.variables) + (" = " if self.is_assignment else " := ")
        return head + " | ".join(str(command) for command in self.commands)


class Action(Node):
    __slots__ = ("pipeline",)

    def __init__(self, position: int, pipeline: Pipeline) -> None:
        self.position = position
        self.pipeline = pipeline

    def __str__(self) -> str:
        return f"{{{{{self.pipeline}}}}}"


class Branch(Node):
    """`if`, `with` or `range` (`kind`) with its body and what follows `else`."""

    __slots__ = ("body", "kind", "otherwise", "pipeline")

    def __init__(
        self, position: int, kind: str, pipeline: Pipeline, body: list[Node], otherwise: list[Node] | None
    ) -> None:
        self.position = position
        self.kind = kind
        self.pipeline = pipeline
        self.body = body
        self.otherwise = otherwise

    def __str__(self) -> str:
        middle = "" if self.otherwise is None else "{{else}}" + "".join(str(node) for node in self.otherwise)
        return f"{{{{{self.kind} {self.pipeline}}}}}{''.join(str(node) for node in self.body)}{middle}{{{{end}}}}"


class Jump(Node):
    """`break` or `continue` (`kind`); while parsing also `end` and `else`."""

    __slots__ = ("kind",)

    def __init__(self, position: int, kind: str) -> None:
        self.position = position
        self.kind = kind

    def __str__(self) -> str:
        return f"{{{{{self.kind}}}}}"


class Call(Node):
    """`{{template "name" pipeline}}`."""

    __slots__ = ("name", "pipeline")

    def __init__(self, position: int, name: str, pipeline: Pipeline | None) -> None:
        self.position = position
        self.name = name
        self.pipeline = pipeline

    def __str__(self) -> str:
        tail = "" if self.pipeline is None else f" {self.pipeline}"
        return f"{{{{template {quote(self.name)}{tail}}}}}"
