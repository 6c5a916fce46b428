"""Following queries: nothing is different for who asks, nothing grows, and nothing is left when nobody follows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tsunagu.resolver import journal as module
from tsunagu.resolver.journal import Journal
from tsunagu.resolver.loop import Loop, Timer
from tsunagu.services.dns_log import READER_LIMIT, Reader
from tsunagu.wire import control
from tsunagu.wire import dns as wire
from unit.test_resolver_answers import Bench


def query(name: str, qtype: int = wire.A) -> bytes:
    return b"\0\7\1\0\0\1\0\0\0\0\0\0" + wire.question(wire.encode_name(name) or b"", qtype)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    made.tell(
        control.Network("n", "app", 5, [(bytes([10, 0, 0, 0]), 24)]),
        control.Join("n", "e", ["web"], bytes([10, 0, 0, 2]), b"", "web", True),
    )
    made.sandbox("n", links=[("n", "store", "web")])
    yield made
    made.close()


def entry(number: int = 0, second: int = 1) -> control.Asked:
    return control.Asked("s", second * 10**9, "", 0, False, f"n{number}", 1, 0, [], "network", "n", 1)


def ask(bench: Bench, data: bytes) -> control.Asked:
    """Ask while followed; returns what the journal got."""
    told: list[control.Seen] = []
    bench.server.journal.tell = lambda message: told.append(message) is None
    sandbox = bench.server.sandboxes["s"]
    replies: list[bytes] = []
    reply = sandbox._connections.resolve(data, 0, replies.append)
    assert reply is not None or replies
    bench.server.journal._flush()
    (seen,) = told
    assert control.decode(control.encode(seen)) == seen
    return control.Asked(*seen.asked[0])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (query("web"), ("web", 1, 0, ["10.0.0.2"], "network", "n")),
        (query("WEB.app"), ("web.app", 1, 0, ["10.0.0.2"], "network", "n")),
        (query("web", wire.AAAA), ("web", 28, 0, [], "network", "n")),
        (query("store"), ("store", 1, 0, ["10.0.0.2"], "link", "")),
        (query("a.localhost"), ("a.localhost", 1, 0, ["127.0.0.1"], "localhost", "")),
        (query("9.0.0.10.in-addr.arpa", wire.PTR), ("9.0.0.10.in-addr.arpa", 12, 3, [], "subnet", "")),
        (query("example.com"), ("example.com", 1, 2, [], "internal", "")),
        (b"\0\7\1\0\0\2\0\0\0\0\0\0" + bytes(5), ("", 0, 1, [], "malformed", "")),
    ],
)  # fmt: skip
def test_entries(bench: Bench, data: bytes, expected: tuple[object, ...]) -> None:
    bench.tell(control.Follow(False, ["s"]))
    got = ask(bench, data)
    assert (got.name, got.qtype, got.rcode, list(got.answers), got.origin, got.detail) == expected


def test_the_usual_handlers_are_back_when_nobody_follows(bench: Bench) -> None:
    sandbox = bench.server.sandboxes["s"]
    handlers = bench.server.loop._handlers
    usual = (handlers[sandbox.udp.fileno()], sandbox._connections.resolve, sandbox._forward)
    bench.tell(control.Follow(True, []))
    assert handlers[sandbox.udp.fileno()] != usual[0]
    bench.tell(control.Follow(False, ["somebody else"]))
    assert (handlers[sandbox.udp.fileno()], sandbox._connections.resolve, sandbox._forward) == usual


def test_a_sandbox_that_comes_later_is_followed_too(bench: Bench) -> None:
    bench.tell(control.Follow(True, []))
    sandbox = bench.sandbox("n", name="later")
    assert sandbox._connections.resolve != sandbox.resolve


class StillLoop(Loop):
    """Timers are never due."""

    def later(self, delay: float, action: object) -> Timer:  # type: ignore[override]
        return Timer(lambda: None)


def test_a_flood_is_counted_not_kept() -> None:
    journal = Journal(StillLoop())
    told: list[control.Seen] = []
    journal.tell = lambda message: told.append(message) is None
    for number in range(module._RATE + 500):
        journal.add(entry(number))
    assert len(journal._entries) == module._RATE
    journal._flush()
    assert sum(seen.lost for seen in told) == 500
    assert sum(len(seen.asked) for seen in told) == module._RATE


def test_an_engine_that_is_behind_loses_entries_and_is_told() -> None:
    journal = Journal(StillLoop())
    journal.tell = lambda _message: False
    for number in range(40):
        journal.add(entry(number))
    journal._flush()
    told: list[control.Seen] = []
    journal.tell = lambda message: told.append(message) is None
    journal._flush()
    assert told == [control.Seen(40, [])]


def test_the_longest_entries_fit_into_a_message() -> None:
    longest = control.Asked(
        "f" * 64, 2**62, "255.255.255.255", 65535, True, "\\255" * 255, 65535, 65535,
        ["x" * module._LONGEST] * module._MOST_ANSWERS, "no-server", "f" * 64, 2**62,
    )  # fmt: skip
    control.encode(control.Seen(2**62, [longest] * module._PIECE))


async def taken(reader: Reader, count: int) -> list[control.Asked | int]:
    return [await reader.next() for _ in range(count)]


def test_a_reader_that_is_behind_keeps_a_bounded_number() -> None:
    import asyncio

    reader = Reader("s")
    reader.offer([entry(number) for number in range(READER_LIMIT + 7)], 3)
    reader.offer([entry()._replace(sandbox="another")], 0)
    got = asyncio.run(taken(reader, READER_LIMIT + 1))
    assert got[-1] == 10
    assert isinstance(got[0], control.Asked)
    assert got[0].name == "n0"
