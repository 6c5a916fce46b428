"""Help texts in the layout of Docker's client, made from the command and flag tables.

May import: `cli` tables and commands. Must never be imported by a command that does its work.
"""

from __future__ import annotations

from posix import get_terminal_size

from tsunagu.cli import commands
from tsunagu.cli.main import GLOBAL_FLAGS, load
from tsunagu.cli.output import PROGRAM, Failure, out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tsunagu.cli.command import Command
    from tsunagu.cli.flags import Flag

# Kinds whose name in the help text differs from the name of their parser.
_SHOWN = {"bool": "", "swap": "bytes"}


def print_help(words: list[str]) -> int:
    """`tsunagu help [COMMAND…]`. Raises Failure for an unknown topic."""
    words = [word for word in words if not word.startswith("-")]
    if not words:
        return print_top()
    if words[0] in commands.GROUPS:
        if len(words) == 1:
            return print_group(words[0])
        entry = commands.GROUPS[words[0]][1].get(words[1])
    else:
        entry = commands.TOP.get(words[0]) if len(words) == 1 else None
    if entry is None:
        raise Failure(f"unknown help topic: {' '.join(words)}")
    return print_command(" ".join(words), load(entry))


def print_top() -> int:
    lines = [
        f"Usage:  {PROGRAM} [OPTIONS] COMMAND",
        "",
        "A Docker-compatible container engine that knows why A cannot reach B",
        "",
        "Common Commands:",
        *_list(commands.TOP, commands.COMMON),
        "",
        "Management Commands:",
        *[f"  {name:<11} {about}" for name, (about, _) in commands.GROUPS.items()],
        "",
        "Commands:",
        *_list(commands.TOP, [name for name in commands.TOP if name not in commands.COMMON]),
        "",
        "Global Options:",
        *flag_lines(GLOBAL_FLAGS),
        "",
        f"Run '{PROGRAM} COMMAND --help' for more information on a command.",
    ]
    out("\n".join(lines) + "\n")
    return 0


def print_group(word: str) -> int:
    about, table = commands.GROUPS[word]
    hidden = {path.split()[1] for path in commands.HIDDEN_PATHS if path.split()[0] == word}
    names = [name for name in table if name not in commands.HIDDEN and name not in hidden]
    lines = [
        f"Usage:  {PROGRAM} {word} COMMAND",
        "",
        about,
        "",
        "Commands:",
        *_list(table, sorted(names)),
        "",
        f"Run '{PROGRAM} {word} COMMAND --help' for more information on a command.",
    ]
    out("\n".join(lines) + "\n")
    return 0


def print_command(path: str, command: Command) -> int:
    lines = [f"Usage:  {PROGRAM} {path}{' ' + command.usage if command.usage else ''}", "", command.about]
    if command.more:
        lines += ["", command.more]
    aliases = spellings(path)
    if len(aliases) > 1:
        lines += ["", "Aliases:", "  " + ", ".join(f"{PROGRAM} {alias}" for alias in aliases)]
    flags = flag_lines(command.flags)
    if flags:
        lines += ["", "Options:", *flags]
    out("\n".join(lines) + "\n")
    return 0


def unknown_in_group(word: str, name: str) -> str:
    """Docker's words for a group's unknown command (without the program's name in front)."""
    return (
        f"unknown command: {PROGRAM} {word} {name}\n\nUsage:  {PROGRAM} {word}\n\n"
        f"Run '{PROGRAM} {word} --help' for more information"
    )


def spellings(path: str) -> list[str]:
    """Every path that names the same command, groups first, as Docker lists aliases."""
    words = path.split()
    entry = commands.TOP[words[0]] if len(words) == 1 else commands.GROUPS[words[0]][1][words[1]]
    found = [
        f"{group} {name}" for group, (_, table) in commands.GROUPS.items() for name in table if table[name] == entry
    ]
    return found + [name for name, other in commands.TOP.items() if other == entry]


def _list(table: dict[str, commands.Entry], names: Sequence[str]) -> list[str]:
    return [f"  {name:<11} {load(table[name]).about}" for name in names]


def flag_lines(flags: Sequence[Flag]) -> list[str]:
    """The "Options:" block: names, kind, text wrapped to the terminal's width (80 when there is none)."""
    rows = []
    for name, short, kind, _, text in sorted(flags, key=lambda flag: flag[0]):
        if text is None:
            continue
        word = kind.partition(":")[0]
        shown = _SHOWN.get(word, word)
        rows.append((f"  {'-' + short + ',' if short else '   '} --{name}{' ' + shown if shown else ''}", text))
    if not rows:
        return []
    column = max(len(row[0]) for row in rows) + 3
    try:
        width = get_terminal_size(1)[0] or 80
    except OSError:
        width = 80
    room = max(width - column, 24)
    lines = []
    for left, text in rows:
        wrapped = _wrap(text, room)
        lines.append(f"{left:<{column}}{wrapped[0]}")
        lines += [" " * column + line for line in wrapped[1:]]
    return lines


def _wrap(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            if line and len(line) + 1 + len(word) > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return lines
