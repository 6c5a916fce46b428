"""Tokens of a Go template: text outside `{{ }}`, and the small language inside.

For: `gotemplate_parse`. May import `goquote` (error texts). Must never import anything slow (this runs in the command
line before every `--format`), nor fail with anything but an error token: the parser turns that into `TemplateError`.

Behaviour follows Go 1.24's text/template; `tests/contract/test_gotemplate_docker.py` compares with the docker client.
"""

from __future__ import annotations

from tsunagu.wire.goquote import code_point, quote

# Kinds of tokens. Keywords are their own kind ("if", "range", …).
TEXT, LEFT, RIGHT, EOF, ERROR, SPACE = "text", "{{", "}}", "EOF", "error", "space"
FIELD, VARIABLE, IDENTIFIER, DOT, NIL, BOOL = "field", "variable", "identifier", ".", "nil", "bool"
NUMBER, CHAR, STRING, RAW_STRING = "number", "char", "string", "raw string"
ASSIGN, DECLARE, PIPE, OPEN, CLOSE, OTHER = "=", ":=", "|", "(", ")", "other"

KEYWORDS = frozenset(("block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"))
_SPACES = " \t\r\n"
# After a name must come one of these (or the closing delimiter): `{{.a-b}}` is an error, not a subtraction.
_TERMINATORS = frozenset(" \t\r\n.,|:)(")
_NUMBER_STARTS = frozenset("+-0123456789")


class Token:
    """One token: kind, text as written, index of its first character, line (from 1)."""

    __slots__ = ("kind", "line", "position", "text")

    def __init__(self, kind: str, text: str, position: int, line: int) -> None:
        self.kind = kind
        self.text = text
        self.position = position
        self.line = line

    def __str__(self) -> str:
        """As Go names a token in a syntax error."""
        if self.kind == EOF:
            return "EOF"
        if self.kind == ERROR:
            return self.text
        if self.kind in KEYWORDS or self.kind in (DOT, NIL):
            return f"<{self.text}>"
        return f"{quote(self.text[:10])}..." if len(self.text) > 10 else quote(self.text)


