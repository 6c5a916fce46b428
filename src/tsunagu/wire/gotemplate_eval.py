"""Runs a parsed Go template over a value.

For: `gotemplate`. May import the other template modules. Must never run without end: output, steps and
depth are bounded.

Values are those of `gotypes`. The order in which nodes are visited (`self.node`) is Go's, because errors name the node
visited last: `template: :1:8: executing "" at <.State.Health.Status>: …`.
"""

from __future__ import annotations

from tsunagu.wire.goquote import quote
from tsunagu.wire.gotemplate_functions import MAX_TEXT, Function, FunctionError, bare, indirect, is_true
from tsunagu.wire.gotemplate_nodes import (
    Action,
    Branch,
    Call,
    Chain,
    Command,
    Field,
    Jump,
    Literal,
    Node,
    Pipeline,
    TemplateError,
    Text,
    Variable,
)
from tsunagu.wire.gotemplate_nodes import Function as FunctionNode
from tsunagu.wire.gotypes import INVALID, NIL, Interface, Invalid, Number, Row, Strings, Typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import NoReturn

MAX_STEPS = 2_000_000  # nodes visited; the largest real listing takes thousands
MAX_CALLS = 100  # nested `template` calls; Go stops at 100000, Python's stack sooner


class _Missing:
    """No value comes through the pipeline (a missing *operand*, unlike INVALID)."""


