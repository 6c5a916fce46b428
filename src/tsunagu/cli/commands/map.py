"""`map`: networks, containers, names, ports and who reaches whom.

May import: `client`, `cli`. Must never import the engine.
"""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.output import Failure, is_terminal, out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

FORMATS = ("text", "mermaid", "dot", "svg", "json")

_FLAGS: tuple[Flag, ...] = (("format", "", "string", "text", "Draw as text, mermaid, dot (Graphviz), svg or json"),)
_MORE = """Without arguments everything is drawn. A network stands for itself and its containers, a container for
itself, its networks and who else is on them."""


def _map(context: Context, options: Options, arguments: list[str]) -> int:
    form = options["format"]
    if form not in FORMATS:
        raise Failure(f"invalid format: {form} ({', '.join(FORMATS)})", 125)
    found = context.client().get("/tsunagu/map", {"only": arguments} if arguments else None)
    if form == "json":
        from tsunagu.jsontext import dumps

        out(dumps(found) + "\n")
    elif form == "text":
        from tsunagu.cli.drawing import draw

        out(draw(found, _width()))
    else:
        from tsunagu.cli import graphs

        out({"mermaid": graphs.mermaid, "dot": graphs.dot, "svg": graphs.svg}[form](found))
    return 0


def _width() -> int:
    """Columns of the terminal, up to 120: wider lines are hard to follow. 80 where there is none."""
    if not is_terminal(1):
        return 80
    from os import get_terminal_size

    try:
        return min(120, get_terminal_size(1).columns or 80)
    except OSError:
        return 80


MAP = Command(
    "[OPTIONS] [NETWORK|CONTAINER...]",
    "Draw networks, containers and who reaches whom",
    _map,
    flags=_FLAGS,
    more=_MORE,
)
