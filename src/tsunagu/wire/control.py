"""Messages between the engine and the resolver process, over a unix SOCK_SEQPACKET socket. Pure.

One datagram is one message. The engine sends changes and closes a batch with `Commit`; the resolver puts the whole
batch in force at once and answers `Done` with the same number. Sockets travel beside `Sandbox` as SCM_RIGHTS.
The format is ours and small on purpose: the engine, which is root, decodes what an unprivileged process sends, so
there is no pickle and no marshal here, and the resolver must start fast, so there is no msgspec or json. Raises
`Garbled` only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

VERSION = 2
LIMIT = 60_000  # bytes of one message; longer lists are sent in pieces by the caller
_DEPTH = 4


class Garbled(ValueError):
    """The bytes are no message of this version."""


class Hello(NamedTuple):
    """Resolver to engine, first on each connection; `sandboxes` `Held` messages follow.

    Hello, Held and Quit keep their bytes in every version, so that a newer engine can take over an older resolver's
    sockets.
    """

    version: int
    pid: int
    sandboxes: int


class Held(NamedTuple):
    """Resolver to engine: a sandbox it serves. Duplicates of its sockets come along: udp, tcp, then inner ones."""

    sandbox: str


class Reset(NamedTuple):
    """Engine to resolver: forget all names and views (not sockets) when this batch is committed; a full set follows."""


class Network(NamedTuple):
    """A network that has names. `subnets` are (packed address, prefix length)."""

    network: str
    name: str
    ttl: int
    subnets: list[tuple[bytes, int]]


class DropNetwork(NamedTuple):
    network: str


class Join(NamedTuple):
    """An endpoint's names in a network; replaces what the endpoint had. Addresses are packed, b"" for none.

    `pointer` is the name that its addresses point back to. An endpoint that is not ready is answered only
    while its name has no ready one.
    """

    network: str
    endpoint: str
    names: list[str]
    ipv4: bytes
    ipv6: bytes
    pointer: str
    is_ready: bool


class Leave(NamedTuple):
    network: str
    endpoint: str


class Sandbox(NamedTuple):
    """A sandbox to serve, with its sockets: udp, tcp, then inner ones. Serves nothing until its view has come."""

    sandbox: str


class View(NamedTuple):
    """What one sandbox sees. `networks` in lookup order; `links` are (network, alias, target name).

    `servers` are asked from inside the sandbox and replace the host's; the host's are asked only if `has_external`.
    """

    sandbox: str
    networks: list[str]
    links: list[tuple[str, str, str]]
    servers: list[str]
    has_external: bool
    forwards_single: bool


class DropSandbox(NamedTuple):
    sandbox: str


class Servers(NamedTuple):
    """The host's name servers, in order."""

    addresses: list[str]


class Commit(NamedTuple):
    """End of a batch: everything since the last one comes into force now."""

    number: int


class Done(NamedTuple):
    """Resolver to engine: batch `number` is in force. `counters` are totals since the process started."""

    number: int
    counters: list[tuple[str, int]]


class Quit(NamedTuple):
    """Engine to resolver: close everything and end."""


class Follow(NamedTuple):
    """Tell what these sandboxes ask from the end of this batch on (`Seen`), instead of those followed before."""

    is_everybody: bool
    sandboxes: list[str]


class Seen(NamedTuple):
    """Resolver to engine: what followed sandboxes asked and were told. `lost` queries before them are not told of:
    whoever follows never holds up who asks."""

    lost: int
    asked: list[Asked]


class Asked(NamedTuple):
    """One query with its answer; part of `Seen`. `time` is nanoseconds since the epoch, `taken` microseconds.

    `origin` is where the answer comes from: "network" (`detail` is its id), "link", "localhost", "subnet" (an address
    of one of our networks that nobody has), "server" and "cache" (`detail` is the server's address, if known), or why
    there is none: "internal", "no-server", "search", "unanswered", "refused", "malformed".
    """

    sandbox: str
    time: int
    client: str
    port: int
    is_tcp: bool
    name: str
    qtype: int
    rcode: int
    answers: list[str]
    origin: str
    detail: str
    taken: int