_MISSING = _Missing()


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Evaluator:
    """One run. `fails_on_missing` is Go's `missingkey=error`."""

    def __init__(
        self,
        source: str,
        name: str,
        templates: Mapping[str, list[Node]],
        functions: Mapping[str, Function],
        *,
        fails_on_missing: bool = False,
    ) -> None:
        self.source = source
        self.name = name
        self.templates = templates
        self.functions = functions
        self.fails_on_missing = fails_on_missing
        self.running = name
        self.node: Node | None = None
        self.variables: list[list[object]] = []
        self.parts: list[str] = []
        self.size = self.steps = self.calls = 0

    def run(self, value: object) -> None:
        """Appends the output to `parts`; what came before an error stays there. Raises TemplateError."""
        dot = INVALID if value is None else value
        self.variables = [["$", dot]]
        try:
            self._walk_all(self.templates[self.name], dot)
        except RecursionError:
            raise TemplateError(f"template: {self.name}: nested too deeply") from None

    def _fail(self, message: str) -> NoReturn:
        """Go's sentence: where (line and byte of the node visited last), in which template, at which source."""
        node = self.node
        if node is None:
            raise TemplateError(f"template: {self.running}: {message}")
        before = self.source[: node.position]
        line = before.count("\n") + 1
        column = len(before[before.rfind("\n") + 1 :].encode("utf-8", "surrogatepass"))
        raise TemplateError(
            f"template: {self.name}:{line}:{column}: executing {quote(self.running)} at <{node}>: {message}"
        )

    def _write(self, text: str) -> None:
        self.size += len(text)
        if self.size > MAX_TEXT:
            self._fail(f"output is longer than {MAX_TEXT >> 20} MiB")
        self.parts.append(text)

    # Nodes.

    def _walk_all(self, nodes: list[Node], dot: object) -> None:
        for node in nodes:
            self.steps += 1
            if self.steps > MAX_STEPS:
                self._fail(f"stopped after {MAX_STEPS} steps")
            if isinstance(node, Text):
                self._write(node.text)
                continue
            self.node = node
            if isinstance(node, Action):
                value = self._pipeline(node.pipeline, dot)
                if not node.pipeline.variables:
                    self.node = node
                    self._write(value if isinstance(value, str) else _text(value))
            elif isinstance(node, Branch):
                mark = len(self.variables)
                if node.kind == "range":
                    self._range(node, dot)
                else:
                    self._if_or_with(node, dot)
                del self.variables[mark:]
            elif isinstance(node, Call):
                self._template(node, dot)
            elif isinstance(node, Jump):
                raise _Break if node.kind == "break" else _Continue

    def _if_or_with(self, node: Branch, dot: object) -> None:
        value = self._pipeline(node.pipeline, dot)
        if is_true(value):
            self._walk_all(node.body, value if node.kind == "with" else dot)
        elif node.otherwise is not None:
            self._walk_all(node.otherwise, dot)

    def _range(self, node: Branch, dot: object) -> None:
        pointer = self._pipeline(node.pipeline, dot)
        value = indirect(pointer)
        if value is None and isinstance(pointer, Typed):
            self._fail("range can't iterate over <nil>")
        names = node.pipeline.variables
        items: Iterable[tuple[object, object]]
        if isinstance(value, (bool, str, float, Row)):
            self._fail(f"range can't iterate over {_text(value)}")
        if isinstance(value, int):
            if len(names) > 1:
                self._fail(f"can't use {value} to iterate over more than one variable")
            items = ((number, number) for number in range(value))
            count = value
        elif isinstance(value, dict):
            items = [(key, Interface(value[key])) for key in sorted(value)]
            count = len(value)
        elif isinstance(value, Typed) and value.type.kind == "map":
            items = [(key, value.entry(key)) for key in value.sorted_keys()]
            count = len(items)
        elif isinstance(value, Typed) and value.type.kind in ("slice", "array"):
            items = list(enumerate(value.items()))
            count = len(items)
        elif isinstance(value, Typed):
            self._fail(f"range can't iterate over {_text(value)}")
        elif isinstance(value, (list, tuple)):
            is_text = isinstance(value, Strings)
            items = [(index, item if is_text else Interface(item)) for index, item in enumerate(value)]
            count = len(items)
        else:
            items, count = (), 0
        if count <= 0:
            if node.otherwise is not None:
                self._walk_all(node.otherwise, dot)
            return
        self._loop(node, items)

    def _loop(self, node: Branch, items: Iterable[tuple[object, object]]) -> None:
        pipeline = node.pipeline
        mark = len(self.variables)
        for index, item in items:
            if pipeline.variables:
                # With two variables the index comes first; with one it is the element.
                values = [index, item] if len(pipeline.variables) > 1 else [item]
                for place, name in enumerate(pipeline.variables):
                    if pipeline.is_assignment:
                        self._assign(name, values[place])
                    else:
                        self.variables[mark - len(values) + place][1] = values[place]
            self.steps += 1
            try:
                self._walk_all(node.body, item)
            except _Continue:
                pass
            except _Break:
                return
            finally:
                del self.variables[mark:]
            if self.steps > MAX_STEPS:
                self._fail(f"stopped after {MAX_STEPS} steps")

    def _template(self, node: Call, dot: object) -> None:
        nodes = self.templates.get(node.name)
        if nodes is None:
            self._fail(f"template {quote(node.name)} not defined")
        if self.calls >= MAX_CALLS:
            self._fail(f"exceeded maximum template depth ({MAX_CALLS})")
        inner = INVALID if node.pipeline is None else self._pipeline(node.pipeline, dot)
        saved = (self.variables, self.running)
        self.variables, self.running = [["$", inner]], node.name
        self.calls += 1
        self._walk_all(nodes, inner)
        self.calls -= 1
        self.variables, self.running = saved

    # Variables.

    def _assign(self, name: str, value: object) -> None:
        for slot in reversed(self.variables):
            if slot[0] == name:
                slot[1] = value
                return
        self._fail(f"undefined variable: {name}")

    def _variable(self, name: str) -> object:
        for slot in reversed(self.variables):
            if slot[0] == name:
                return slot[1]
        self._fail(f"undefined variable: {name}")

    # Pipelines and commands.

    def _pipeline(self, pipeline: Pipeline, dot: object) -> object:
        self.node = pipeline
        value: object = _MISSING
        for command in pipeline.commands:
            value = bare(self._command(command, dot, value))
        for name in pipeline.variables:
            if pipeline.is_assignment:
                self._assign(name, value)
            else:
                self.variables.append([name, value])
        return value

    def _command(self, command: Command, dot: object, final: object) -> object:
        words = command.words
        first = words[0]
        if isinstance(first, Field):
            self.node = first
            return self._fields(dot, first.names, dot, words[1:], final)
        if isinstance(first, FunctionNode):
            self.node = first
            return self._function(first.name, command, dot, words[1:], final)
        if isinstance(first, Chain):
            return self._chain(first, dot, words[1:], final)
        if isinstance(first, Variable):
            self.node = first
            if len(first.names) > 1:
                return self._fields(self._variable(first.names[0]), first.names[1:], dot, words[1:], final)
            self._takes_no_operands(words, final)
            return self._variable(first.names[0])
        if isinstance(first, Pipeline):
            self._takes_no_operands(words, final)
            return self._pipeline(first, dot)
        self.node = first
        self._takes_no_operands(words, final)
        return self._constant(first, dot)

    def _takes_no_operands(self, words: list[Node], final: object) -> None:
        if len(words) > 1 or final is not _MISSING:
            self._fail(f"can't give argument to non-function {words[0]}")

    def _constant(self, node: Node, dot: object) -> object:
        assert isinstance(node, Literal)
        if node.kind == "dot":
            return dot
        if node.kind == "nil":
            self._fail("nil is not a command")
        if isinstance(node.value, int) and node.value >= 1 << 63:
            self._fail(f"{node.text} overflows int")
        return node.value

    def _chain(self, chain: Chain, dot: object, words: list[Node], final: object) -> object:
        self.node = chain
        if isinstance(chain.node, Literal) and chain.node.kind == "nil":
            self._fail(f"indirection through explicit nil in {chain}")
        return self._fields(self._operand(chain.node, "", dot), chain.names, dot, words, final)

    # Fields and calls.

    def _fields(self, receiver: object, names: list[str], dot: object, words: list[Node], final: object) -> object:
        for name in names[:-1]:
            receiver = self._field(receiver, name, dot, [], _MISSING)
        return self._field(receiver, names[-1], dot, words, final)

    def _field(self, receiver: object, name: str, dot: object, words: list[Node], final: object) -> object:
        if isinstance(receiver, Invalid):
            if self.fails_on_missing:
                self._fail(f"nil data; no entry for key {quote(name)}")
            return INVALID
        has_operands = bool(words) or final is not _MISSING
        target = indirect(receiver)
        if isinstance(target, Row):
            return self._row_field(target, name, dot, words, final)
        if isinstance(target, dict) or (
            isinstance(target, Typed) and target.type.kind == "map" and target.type.key == "string"
        ):
            if has_operands:
                self._fail(f"{name} is not a method but has arguments")
            if isinstance(target, dict):
                if name in target:
                    return Interface(target[name])
                found: object = INVALID
            else:
                found = target.entry(name)
            if isinstance(found, Invalid) and self.fails_on_missing:
                self._fail(f"map has no entry for key {quote(name)}")
            return found
        type_name = _type_name(receiver)
        if isinstance(target, Typed) and target.type.kind == "struct":
            field = target.type.field(name)
            if field is not None:
                if has_operands:
                    self._fail(f"{name} has arguments but cannot be invoked as function")
                return self._promoted(target, name)
        if target is None:
            element = receiver.type.element if isinstance(receiver, Typed) else None
            if element is None or element.kind != "struct" or element.field(name) is not None:
                self._fail(f"nil pointer evaluating {type_name}.{name}")
        self._fail(f"can't evaluate field {name} in type {type_name}")

    def _promoted(self, struct: Typed, name: str) -> object:
        """A struct's field, perhaps one of a struct embedded in it."""
        for field in struct.type.fields:
            if field.name == name:
                return struct.get(field)
        for field in struct.type.fields:
            inner = indirect(struct.get(field)) if field.is_embedded else None
            if isinstance(inner, Typed) and inner.type.field(name) is not None:
                return self._promoted(inner, name)
        return INVALID

    def _row_field(self, row: Row, name: str, dot: object, words: list[Node], final: object) -> object:
        """A listing's columns are methods of Docker's formatter: none or one operand, counted."""
        given = len(words) + (final is not _MISSING)
        if name in row.methods:
            if given != 1:
                self._fail(f"wrong number of args for {name}: want 1 got {given}")
            operand = self._operand(words[0], "string", dot) if words else self._checked(final, "string")
            return row.methods[name](operand)  # type: ignore[arg-type]
        value = row.get(name)
        if isinstance(value, Invalid) and not row.is_open:
            self._fail(f"can't evaluate field {name} in type {row.type_name}")
        if given:
            self._fail(f"wrong number of args for {name}: want 0 got {given}")
        return NIL if value is None else value

    def _function(self, name: str, node: Node, dot: object, words: list[Node], final: object) -> object:
        function = self.functions[name]
        parameters = function.parameters
        given = len(words) + (final is not _MISSING)
        if function.is_variadic:
            if given < len(parameters) - 1:
                self._fail(f"wrong number of args for {name}: want at least {len(parameters) - 1} got {len(words)}")
        elif given != len(parameters):
            self._fail(f"wrong number of args for {name}: want {len(parameters)} got {given}")
        if name in ("and", "or"):
            return self._and_or(name, dot, words, final)
        operands = [
            self._operand(word, parameters[min(place, len(parameters) - 1)], dot) for place, word in enumerate(words)
        ]
        if final is not _MISSING:
            operands.append(self._checked(final, parameters[min(len(words), len(parameters) - 1)]))
        try:
            result = function.call(*operands)
            if isinstance(result, str) and len(result) > MAX_TEXT:  # doubled in a loop it would eat all memory
                raise FunctionError(f"the text is longer than {MAX_TEXT >> 20} MiB")
            return result
        except FunctionError as error:
            self.node = node
            message = str(error)
            if name == "call":  # Go names the operand in the source's words
                message = message.replace("non-function", f"non-function {words[0] if words else ''}")
            self._fail(f"error calling {name}: {message}")

    def _and_or(self, name: str, dot: object, words: list[Node], final: object) -> object:
        """Stops at the first operand that decides; Go never looks at the rest."""
        value: object = INVALID
        for word in words:
            value = self._operand(word, "value", dot)
            if is_true(value) == (name == "or"):
                return value
        return value if final is _MISSING else final

    def _operand(self, node: Node, wanted: str, dot: object) -> object:
        """One operand, checked against the parameter's type (`wanted` "" checks nothing)."""
        self.node = node
        if isinstance(node, Literal):
            if node.kind == "dot":
                return self._checked(dot, wanted)
            if node.kind == "nil":
                if wanted not in ("value", "", "[]string"):
                    self._fail(f"cannot assign nil to {wanted}")
                return INVALID if wanted != "[]string" else Strings()
            return self._literal(node, wanted)
        if isinstance(node, Field):
            value = self._fields(dot, node.names, dot, [], _MISSING)
        elif isinstance(node, Variable):
            value = self._variable(node.names[0])
            if len(node.names) > 1:
                value = self._fields(value, node.names[1:], dot, [], _MISSING)
        elif isinstance(node, Pipeline):
            value = self._pipeline(node, dot)
        elif isinstance(node, FunctionNode):
            value = self._function(node.name, node, dot, [], _MISSING)
        elif isinstance(node, Chain):
            value = self._chain(node, dot, [], _MISSING)
        else:
            self._fail(f"can't handle {node} for arg of type {wanted}")
        return self._checked(value, wanted)

    def _literal(self, node: Literal, wanted: str) -> object:
        """A constant given to a function: Go decides by the parameter's type before it looks at the value."""
        value = self._constant(node, None)
        if wanted in ("value", ""):
            return value
        if wanted == "string":
            if node.kind != "string":
                self._fail(f"expected string; found {node}")
        elif wanted == "int":
            # `2.0` is a fine integer in Go, `2.5` is not.
            if node.kind != "number" or isinstance(value, bool) or value != int(value):  # type: ignore[call-overload]
                self._fail(f"expected integer; found {node}")
            return int(value)  # type: ignore[call-overload]
        else:
            self._fail(f"can't handle {node} for arg of type {wanted}")
        return value

    def _checked(self, value: object, wanted: str) -> object:
        """The value as the parameter takes it."""
        if wanted in ("value", ""):
            return value
        inner = bare(value)
        if isinstance(inner, Invalid):
            if wanted == "[]string":
                return Strings()
            if isinstance(value, Interface):
                self._fail(f"wrong type for value; expected {wanted}; got interface {{}}")
            self._fail(f"invalid value; expected {wanted}")
        while isinstance(inner, Typed) and inner.type.kind == "pointer" and inner.value is not None:
            inner = inner.target()
        if wanted == "string":
            # Docker's own types (json.Number) are no strings to Go; only real ones pass.
            if isinstance(inner, str) and not isinstance(inner, Number):
                return inner
        elif wanted == "int":
            if isinstance(inner, int) and not isinstance(inner, bool):
                return inner
        elif isinstance(inner, (list, tuple)) and all(isinstance(item, str) for item in inner):
            return inner  # Go refuses a []interface {} here; a list of texts can mean but one thing
        elif isinstance(inner, Typed) and inner.type.kind == "slice":
            words = inner.items()
            if inner.type.element is not None and inner.type.element.kind == "string":
                return words
        self._fail(f"wrong type for value; expected {wanted}; got {_type_name(inner)}")


def _text(value: object) -> str:
    from tsunagu.wire.goprint import text_of

    return text_of(value)


def _type_name(value: object) -> str:
    from tsunagu.wire.goprint import type_name

    return type_name(value)
