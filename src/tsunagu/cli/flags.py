"""Command-line flags by table, with the rules of pflag, the flag parser of Docker's client.

A flag is a tuple `(name, shorthand, kind, default, help)`. The kind names both the parser and the word shown in the
help text; `kind:check` runs a check of `cli/values.py` on each value. Help None hides the flag; kind `=other` makes it
another spelling of `other`. May import: nothing at start, `cli/values.py` when a checked kind is used. Must never exit
or print: errors are UsageError with pflag's sentence.

Rules that differ from argparse: flags may follow arguments unless the command runs another program (`run`, `exec`),
`-itd` is a cluster, `--rm` takes no value unless written `--rm=false`, and the last value of a repeated flag wins.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Flag = tuple[str, str, str, Any, str | None]

HELP: Flag = ("help", "", "bool", False, None)
_LISTS = ("list", "strings", "map", "filter", "ulimit", "mount", "network", "gpu-request")


class UsageError(Exception):
    """The command line is wrong; the message is pflag's."""


class HelpRequested(Exception):
    """`--help` was given."""


class Options:
    """Parsed flags: `options["name"]` is the value or the default; `"name" in options` tells whether it was given."""

    def __init__(self, flags: Sequence[Flag]) -> None:
        self._values: dict[str, Any] = {flag[0]: flag[3] for flag in flags}
        self._given: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def put(self, name: str, value: Any) -> None:
        self._values[name] = value
        self._given.add(name)

    def extend(self, name: str, values: list[Any]) -> None:
        # The default of a list flag is an immutable (), shared by every parse of the same table.
        self._values[name] = [*self._values[name], *values]
        self._given.add(name)


def parse(flags: Sequence[Flag], words: Sequence[str], *, is_interspersed: bool = True) -> tuple[Options, list[str]]:
    """Split a command line into flags and arguments. Raises UsageError or HelpRequested.

    With `is_interspersed` false everything from the first argument on is an argument (Docker's run, exec, top).
    """
    options = Options(flags)
    by_name = {flag[0]: flag for flag in (*flags, HELP)}
    by_short = {flag[1]: flag for flag in flags if flag[1]}
    arguments: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if len(word) < 2 or word[0] != "-":
            if not is_interspersed:
                arguments += words[index - 1 :]
                break
            arguments.append(word)
        elif word == "--":
            arguments += words[index:]
            break
        elif word[1] == "-":
            index = _parse_long(options, by_name, words, index)
        else:
            index = _parse_short(options, by_name, by_short, words, index)
    return options, arguments


def _parse_long(options: Options, by_name: dict[str, Flag], words: Sequence[str], index: int) -> int:
    word = words[index - 1]
    name, has_value, value = word[2:].partition("=")
    if not name or name[0] == "-":
        raise UsageError(f"bad flag syntax: {word}")
    flag = by_name.get(name)
    if flag is None:
        raise UsageError(f"unknown flag: --{name}")
    if flag[2][0] == "=":
        flag = by_name[flag[2][1:]]
    if not has_value:
        if flag[2] == "bool":
            value = "true"
        elif index < len(words):
            value = words[index]
            index += 1
        else:
            raise UsageError(f"flag needs an argument: --{name}")
    _store(options, flag, value)
    return index


def _parse_short(
    options: Options, by_name: dict[str, Flag], by_short: dict[str, Flag], words: Sequence[str], index: int
) -> int:
    word = words[index - 1]
    position = 1
    while position < len(word):
        letter = word[position]
        flag = by_short.get(letter)
        if flag is None:
            if letter == "h":
                raise HelpRequested
            raise UsageError(
                f"unknown shorthand flag: '{letter}' in {word if position == 1 else '-' + word[position:]}"
            )
        rest = word[position + 1 :]
        position += 1
        if flag[2][0] == "=":
            flag = by_name[flag[2][1:]]
        if len(rest) > 1 and rest[0] == "=":
            _store(options, flag, rest[1:])
            break
        if flag[2] == "bool":
            _store(options, flag, "true")
        elif rest:
            _store(options, flag, rest)
            break
        elif index < len(words):
            _store(options, flag, words[index])
            index += 1
        else:
            raise UsageError(f"flag needs an argument: '{letter}' in {word if len(word) == 2 else '-' + letter}")
    return index


def _store(options: Options, flag: Flag, text: str) -> None:
    name, short, kind = flag[:3]
    kind, _, check = kind.partition(":")
    try:
        value = _CONVERT.get(kind, _text)(text)
        if check:
            from tsunagu.cli import values

            value = getattr(values, check)(text)
    except ValueError as error:
        shown = f"-{short}, --{name}" if short else f"--{name}"
        raise UsageError(f'invalid argument "{text}" for "{shown}" flag: {error}') from None
    if name == "help" and value:
        raise HelpRequested
    if kind in _LISTS:
        options.extend(name, value if isinstance(value, list) else [value])
    else:
        options.put(name, value)


def _text(text: str) -> str:
    return text


def parse_bool(text: str) -> bool:
    """Go's strconv.ParseBool. Raises ValueError with its sentence."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_int(text: str, bits: int = 64) -> int:
    """Go's strconv.ParseInt with base 0 (0x, 0o and 0b prefixes, underscores). Raises ValueError with its sentence."""
    return _go_int(text, "ParseInt", -(1 << bits - 1), (1 << bits - 1) - 1)


def parse_uint(text: str, bits: int = 64) -> int:
    """Go's strconv.ParseUint with base 0. Raises ValueError with its sentence."""
    return _go_int(text, "ParseUint", 0, (1 << bits) - 1)


def _go_int(text: str, function: str, lowest: int, highest: int) -> int:
    signs = "+-" if lowest else ""
    digits = text[1:] if text[:1] and text[0] in signs else text
    try:
        if not digits.isascii() or not digits[:1].isdigit():
            raise ValueError
        is_octal = digits[0] == "0" and digits[1:2].isdigit()  # C's form, which Python's int() refuses
        value = int(digits, 8 if is_octal else 0)
    except ValueError:
        raise ValueError(f'strconv.{function}: parsing "{text}": invalid syntax') from None
    if text[0] == "-":
        value = -value
    if not lowest <= value <= highest:
        raise ValueError(f'strconv.{function}: parsing "{text}": value out of range')
    return value


def _parse_uint16(text: str) -> int:
    return parse_uint(text, 16)


def _parse_strings(text: str) -> list[str]:
    # A "strings" flag takes one CSV record, quotes included.
    if '"' in text:
        from _csv import reader

        return next(iter(reader([text])))
    return text.split(",") if text else []


def _checked(name: str) -> Callable[[str], Any]:
    """The function of that name in `cli/values.py`, imported when it is first needed."""

    def convert(text: str) -> Any:
        from tsunagu.cli import values

        return getattr(values, name)(text)

    return convert


_CONVERT: dict[str, Callable[[str], Any]] = {
    "bool": parse_bool,
    "int": parse_int,
    "uint": parse_uint,
    "uint16": _parse_uint16,
    "strings": _parse_strings,
    "bytes": _checked("parse_bytes"),
    "duration": _checked("parse_duration"),
    "decimal": _checked("parse_nano_cpus"),
    "swap": _checked("parse_swap"),
    "filter": _checked("filter_pair"),
    "ulimit": _checked("ulimit"),
    "mount": _checked("mount"),
    "network": _checked("network"),
    "gpu-request": _checked("gpus"),
}
