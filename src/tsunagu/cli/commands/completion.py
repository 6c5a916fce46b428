"""`completion bash|zsh|fish`, and `completion candidates`, which the scripts call. May import: `cli/completion.py`."""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.output import PROGRAM, out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tsunagu.cli.flags import Options
    from tsunagu.cli.main import Context


def _printer(shell: str) -> Callable[[Context, Options, list[str]], int]:
    def run(_context: Context, _options: Options, _arguments: list[str]) -> int:
        from tsunagu.cli.completion import script

        out(script(shell))
        return 0

    return run


def _candidates(context: Context, options: Options, words: list[str]) -> int:
    from tsunagu.cli.completion import candidates, names
    from tsunagu.client import ClientError

    def lookup(kind: str, host: str) -> list[tuple[str, str]]:
        try:
            return names(kind, host or context.host)
        except (ClientError, OSError):
            return []  # no engine, no names: nothing may be printed while somebody types

    out(candidates(words or [""], lookup).text(is_described=options["describe"]))
    return 0


def _command(shell: str, how: str) -> Command:
    return Command("", f"Print the completion script for {shell}", _printer(shell), most=0, more=how)


CANDIDATES = Command(
    "-- [WORD...]",
    "Print what may stand in place of the last word",
    _candidates,
    flags=(("describe", "", "bool", False, "Add descriptions"),),
)
BASH = _command("bash", f"For this shell:\n  source <({PROGRAM} completion bash)")
FISH = _command("fish", f"For this shell:\n  {PROGRAM} completion fish | source")
ZSH = _command("zsh", f"For this shell:\n  source <({PROGRAM} completion zsh)")