Message = (
    Hello | Held | Quit | Reset | Network | DropNetwork | Join | Leave | Sandbox | View | DropSandbox | Servers | Commit
    | Done | Follow | Seen
)  # fmt: skip
# A new kind goes to the end: its place here is its code on the wire.
_KINDS: tuple[type[Any], ...] = (
    Hello, Held, Quit, Reset, Network, DropNetwork, Join, Leave, Sandbox, View, DropSandbox, Servers, Commit, Done,
    Follow, Seen,
)  # fmt: skip
_CODES = {kind: code for code, kind in enumerate(_KINDS)}
# What each field must look like; a list or tuple of one shape, or of several in order.
_SHAPES: dict[type[Any], tuple[Any, ...]] = {
    Hello: (int, int, int),
    Held: (str,),
    Reset: (),
    Network: (str, str, int, [(bytes, int)]),
    DropNetwork: (str,),
    Join: (str, str, [str], bytes, bytes, str, bool),
    Leave: (str, str),
    Sandbox: (str,),
    View: (str, [str], [(str, str, str)], [str], bool, bool),
    DropSandbox: (str,),
    Servers: ([str],),
    Commit: (int,),
    Done: (int, [(str, int)]),
    Quit: (),
    Follow: (bool, [str]),
    Seen: (int, [(str, int, str, int, bool, str, int, int, [str], str, str, int)]),
}


def encode(message: Message) -> bytes:
    """Return the bytes of one message; raises Garbled when it is longer than LIMIT."""
    out = bytearray((_CODES[type(message)],))
    for value in message:
        _put(out, value)
    if len(out) > LIMIT:
        raise Garbled(f"{type(message).__name__} of {len(out)} bytes is too long")
    return bytes(out)


def decode(data: bytes) -> Message:
    """Return the message in `data`; raises Garbled for anything that `encode` does not make."""
    if not data or len(data) > LIMIT or data[0] >= len(_KINDS):
        raise Garbled("no message of ours")
    kind = _KINDS[data[0]]
    values, at = [], 1
    for shape in _SHAPES[kind]:
        value, at = _take(data, at, _DEPTH)
        values.append(_check(value, shape))
    if at != len(data):
        raise Garbled("bytes after the message")
    message: Message = kind(*values)
    return message


def _put(out: bytearray, value: Any) -> None:
    if value is True or value is False:
        out += b"t" if value else b"f"
    elif isinstance(value, int):
        out += b"i" + value.to_bytes(8, "big", signed=True)
    elif isinstance(value, str):
        raw = value.encode(errors="replace")
        out += b"s" + len(raw).to_bytes(4, "big") + raw
    elif isinstance(value, bytes):
        out += b"b" + len(value).to_bytes(4, "big") + value
    else:
        out += b"l" + len(value).to_bytes(4, "big")
        for item in value:
            _put(out, item)


def _take(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    tag = data[at : at + 1]
    if tag in (b"t", b"f"):
        return tag == b"t", at + 1
    if tag == b"i":
        if at + 9 > len(data):
            raise Garbled("cut short")
        return int.from_bytes(data[at + 1 : at + 9], "big", signed=True), at + 9
    length, start = int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
    if start > len(data) or length > len(data) - start:
        raise Garbled("cut short")
    if tag == b"b":
        return data[start : start + length], start + length
    if tag == b"s":
        try:
            return data[start : start + length].decode(), start + length
        except UnicodeDecodeError as error:
            raise Garbled("text is not UTF-8") from error
    if tag != b"l" or not depth:
        raise Garbled("unknown tag, or nested too deep")
    items = []
    for _ in range(length):
        item, start = _take(data, start, depth - 1)
        items.append(item)
    return items, start


def _check(value: Any, shape: Any) -> Any:
    if isinstance(shape, list) and isinstance(value, list):
        return [_check(item, shape[0]) for item in value]
    if isinstance(shape, tuple) and isinstance(value, list) and len(value) == len(shape):
        return tuple(_check(item, part) for item, part in zip(value, shape, strict=True))
    if type(value) is not shape:
        raise Garbled("a field has the wrong type")
    return value
