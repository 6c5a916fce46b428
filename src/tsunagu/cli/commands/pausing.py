"""`pause` and `unpause`. May import: `cli`. Must never import the engine."""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.commands.containers import at_once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tsunagu.cli.flags import Options
    from tsunagu.cli.main import Context


def _pause(context: Context, _options: Options, names: list[str]) -> int:
    return at_once(context, names, "POST", "/pause", {})


def _unpause(context: Context, _options: Options, names: list[str]) -> int:
    return at_once(context, names, "POST", "/unpause", {})


_MANY = "CONTAINER [CONTAINER...]"
PAUSE = Command(_MANY, "Pause all processes within one or more containers", _pause, least=1)
UNPAUSE = Command(_MANY, "Unpause all processes within one or more containers", _unpause, least=1)
