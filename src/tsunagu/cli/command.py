"""What a command is: its flags, its arguments and the function that runs it.

May import: `cli/flags.py` types only. Must never import a command module: the table does, lazily.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

    Run = Callable[[Context, Options, list[str]], int]


class Command:
    """One command of the command line.

    `usage` follows the command's path in "Usage:"; `least` and `most` bound the number of arguments (None = any);
    `is_interspersed` is false where everything after the first argument belongs to another program.
    `run(context, options, arguments)` returns the exit code.
    """

    __slots__ = ("about", "flags", "is_interspersed", "least", "more", "most", "run", "usage")

    def __init__(
        self,
        usage: str,
        about: str,
        run: Run,
        *,
        flags: Sequence[Flag] = (),
        least: int = 0,
        most: int | None = None,
        is_interspersed: bool = True,
        more: str = "",
    ) -> None:
        self.usage = usage
        self.about = about
        self.run = run
        self.flags = flags
        self.least = least
        self.most = most
        self.is_interspersed = is_interspersed
        self.more = more

    def argument_error(self, count: int) -> str:
        """Docker's words for a wrong number of arguments, "" when it is right."""
        least, most = self.least, self.most
        if count >= least and (most is None or count <= most):
            return ""
        plural = "" if (least if most is None else most) == 1 else "s"
        if most == 0:
            return "accepts no arguments"
        if most is None:
            return f"requires at least {least} argument{plural}"
        if least == most:
            return f"requires {least} argument{plural}"
        if least == 0:
            return f"requires at most {most} argument{plural}"
        return f"requires at least {least} and at most {most} argument{plural}"
