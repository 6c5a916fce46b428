"""`completion bash|zsh|fish`. May import: `cli/completion.py`, which makes the script from the command tables."""

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


def _command(shell: str, how: str) -> Command:
    return Command("", f"Print the completion script for {shell}", _printer(shell), most=0, more=how)


BASH = _command("bash", f"For this shell:\n  source <({PROGRAM} completion bash)")
FISH = _command("fish", f"For this shell:\n  {PROGRAM} completion fish | source")
ZSH = _command("zsh", f"For this shell:\n  source <({PROGRAM} completion zsh)")
