"""Makes the syntax tree (`gotemplate_nodes`) of a Go template from its tokens.

For: `gotemplate`. May import `gotemplate_lex`, `gotemplate_nodes` and `goquote`. Must never evaluate anything,
and must raise nothing but `TemplateError` whatever the text. Sentences of errors are Go 1.24's.
"""

from __future__ import annotations

from tsunagu.wire.goquote import quote, unquote, unquote_char
from tsunagu.wire.gotemplate_lex import (
    ASSIGN,
    BOOL,
    CHAR,
    CLOSE,
    DECLARE,
    DOT,
    EOF,
    ERROR,
    FIELD,
    IDENTIFIER,
    LEFT,
    NIL,
    NUMBER,
    OPEN,
    OTHER,
    PIPE,
    RAW_STRING,
    RIGHT,
    SPACE,
    STRING,
    TEXT,
    VARIABLE,
    Lexer,
    Token,
)
from tsunagu.wire.gotemplate_nodes import (
    Action,
    Branch,
    Call,
    Chain,
    Command,
    Field,
    Function,
    Jump,
    Literal,
    Node,
    Pipeline,
    TemplateError,
    Text,
    Variable,
)

TYPE_CHECKING = False  # typing.TYPE_CHECKING without importing typing, which costs the command line milliseconds
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import NoReturn

# Deeper templates than this are nobody's; below Python's own recursion limit, so the answer is a clean error.
MAX_DEPTH = 60


