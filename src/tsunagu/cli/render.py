"""Lists as Docker's client prints them: aligned tables, Go templates, JSON lines.

A list is described by its columns: name -> (header, function of one item). The plain table, which is the common case,
touches neither the template engine nor the columns that it does not show. May import: `wire.gotemplate` lazily.
"""

from __future__ import annotations

from tsunagu.cli.output import Failure, out, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from tsunagu.wire.gotemplate import Template

    Columns = Mapping[str, tuple[str, Callable[[Any], object]]]

_PADDING = 3
_LEAST_WIDTH = 10


def align(rows: Sequence[Sequence[str]], least: int = _LEAST_WIDTH, padding: int = _PADDING) -> str:
    """Lines of a table whose rows all have the same number of cells; the last cell is not padded."""
    if not rows:
        return ""
    last = len(rows[0]) - 1
    widths = [max(least, max([len(row[column]) for row in rows]) + padding) for column in range(last)]
    return "".join(
        ["".join([row[i].ljust(widths[i]) for i in range(last)]) + row[last] + "\n" for row in rows],
    )


def tab_write(text: str, least: int = _LEAST_WIDTH, padding: int = _PADDING) -> str:
    """Go's text/tabwriter: cells end in tabs, and a column is as wide as its cells on neighbouring lines."""
    lines = [line.split("\t") for line in text.split("\n")]
    widths: list[dict[int, int]] = [{} for _ in lines]
    for column in range(max(len(line) for line in lines) - 1):
        start = 0
        while start < len(lines):
            end = start
            while end < len(lines) and len(lines[end]) - 1 > column:
                end += 1
            if end > start:
                width = max(least, max(len(lines[i][column]) for i in range(start, end)) + padding)
                for i in range(start, end):
                    widths[i][column] = width
            start = end + 1
    made = []
    for line, sizes in zip(lines, widths, strict=True):
        made.append("".join(cell.ljust(sizes.get(i, 0)) for i, cell in enumerate(line)))
    return "\n".join(made)


def print_list(
    columns: Columns,
    items: Sequence[Any],
    *,
    default: Sequence[str],
    type_name: str,
    template: str = "",
    quiet: Callable[[Any], str] | None = None,
    is_quiet_first: bool = False,
    label: Callable[[Any, str], str] | None = None,
    raw: Sequence[tuple[str, str]] = (),
) -> None:
    """Print a list the way `--format` and `--quiet` ask for.

    `default` names the columns of the plain table; `quiet` gives the one word of a quiet line (None: not quiet), and
    wins over a template only where `is_quiet_first` (`ps`); `label` serves the template method `.Label "x"`; `raw` is
    what `--format raw` means: a title and a template for each line. Raises Failure for a template that cannot be used.
    """
    if quiet is not None and (is_quiet_first or template in ("", "table", "raw")):
        if template and is_quiet_first:
            warn("WARNING: Ignoring custom format, because both --format and --quiet are set.")
        titles = [f"{title}: " for title, form in raw if form == " {{.ID}}" and template == "raw"]
        out("".join([f"{''.join(titles)}{quiet(item)}\n" for item in items]))
    elif template in ("", "table"):
        functions = [columns[name][1] for name in default]
        rows = [[columns[name][0] for name in default]]
        rows += [[str(function(item)) for function in functions] for item in items]
        out(align(rows))
    elif template in ("json", "{{json .}}"):
        from tsunagu.jsontext import dumps_go

        names = sorted(columns)
        out("".join([dumps_go({name: columns[name][1](item) for name in names}) + "\n" for item in items]))
    else:
        if template == "raw" and raw:
            template = "".join([f"{title}:{form}\n" for title, form in raw])
        _print_template(columns, items, type_name, template, label)


def _print_template(
    columns: Columns,
    items: Sequence[Any],
    type_name: str,
    template: str,
    label: Callable[[Any, str], str] | None,
) -> None:
    from tsunagu.wire.gotemplate import Row, TemplateError, listing

    try:
        compiled, is_table = listing(template)
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}") from None
    lines = []
    try:
        for item in items:
            fields = {name: _Late(column[1], item) for name, column in columns.items()}
            lines.append(compiled.render(Row(type_name, fields, {"Label": _Bound(label, item)} if label else {})))
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}") from None
    if is_table:
        lines.insert(0, compiled.header({name: column[0] for name, column in columns.items()}))
    made = "".join([line + "\n" for line in lines])
    out(tab_write(made) if is_table else made)


class _Late:
    """A column's value, computed when the template asks for it."""

    __slots__ = ("function", "item")

    def __init__(self, function: Callable[[Any], object], item: Any) -> None:
        self.function = function
        self.item = item

    def __call__(self) -> object:
        return self.function(self.item)


class _Bound:
    """A method of one item."""

    __slots__ = ("function", "item")

    def __init__(self, function: Callable[[Any, str], str], item: Any) -> None:
        self.function = function
        self.item = item

    def __call__(self, argument: str) -> str:
        return self.function(self.item, argument)


def compile_template(
    text: str, name: str = "", complaint: str = "template parsing error: ", code: int = 64
) -> Template:
    """A parsed Go template. Raises Failure with `complaint` in front of Go's sentence, and Docker's exit code 64."""
    from tsunagu.wire.gotemplate import Template, TemplateError

    try:
        return Template(text, name)
    except TemplateError as error:
        raise Failure(f"{complaint}{error}", code) from None


def ellipsis(text: str, width: int) -> str:
    """At most `width` characters, the last of them "…" when the text is longer."""
    return text if len(text) <= width else text[: width - 1] + "…"


def go_quote(text: str) -> str:
    """Go's strconv.Quote."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    from tsunagu.wire.goquote import quote

    return quote(text)


def short_id(identity: str) -> str:
    """The first 12 digits of an id, without the "sha256:" of images."""
    return identity.rpartition(":")[2][:12]


def query_filters(pairs: Sequence[tuple[str, str]]) -> str:
    """`--filter` values as the API's JSON."""
    from tsunagu.jsontext import dumps

    made: dict[str, dict[str, bool]] = {}
    for name, value in sorted(pairs):
        made.setdefault(name, {})[value] = True
    return dumps(made)


def sort_key(name: str) -> list[tuple[int, int]]:
    """Docker's natural order of names: runs of digits compare as numbers, so that "a2" comes before "a10"."""
    key: list[tuple[int, int]] = []
    digits = ""
    for letter in name:
        if letter.isascii() and letter.isdecimal():
            digits += letter
            continue
        if digits:
            key.append((ord("0"), int(digits)))
            digits = ""
        key.append((ord(letter), 0))
    return [*key, (ord("0"), int(digits))] if digits else key
