"""services.streams: detach keys, framing, half-close, slow and vanished clients, against a socket that plays conmon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.model.errors import InvalidParameter
from tsunagu.services import streams
from tsunagu.services.streams import AttachEnd
from tsunagu.wire import stdcopy

# ---- detach keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-x,a", b"\x18a"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", bytes([0, 27, 28, 29, 30, 31])),
        ("q", b"q"),
    ],
)
def test_detach_keys_are_parsed(text: str, keys: bytes) -> None:
    assert streams.parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-A", "ctrl-1", "ab", ",", "ctrl-p,", "é"])
def test_wrong_detach_keys_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid detach keys"):
        streams.parse_detach_keys(text)


@given(
    data=st.text("aabc", max_size=40).map(str.encode),
    keys=st.text("aab", min_size=1, max_size=4).map(str.encode),
    size=st.integers(1, 7),
)
def test_keys_are_found_in_any_cut_and_everything_else_is_forwarded(data: bytes, keys: bytes, size: int) -> None:
    finder, forwarded = streams.DetachKeys(keys), b""
    for start in range(0, len(data), size):
        piece, is_found = finder.feed(data[start : start + size])
        forwarded += piece
        if is_found:
            assert forwarded == data.partition(keys)[0]
            return
    assert keys not in data
    assert forwarded + finder.flush() == data


# ---- attach


class Client:
    """A Duplex in memory. `gate` holds writes back while it is not set."""

    def __init__(self) -> None:
        self.received = b""
        self.has_received = asyncio.Event()
        self.input: asyncio.Queue[bytes] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_gone = False

    async def read(self) -> bytes:
        return await self.input.get()

    async def write(self, data: bytes) -> None:
        await self.gate.wait()
        if self.is_gone:
            raise ConnectionResetError
        self.received += data
        self.has_received.set()

    async def close(self) -> None:
        raise AssertionError("attach leaves the client to its caller")


@contextlib.contextmanager
def conmon() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def run(scenario: Callable[[Client, socket.socket, socket.socket], Awaitable[None]]) -> None:
    async def whole() -> None:
        with conmon() as (ours, theirs):
            await asyncio.wait_for(scenario(Client(), ours, theirs), 20)

    asyncio.run(whole())


def attach(client: Client, connection: socket.socket, **options: object) -> asyncio.Task[AttachEnd]:
    settings: dict[str, object] = {
        "is_multiplexed": True, "wants_stdin": True, "wants_stdout": True, "wants_stderr": True,
        "detach_keys": b"\x10\x11",
    }  # fmt: skip
    return asyncio.ensure_future(streams.attach(client, connection, **{**settings, **options}))  # type: ignore[arg-type]


async def receive(connection: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(connection, 1 << 16)


def test_output_is_framed_and_whole() -> None:
    async def scenario(client: Client, ours: socket.socket, theirs: socket.socket) -> None:
        task = attach(client, ours)
        theirs.send(b"\x02out")
        theirs.send(b"\x03err")
        theirs.send(b"\x02bye")
        theirs.close()
        assert await task is AttachEnd.ENDED
        assert list(stdcopy.Decoder().feed(client.received)) == [(1, b"out"), (2, b"err"), (1, b"bye")]

    run(scenario)


def test_a_terminal_is_raw_and_streams_can_be_left_out() -> None:
    async def scenario(client: Client, ours: socket.socket, theirs: socket.socket) -> None:
        task = attach(client, ours, is_multiplexed=False, wants_stderr=False)
        theirs.send(b"\x02out")
        theirs.send(b"\x03err")
        theirs.close()
        assert await task is AttachEnd.ENDED
        assert client.received == b"out"

    run(scenario)


def test_input_in_packets_conmon_takes_and_half_close() -> None:
    async def scenario(client: Client, ours: socket.socket, theirs: socket.socket) -> None:
        task = attach(client, ours, closes_stdin=True)
        data = os.urandom(100_000)
        client.input.put_nowait(data)
        client.input.put_nowait(b"")
        got, sizes = b"", []
        while packet := await receive(theirs):
            got += packet
            sizes.append(len(packet))
        assert got == data
        assert max(sizes) <= 8192
        theirs.send(b"\x02answer after the half-close")
        theirs.close()
        assert await task is AttachEnd.ENDED
        assert client.received.endswith(b"answer after the half-close")

    run(scenario)


def test_without_stdin_nothing_is_read_or_closed() -> None:
    async def scenario(client: Client, ours: socket.socket, theirs: socket.socket) -> None:
        task = attach(client, ours, wants_stdin=False)
        client.input.put_nowait(b"ignored")
        client.input.put_nowait(b"")
        theirs.send(b"\x02x")
        await client.has_received.wait()
        with pytest.raises(BlockingIOError):
            theirs.recv(10)
        theirs.close()
        assert await task is AttachEnd.ENDED

    run(scenario)


def test_detach_keys_end_the_attachment_of_a_terminal_only() -> None:
    async def scenario(client: Client, ours: socket.socket, theirs: socket.socket) -> None:
        task = attach(client, ours, is_multiplexed=False)
        theirs.send(b"\x02prompt")
        client.input.put_nowait(b"ls\x10")
        assert await receive(theirs) == b"ls"
        client.input.put_nowait(b"x\x10\x11rest")
        assert await receive(theirs) == b"\x10x"
        assert await task is AttachEnd.DETACHED
        assert client.received == b"prompt"

    async def without_terminal(client: Client, ours: socket.socket, theirs: socket.socket) -> None:
        task = attach(client, ours)
        client.input.put_nowait(b"\x10\x11")
        assert await receive(theirs) == b"\x10\x11"
        theirs.close()
        assert await task is AttachEnd.ENDED

    run(scenario)
    run(without_terminal)


def test_output_queued_before_a_reset_is_delivered() -> None:
    """conmon may go with input unread: the kernel then reports a reset before the queued output."""

    async def scenario(client: Client, ours: socket.socket, theirs: socket.socket) -> None:
        ours.send(b"never read")
        for number in range(20):
            theirs.send(b"\x02line %d\n" % number)
        theirs.close()
        assert await attach(client, ours, is_multiplexed=False) is AttachEnd.ENDED
        assert client.received == b"".join(b"line %d\n" % n for n in range(20))

    run(scenario)


def test_a_slow_client_does_not_stop_conmon_until_the_buffer_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BUFFER_LIMIT", 1 << 20)

    async def scenario(client: Client, ours: socket.socket, theirs: socket.socket) -> None:
        client.gate.clear()
        task = attach(client, ours, is_multiplexed=False)
        loop = asyncio.get_running_loop()
        packet = b"\x02" + b"x" * 8191
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 10 << 20:
                await asyncio.wait_for(loop.sock_sendall(theirs, packet), 0.3)
                sent += 8191
        assert (1 << 20) <= sent < (3 << 20)  # the buffer and what sockets hold: bounded
        client.gate.set()  # it catches up: nothing is lost
        await loop.sock_sendall(theirs, b"\x02end")
        theirs.close()
        assert await task is AttachEnd.ENDED
        assert len(client.received) == sent + 3

    run(scenario)


def test_a_stalled_client_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BUFFER_LIMIT", 1 << 16)
    monkeypatch.setattr(streams, "STALL_LIMIT", 0.1)

    async def scenario(client: Client, ours: socket.socket, theirs: socket.socket) -> None:
        client.gate.clear()
        task = attach(client, ours, is_multiplexed=False)

        async def chatter() -> None:
            while True:
                await asyncio.get_running_loop().sock_sendall(theirs, b"\x02" + b"x" * 8191)

        with pytest.raises(ConnectionError):  # conmon is free again
            await chatter()
        assert await task is AttachEnd.GONE

    run(scenario)


def test_a_client_that_goes_away_frees_conmon() -> None:
    async def scenario(client: Client, ours: socket.socket, theirs: socket.socket) -> None:
        task = attach(client, ours)
        client.is_gone = True
        theirs.send(b"\x02x")
        assert await task is AttachEnd.GONE
        assert await receive(theirs) == b""

    run(scenario)


def test_a_watcher_that_goes_away_does_not_close_stdin() -> None:
    """StdinOnce: conmon would close the container's stdin when any connection closes."""

    async def scenario(client: Client, ours: socket.socket, theirs: socket.socket) -> None:
        task = attach(client, ours, wants_stdin=False, closes_stdin=True)
        client.is_gone = True
        theirs.send(b"\x02x")
        assert await task is AttachEnd.GONE
        for _ in range(200):  # still read, so that conmon does not stall either
            await asyncio.get_running_loop().sock_sendall(theirs, b"\x02" + b"y" * 8191)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        theirs.close()
        await asyncio.gather(*(t for t in asyncio.all_tasks() if t.get_name() == "attach drain"))

    run(scenario)


def test_a_cancelled_attachment_closes_its_connection() -> None:
    async def scenario(client: Client, ours: socket.socket, theirs: socket.socket) -> None:
        task = attach(client, ours)
        theirs.send(b"\x02x")
        await client.has_received.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await receive(theirs) == b""

    run(scenario)