class Lexer:
    """Splits one template; `tokens` ends with EOF or with one error token."""

    __slots__ = ("depth", "line", "position", "source", "tokens")

    def __init__(self, source: str) -> None:
        self.source = source
        self.position = 0
        self.line = 1
        self.depth = 0
        self.tokens: list[Token] = []

    def run(self) -> list[Token]:
        """All tokens of the source."""
        is_trimmed = False
        while True:
            start = self.source.find("{{", self.position)
            end = len(self.source) if start < 0 else start
            self._text(end, trims_left=is_trimmed, trims_right=start >= 0 and self._trims_after(start + 2))
            if start < 0:
                self._emit(EOF, self.position)
                return self.tokens
            closing = self._action(start)
            if closing is None:
                return self.tokens
            is_trimmed = closing

    def _emit(self, kind: str, end: int) -> None:
        text = self.source[self.position : end]
        self.tokens.append(Token(kind, text, self.position, self.line))
        self.line += text.count("\n")
        self.position = end

    def _error(self, message: str) -> bool:
        self.tokens.append(Token(ERROR, message, self.position, self.line))
        return False

    def _skip(self, end: int) -> None:
        self.line += self.source.count("\n", self.position, end)
        self.position = end

    def _text(self, end: int, *, trims_left: bool, trims_right: bool) -> None:
        """The text up to `end`, without the white space that a trim marker beside it takes away."""
        start = self.position
        if trims_left:
            while start < end and self.source[start] in _SPACES:
                start += 1
        stop = end
        if trims_right:
            while stop > start and self.source[stop - 1] in _SPACES:
                stop -= 1
        self._skip(start)
        if stop > start:
            self._emit(TEXT, stop)
        self._skip(end)

    def _trims_after(self, index: int) -> bool:
        """Whether `- ` follows the opening delimiter (`{{-3}}` is a number, so the space counts)."""
        return self.source[index : index + 1] == "-" and self.source[index + 1 : index + 2] in (" ", "\t", "\r", "\n")

    def _closes(self, index: int) -> int:
        """Length of the closing delimiter at `index` with its trim marker (4), without (2), or 0."""
        if self.source.startswith("}}", index):
            return 2
        if self.source[index : index + 1] in (" ", "\t", "\r", "\n") and self.source.startswith("-}}", index + 1):
            return 4
        return 0

    def _action(self, start: int) -> bool | None:
        """One action from its `{{`; whether its end trims the text after it, None at an error."""
        opening = start + 2
        inside = opening + 2 if self._trims_after(opening) else opening
        if self.source.startswith("/*", inside):
            return self._comment(start, inside)
        self._emit(LEFT, opening)
        self._skip(inside)
        self.depth = 0
        source = self.source
        while True:
            closing = self._closes(self.position)
            if closing:
                if self.depth:
                    self._error("unclosed left paren")
                    return None
                self._skip(self.position + closing - 2)
                self._emit(RIGHT, self.position + 2)
                return closing == 4
            if self.position >= len(source):
                self._error("unclosed action")
                return None
            if not self._token(source[self.position]):
                return None

    def _comment(self, start: int, inside: int) -> bool | None:
        """A comment leaves no token; it must fill its action."""
        self._skip(start)
        end = self.source.find("*/", inside + 2)
        if end < 0:
            self._skip(inside)
            self._error("unclosed comment")
            return None
        closing = self._closes(end + 2)
        if not closing:
            self._skip(end + 2)
            self._error("comment ends before closing delimiter")
            return None
        self._skip(end + 2 + closing)
        return closing == 4

    def _token(self, char: str) -> bool:
        """One token inside an action; False after an error."""
        source, start = self.source, self.position
        if char in _SPACES:
            end = start + 1
            while end < len(source) and source[end] in _SPACES and not self._closes(end):
                end += 1
            self._emit(SPACE, end)
        elif char == "." and source[start + 1 : start + 2] not in _DIGITS:
            return self._name(FIELD, DOT)
        elif char == "$":
            return self._name(VARIABLE, VARIABLE)
        elif char == "." or char in _NUMBER_STARTS:
            return self._number()
        elif _is_word(char):
            return self._word()
        elif char in "\"'`":
            return self._quoted(char)
        elif char in "=|":
            self._emit(ASSIGN if char == "=" else PIPE, start + 1)
        elif char == ":":
            if source[start + 1 : start + 2] != "=":
                return self._error("expected :=")
            self._emit(DECLARE, start + 2)
        elif char == "(":
            self.depth += 1
            self._emit(OPEN, start + 1)
        elif char == ")":
            if not self.depth:
                return self._error("unexpected right paren")
            self.depth -= 1
            self._emit(CLOSE, start + 1)
        elif char.isascii() and char.isprintable():
            self._emit(OTHER, start + 1)
        else:
            return self._error(f"unrecognized character in action: {code_point(char)}")
        return True

    def _ends_name(self, index: int) -> bool:
        char = self.source[index : index + 1]
        return not char or char in _TERMINATORS or self.source.startswith("}}", index)

    def _name(self, kind: str, alone: str) -> bool:
        """`.field` or `$variable`; alone it is the dot, or the variable `$`."""
        source, end = self.source, self.position + 1
        if self._ends_name(end):
            self._emit(alone, end)
            return True
        while end < len(source) and _is_word(source[end]):
            end += 1
        if not self._ends_name(end):
            return self._error(f"bad character {code_point(source[end])}")
        self._emit(kind, end)
        return True

    def _word(self) -> bool:
        source, end = self.source, self.position + 1
        while end < len(source) and _is_word(source[end]):
            end += 1
        if not self._ends_name(end):
            return self._error(f"bad character {code_point(source[end])}")
        word = source[self.position : end]
        if word in KEYWORDS:
            self._emit(word, end)
        elif word == "nil":
            self._emit(NIL, end)
        else:
            self._emit(BOOL if word in ("true", "false") else IDENTIFIER, end)
        return True

    def _number(self) -> bool:
        """A number in Go's syntax as far as its characters go; its value is the parser's work."""
        source, end = self.source, self.position
        if source[end] in "+-":
            end += 1
        digits = "0123456789_"
        is_hex = is_decimal = False
        if source[end : end + 1] == "0":
            end += 1
            base = source[end : end + 1].lower()
            sets = {"x": "0123456789abcdefABCDEF_", "o": "01234567_", "b": "01_"}
            if base in sets:
                digits, is_hex, end = sets[base], base == "x", end + 1
            else:
                is_decimal = True
        else:
            is_decimal = True
        end = _run(source, end, digits)
        if source[end : end + 1] == ".":
            end = _run(source, end + 1, digits)
        exponent = source[end : end + 1]
        if exponent and ((is_decimal and exponent in "eE") or (is_hex and exponent in "pP")):
            end += 2 if source[end + 1 : end + 2] in ("+", "-") else 1
            end = _run(source, end, "0123456789_")
        if source[end : end + 1] == "i":
            end += 1
        if end < len(source) and _is_word(source[end]):
            return self._error(f"bad number syntax: {quote(source[self.position : end + 1])}")
        self._emit(NUMBER, end)
        return True

    def _quoted(self, mark: str) -> bool:
        """A string, raw string or character constant, as written."""
        source, end = self.source, self.position + 1
        kinds = {
            '"': (STRING, "quoted string"),
            "'": (CHAR, "character constant"),
            "`": (RAW_STRING, "raw quoted string"),
        }
        kind, words = kinds[mark]
        while True:
            char = source[end : end + 1]
            if char == "\\" and mark != "`" and source[end + 1 : end + 2] not in ("", "\n"):
                end += 2
                continue
            if not char or (mark != "`" and char in "\n\\"):
                return self._error(f"unterminated {words}")
            end += 1
            if char == mark:
                self._emit(kind, end)
                return True


_DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


def _run(source: str, index: int, chars: str) -> int:
    while index < len(source) and source[index] in chars:
        index += 1
    return index


def _is_word(char: str) -> bool:
    return char == "_" or char.isalpha() or char.isdecimal()
