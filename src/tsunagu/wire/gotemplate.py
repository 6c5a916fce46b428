"""Go's text/template as Docker's `--format` uses it, in Python: `Template("{{.Names}}").render(row)`.

Everything of the language works except complex numbers and function values. Functions: Go's builtins and Docker's `json
join split lower upper title pad truncate`. Differences from Docker, all on purpose: the contents of nested pointers are
printed, not their addresses, and `join` takes a JSON list too. See docs/formatting.md.

For: the command line and `docker inspect`-like output. May import its parts (`gotemplate_*`, `gotypes*`, `goprint`,
`gojson`, `goquote`). Must never import `re`, `json`, `typing` or another slow module at the top (it is on the path of
every `--format`), and must never raise anything but TemplateError for a text that a user typed.

Output may hold surrogate escapes when a template cuts a UTF-8 character in two: write it with errors="surrogateescape".
"""

from __future__ import annotations

from tsunagu.wire.gotemplate_eval import Evaluator
from tsunagu.wire.gotemplate_functions import FUNCTIONS, HEADER_FUNCTIONS
from tsunagu.wire.gotemplate_nodes import TemplateError
from tsunagu.wire.gotemplate_parse import Parser
from tsunagu.wire.gotypes import INVALID, Number, Row, Typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["INVALID", "Row", "Template", "TemplateError", "header_word", "listing", "typed"]


class Template:
    """A parsed template; safe to render many times. Raises TemplateError (Go's sentence) when `text` does not parse."""

    __slots__ = ("name", "templates", "text")

    def __init__(self, text: str, name: str = "") -> None:
        self.text = text
        self.name = name
        try:
            self.templates = Parser(text, name, FUNCTIONS).run()
        except RecursionError:
            raise TemplateError(f"template: {name}:1: nested too deeply") from None

    def render(self, value: object, *, fails_on_missing: bool = False) -> str:
        """The text for `value`: a dict (names are its keys), a Row, or a `typed` value. No newline is added.

        A missing map key prints `<no value>`, or raises with `fails_on_missing` (Go's missingkey=error). Raises
        TemplateError.
        """
        run = Evaluator(self.text, self.name, self.templates, FUNCTIONS, fails_on_missing=fails_on_missing)
        run.run(value)
        return "".join(run.parts)

    def inspect(self, value: object, type_name: str) -> str:
        """What `docker inspect -f` prints for one object (its JSON, decoded): a run on Docker's Go type, and if that
        fails, one on the raw JSON.

        `type_name`: "container", "network", "image", "volume", or a Go name of `gotypes_docker`. The second run has
        numbers as text (json.Number) and fails on missing keys; its error is the one shown, as in Docker. Raises
        TemplateError.
        """
        try:
            return self.render(typed(value, type_name))
        except TemplateError:
            return self.render(_with_text_numbers(value), fails_on_missing=True)

    def header(self, headers: Mapping[str, str]) -> str:
        """The header line of `table …`: the template over the header words, with functions that leave them alone.

        As in Docker an error ends the line where it happened, and a field without a header is `<no value>`.
        """
        run = Evaluator(self.text, self.name, self.templates, HEADER_FUNCTIONS)
        try:
            run.run(_Headers("formatter.SubHeaderContext", headers, {"Label": header_word}))
        except TemplateError:
            return "".join(run.parts)
        return "".join(run.parts)


def _with_text_numbers(value: object) -> object:
    """The JSON as Docker reads it for the second run: every number is a json.Number."""
    if isinstance(value, dict):
        return {key: _with_text_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_text_numbers(item) for item in value]
    return Number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class _Headers(Row):
    """Header words by field name; a missing one is no error here."""

    __slots__ = ()
    is_open = True


def header_word(label: str) -> str:
    """The header of `{{.Label "com.example.my-key"}}`: the part after the last dot, `-` and `_` as spaces."""
    return label.rpartition(".")[2].replace("-", " ").replace("_", " ")


def typed(value: object, type_name: str) -> Typed:
    """A decoded JSON object seen through Docker's Go type. KeyError for a type that the tables lack."""
    from tsunagu.wire.gotypes_docker import resolve

    return Typed(resolve(type_name), value)


def listing(form: str) -> tuple[Template, bool]:
    """The template of a listing's `--format`, and whether it began with `table`.

    As Docker: `json` means `{{json .}}`; the two characters `\\t` and `\\n` become a tab and a newline; spaces
    around are cut. Raises TemplateError.
    """
    is_table = form.startswith("table")
    text = form[len("table") :] if is_table else "{{json .}}" if form == "json" else form
    text = text.strip(" ").replace("\\t", "\t").replace("\\n", "\n")
    return Template(text), is_table
