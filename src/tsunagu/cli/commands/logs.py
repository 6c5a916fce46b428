"""`logs`. May import: `client`, `cli`. Must never import the engine."""

from __future__ import annotations

from tsunagu.cli.command import Command
from tsunagu.cli.output import Failure, write_all
from tsunagu.cli.paths import api_path
from tsunagu.client import BrokenAnswer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from tsunagu.cli.flags import Flag, Options
    from tsunagu.cli.main import Context

FLAGS: tuple[Flag, ...] = (
    ("details", "", "bool", False, "Show the attributes given to the log driver"),
    ("follow", "f", "bool", False, "Go on with what is written from now on"),
    ("since", "", "string", "", 'Lines since a time ("2013-01-02T13:23:37Z") or a duration ago ("42m")'),
    ("tail", "n", "string", "all", 'Number of lines from the end of the log (default "all")'),
    ("timestamps", "t", "bool", False, "Show when each line was written"),
    ("until", "", "string", "", 'Lines before a time ("2013-01-02T13:23:37Z") or a duration ago ("42m")'),
)


def _logs(context: Context, options: Options, arguments: list[str]) -> int:
    client = context.client()
    query: dict[str, str | int] = {"stdout": 1, "stderr": 1, "tail": options["tail"]}
    for flag in ("since", "until"):
        if options[flag]:
            from time import time

            from tsunagu.cli.units import timestamp

            try:
                query[flag] = timestamp(options[flag], time())
            except ValueError as error:
                raise Failure(f'invalid value for "{flag}": {error}') from None
    for flag in ("details", "follow", "timestamps"):
        if options[flag]:
            query[flag] = 1
    path = api_path("container", arguments[0])
    is_tty = client.get(f"{path}/json")["Config"]["Tty"]
    response = client.open("GET", f"{path}/logs", query).raise_for_status()
    if is_tty:
        for piece in response.pieces():
            write_all(1, piece)
    else:
        for stream, data in frames(response.pieces()):
            write_all(2 if stream == 2 else 1, data)
    return 0


def frames(pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Frames (stream number, payload) of Docker's multiplexed stream. Raises BrokenAnswer when it is cut short."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        start = 0
        while len(buffer) - start >= 8:
            end = start + 8 + int.from_bytes(buffer[start + 4 : start + 8], "big")
            if len(buffer) < end:
                break
            payload = bytes(buffer[start + 8 : end])
            if buffer[start] == 3:
                raise Failure(f"error from daemon in stream: {payload.decode('utf-8', 'replace')}")
            yield buffer[start], payload
            start = end
        del buffer[:start]
    if buffer:
        raise BrokenAnswer("the log ended in the middle of a line")


LOGS = Command("[OPTIONS] CONTAINER", "Print the output of a container", _logs, flags=FLAGS, least=1, most=1)