class Parser:
    """Parses one text; `templates` maps each defined name to its nodes, `name` itself to the main template."""

    def __init__(self, source: str, name: str, functions: Container[str]) -> None:
        self.name = name
        self.functions = functions
        self.tokens: list[Token] = Lexer(source).run()
        self.index = 0
        self.last = self.tokens[0]  # the token looked at last: errors name its line
        self.variables = ["$"]
        self.loops = 0
        self.depth = 0
        self.action_line = 0
        self.templates: dict[str, list[Node]] = {}

    def run(self) -> dict[str, list[Node]]:
        """All templates of the text. Raises TemplateError."""
        nodes: list[Node] = []
        while self._peek().kind != EOF:
            if self._peek().kind == LEFT:
                mark = self.index
                self._next()
                if self._next_word().kind == "define":
                    self._definition()
                    continue
                self.index = mark
            node = self._text_or_action()
            if isinstance(node, Jump) and node.kind in ("end", "else"):
                self._fail(f"unexpected {node}")
            nodes.append(node)
        self._add(self.name, nodes)
        return self.templates

    # Tokens. The last one (EOF or an error) is given again and again.

    def _peek(self) -> Token:
        self.last = self.tokens[min(self.index, len(self.tokens) - 1)]
        return self.last

    def _next(self) -> Token:
        token = self._peek()
        self.index += 1
        return token

    def _next_word(self) -> Token:
        token = self._next()
        while token.kind == SPACE:
            token = self._next()
        return token

    def _peek_word(self) -> Token:
        while self._peek().kind == SPACE:
            self.index += 1
        return self._peek()

    def _expect(self, kind: str, context: str) -> Token:
        token = self._next_word()
        if token.kind != kind:
            self._unexpected(token, context)
        return token

    # Errors.

    def _fail(self, message: str) -> NoReturn:
        raise TemplateError(f"template: {self.name}:{self.last.line}: {message}")

    def _unexpected(self, token: Token, context: str) -> NoReturn:
        if token.kind != ERROR:
            self._fail(f"unexpected {token} in {context}")
        extra = ""
        if self.action_line not in (0, token.line):
            started = f" started at {self.name}:{self.action_line}"
            extra = started if token.text.endswith(" action") else f" in action{started}"
        self._fail(f"{token}{extra}")

    # Templates and actions.

    def _add(self, name: str, nodes: list[Node]) -> None:
        """A later empty definition never replaces an earlier one; two real ones are an error."""
        known = self.templates.get(name)
        if known is None or _is_empty(known):
            self.templates[name] = nodes
        elif not _is_empty(nodes):
            self._fail(f"template: multiple definition of template {quote(name)}")

    def _definition(self) -> None:
        context = "define clause"
        name = self._template_name(context)
        self._expect(RIGHT, context)
        self._add(name, self._nested_template(context))

    def _nested_template(self, context: str) -> list[Node]:
        outer, self.variables = self.variables, ["$"]
        loops, self.loops = self.loops, 0
        nodes, end = self._items()
        if end.kind != "end":
            self._fail(f"unexpected {end} in {context}")
        self.variables, self.loops = outer, loops
        return nodes

    def _template_name(self, context: str) -> str:
        token = self._next_word()
        if token.kind not in (STRING, RAW_STRING):
            self._unexpected(token, context)
        return self._unquoted(token)

    def _items(self) -> tuple[list[Node], Jump]:
        """Nodes up to the matching `{{end}}` or `{{else}}`, and which of them it was."""
        self._deeper()
        nodes: list[Node] = []
        while self._peek_word().kind != EOF:
            node = self._text_or_action()
            if isinstance(node, Jump) and node.kind in ("end", "else"):
                self.depth -= 1
                return nodes, node
            nodes.append(node)
        self._fail("unexpected EOF")

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._fail(f"nested deeper than {MAX_DEPTH} levels")

    def _text_or_action(self) -> Node:
        token = self._next_word()
        if token.kind == TEXT:
            return Text(token.position, token.text)
        if token.kind != LEFT:
            self._unexpected(token, "input")
        self.action_line = token.line
        node = self._action()
        self.action_line = 0
        return node

    def _action(self) -> Node:
        token = self._next_word()
        kind = token.kind
        if kind in ("if", "with", "range"):
            return self._control(kind)
        if kind == "end":
            return Jump(self._expect(RIGHT, "end").position, "end")
        if kind == "else":
            following = self._peek_word()
            # `{{else if x}}` is read as `{{else}}{{if x}}`, sharing the end.
            if following.kind in ("if", "with"):
                return Jump(following.position, "else")
            return Jump(self._expect(RIGHT, "else").position, "else")
        if kind in ("break", "continue"):
            closing = self._next_word()
            if closing.kind != RIGHT:
                self._unexpected(closing, f"{{{{{kind}}}}}")
            if not self.loops:
                self._fail(f"{{{{{kind}}}}} outside {{{{range}}}}")
            return Jump(token.position, kind)
        if kind == "template":
            return self._template_call()
        if kind == "block":
            return self._block()
        self.index -= 1
        first = self._peek()
        return Action(first.position, self._pipeline("command", RIGHT))

    def _control(self, kind: str) -> Node:
        mark = len(self.variables)
        pipeline = self._pipeline(kind, RIGHT)
        self.loops += kind == "range"
        body, closing = self._items()
        self.loops -= kind == "range"
        otherwise: list[Node] | None = None
        if closing.kind == "else":
            if kind != "range" and self._peek().kind == kind:
                self._next()
                self._deeper()
                otherwise = [self._control(kind)]
                self.depth -= 1
            else:
                otherwise, closing = self._items()
                if closing.kind != "end":
                    self._fail(f"expected end; found {closing}")
        del self.variables[mark:]
        return Branch(pipeline.position, kind, pipeline, body, otherwise)

    def _template_call(self) -> Node:
        context = "template clause"
        position = self._peek_word().position
        name = self._template_name(context)
        if self._next_word().kind == RIGHT:
            return Call(position, name, None)
        self.index -= 1
        return Call(position, name, self._pipeline(context, RIGHT))

    def _block(self) -> Node:
        context = "block clause"
        position = self._peek_word().position
        name = self._template_name(context)
        pipeline = self._pipeline(context, RIGHT)
        self._add(name, self._nested_template(context))
        return Call(position, name, pipeline)

    # Pipelines.

    def _pipeline(self, context: str, end: str) -> Pipeline:
        pipeline = Pipeline(self._peek_word().position)
        self._declarations(pipeline, context)
        while True:
            token = self._next_word()
            if token.kind == end:
                break
            if token.kind not in _OPERANDS:
                self._unexpected(token, context)
            self.index -= 1
            pipeline.commands.append(self._command())
        if not pipeline.commands:
            self._fail(f"missing value for {context}")
        for stage, command in enumerate(pipeline.commands[1:], 2):
            if isinstance(command.words[0], Literal):
                self._fail(f"non executable command in pipeline stage {stage}")
        return pipeline

    def _declarations(self, pipeline: Pipeline, context: str) -> None:
        """`$x :=`, `$x =` or, for range, `$i, $e :=`."""
        while self._peek_word().kind == VARIABLE:
            mark = self.index
            variable = self._next()
            following = self._peek_word()
            is_comma = following.kind == OTHER and following.text == ","
            if following.kind not in (ASSIGN, DECLARE) and not is_comma:
                self.index = mark
                return
            pipeline.is_assignment = following.kind == ASSIGN
            self._next_word()
            pipeline.variables.append(variable.text)
            self.variables.append(variable.text)
            if not is_comma:
                return
            if context != "range" or len(pipeline.variables) > 1:
                self._fail(f"too many declarations in {context}")
            if self._peek_word().kind not in (VARIABLE, RIGHT, CLOSE):
                self._fail("range can only initialize variables")

    def _command(self) -> Command:
        command = Command(self._peek_word().position)
        while True:
            self._peek_word()
            operand = self._operand()
            if operand is not None:
                command.words.append(operand)
            token = self._next()
            if token.kind == SPACE:
                continue
            if token.kind in (RIGHT, CLOSE):
                self.index -= 1
            elif token.kind != PIPE:
                self._unexpected(token, "operand")
            break
        if not command.words:
            self._fail("empty command")
        return command

    def _operand(self) -> Node | None:
        node = self._term()
        if node is None or self._peek().kind != FIELD:
            return node
        # Go places a chain at its second link, and its error positions with it.
        position = self._peek().position
        names: list[str] = []
        while self._peek().kind == FIELD:
            names.append(self._next().text[1:])
        if isinstance(node, Field):
            return Field(position, node.names + names)
        if isinstance(node, Variable):
            return Variable(position, node.names + names)
        if isinstance(node, Literal):
            self._fail(f"unexpected . after term {quote(str(node))}")
        return Chain(position, node, names)

    def _term(self) -> Node | None:
        token = self._next_word()
        kind, text, position = token.kind, token.text, token.position
        if kind == FIELD:
            return Field(position, [text[1:]])
        if kind == IDENTIFIER:
            if text not in self.functions:
                self._fail(f"function {quote(text)} not defined")
            return Function(position, text)
        if kind == VARIABLE:
            if text not in self.variables:
                self._fail(f"undefined variable {quote(text)}")
            return Variable(position, [text])
        if kind == DOT:
            return Literal(position, "dot", ".", None)
        if kind == NIL:
            return Literal(position, "nil", "nil", None)
        if kind == BOOL:
            return Literal(position, "bool", text, text == "true")
        if kind in (CHAR, NUMBER):
            return Literal(position, "number", text, self._number(token))
        if kind in (STRING, RAW_STRING):
            return Literal(position, "string", text, self._unquoted(token))
        if kind == OPEN:
            self._deeper()
            pipeline = self._pipeline("parenthesized pipeline", CLOSE)
            self.depth -= 1
            return pipeline
        self.index -= 1
        return None

    def _unquoted(self, token: Token) -> str:
        try:
            return unquote(token.text)
        except ValueError as error:
            raise TemplateError(f"template: {self.name}:{token.line}: {error}") from None

    def _number(self, token: Token) -> int | float:
        """Go's constant: an int unless written as a float (leading 0 is octal, `_` between digits)."""
        text = token.text
        try:
            return unquote_char(text) if token.kind == CHAR else _number(text)
        except ValueError as error:
            message = str(error)
            if token.kind == CHAR and message != "invalid syntax":
                message = f"malformed character constant: {text}"
            raise TemplateError(f"template: {self.name}:{token.line}: {message}") from None
        except OverflowError:
            raise TemplateError(f"template: {self.name}:{token.line}: integer overflow: {quote(text)}") from None


_OPERANDS = frozenset((BOOL, CHAR, DOT, FIELD, IDENTIFIER, NUMBER, NIL, RAW_STRING, STRING, VARIABLE, OPEN))


def _is_empty(nodes: list[Node]) -> bool:
    return all(isinstance(node, Text) and not node.text.strip() for node in nodes)


def _number(text: str) -> int | float:
    """Raises ValueError for what is no number, OverflowError for an integer beyond 64 bits."""
    digits = text.lstrip("+-").lower()
    if digits.endswith("i") and not digits.startswith("0x"):
        raise ValueError(f"complex numbers are not supported: {text}")
    is_hex = digits.startswith("0x")
    is_float = "." in digits or ("p" in digits if is_hex else "e" in digits)
    try:
        if is_float:
            number = float.fromhex(text.replace("_", "")) if is_hex else float(text)
            if abs(number) == float("inf"):
                raise ValueError
            return number
        is_octal = len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567_"
        value = int(text, 8 if is_octal else 0)
    except (ValueError, OverflowError):  # fromhex overflows where float() gives infinity
        raise ValueError(f"illegal number syntax: {quote(text)}") from None
    if not -(1 << 63) <= value < 1 << 64:
        raise OverflowError
    return value
