"""wire.http: events out of bytes whatever their cutting, answers, hijack, and nothing but Malformed on garbage."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsunagu.wire.http import (
    MAX_HEAD,
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    Event,
    Malformed,
    RequestHead,
    ServerConnection,
    Signal,
)

GET = b"GET /x?a=b HTTP/1.1\r\nHost: d\r\nX-One: 1\r\nX-One: 2\r\n\r\n"
POST = b"POST /y HTTP/1.1\r\nHost: d\r\nContent-Length: 10\r\n\r\n0123456789"


def events(connection: ServerConnection) -> list[Event]:
    out: list[Event] = []
    while (event := connection.next_event()) not in (Signal.NEED_DATA, Signal.PAUSED, Signal.CLOSED):
        out.append(event)
    return out


@given(cuts=st.lists(st.integers(0, len(POST)), max_size=8))
def test_cutting_of_the_bytes_does_not_matter(cuts: list[int]) -> None:
    connection = ServerConnection()
    found: list[Event] = []
    places = sorted({0, len(POST), *cuts})
    for start, end in pairwise(places):
        connection.receive(POST[start:end])
        found += events(connection)
    assert isinstance(found[0], RequestHead)
    assert b"".join(e for e in found if isinstance(e, bytes)) == b"0123456789"
    assert found[-1] is Signal.END
    assert connection.has_whole_request


def test_head_is_lower_case_and_repeated_headers_are_joined() -> None:
    connection = ServerConnection()
    connection.receive(GET)
    head, end = events(connection)
    assert head == RequestHead("GET", "/x?a=b", {"host": "d", "x-one": "1, 2"}, has_body=False)
    assert end is Signal.END


def test_answers_and_reuse() -> None:
    connection = ServerConnection()
    for _ in range(2):
        connection.receive(GET)
        events(connection)
        answer = connection.respond(200, ((b"Content-Type", b"text/plain"),), b"hello")
        assert answer == b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
        assert connection.next_cycle()


def test_no_content_has_neither_body_nor_length() -> None:
    for status in (204, 304):
        connection = ServerConnection()
        connection.receive(GET)
        events(connection)
        answer = connection.respond(status, (), b"ignored")
        assert b"ontent-" not in answer and answer.endswith(b"\r\n\r\n")
        assert connection.next_cycle()


def test_head_request_gets_the_length_without_the_body() -> None:
    connection = ServerConnection()
    connection.receive(b"HEAD /x HTTP/1.1\r\nHost: d\r\n\r\n")
    events(connection)
    assert connection.respond(200, (), b"12345") == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


def test_streamed_answer_is_chunked_and_an_empty_piece_does_not_end_it() -> None:
    connection = ServerConnection()
    connection.receive(GET)
    events(connection)
    assert b"Transfer-Encoding: chunked" in connection.head(200, ())
    assert connection.data(b"abc") == b"3\r\nabc\r\n"
    assert connection.data(b"") == b""
    assert connection.end() == b"0\r\n\r\n"
    assert connection.next_cycle()


def test_pipelined_request_waits() -> None:
    connection = ServerConnection()
    connection.receive(GET + POST)
    assert [type(e) for e in events(connection)] == [RequestHead, Signal]
    assert connection.next_event() is Signal.PAUSED
    assert connection.buffered == len(POST)
    connection.respond(200, (), b"")
    assert connection.next_cycle()
    assert isinstance(events(connection)[0], RequestHead)


def test_answer_before_the_body_ends_the_connection() -> None:
    connection = ServerConnection()
    connection.receive(POST[:-3])
    events(connection)
    assert not connection.has_whole_request
    connection.respond(400, (), b"no")
    assert not connection.next_cycle()


def test_upgrade_hands_over_early_bytes() -> None:
    connection = ServerConnection()
    connection.receive(
        b"POST /attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}early"
    )
    events(connection)
    head, early = connection.switch(MULTIPLEXED_STREAM, is_upgrade=True)
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n") and head.endswith(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert early == b"early"
    assert not connection.may_respond


def test_bare_200_is_not_chunked() -> None:
    connection = ServerConnection()
    connection.receive(b"POST /attach HTTP/1.1\r\nHost: d\r\n\r\nearly")
    events(connection)
    head, early = connection.switch(RAW_STREAM, is_upgrade=False)
    assert head == b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    assert early == b"early"


def test_upgrade_that_is_refused_is_answered_normally() -> None:
    connection = ServerConnection()
    connection.receive(b"POST /attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    events(connection)
    assert connection.respond(404, (), b"{}").startswith(b"HTTP/1.1 404 Not Found")
    assert connection.next_cycle()


def test_continue_is_sent_once_and_only_if_asked_for() -> None:
    connection = ServerConnection()
    connection.receive(b"POST /y HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    events(connection)
    assert connection.continue_100().startswith(b"HTTP/1.1 100 ")
    assert connection.continue_100() == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /x HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"nonsense\r\n\r\n", 400),
        (b"GET /x HTTP/9.9\r\nHost: d\r\n\r\n", 505),
        (b"GET /x HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /x HTTP/1.1\r\nHost: d\r\nX: " + b"x" * (MAX_HEAD + 1), 431),
        (b"POST /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 30 + b"\r\n", 400),
    ],
)
def test_broken_requests(data: bytes, status: int) -> None:
    connection = ServerConnection()
    connection.receive(data)
    with pytest.raises(Malformed) as caught:
        events(connection)
    assert caught.value.status == status


def test_client_that_ends_in_the_middle() -> None:
    connection = ServerConnection()
    connection.receive(POST[:-1])
    events(connection)
    connection.receive(b"")
    with pytest.raises(Malformed):
        connection.next_event()
    assert not connection.has_whole_request
    assert connection.may_respond  # a half-closed client can still be told


def test_client_that_ends_between_requests() -> None:
    connection = ServerConnection()
    connection.receive(b"")
    assert connection.next_event() is Signal.CLOSED


@settings(max_examples=300)
@given(data=st.binary(max_size=300), mutate=st.integers(0, len(POST) - 1), byte=st.integers(0, 255))
def test_garbage_raises_malformed_or_nothing(data: bytes, mutate: int, byte: int) -> None:
    for text in (data, POST[:mutate] + bytes([byte]) + POST[mutate + 1 :], POST[:mutate] + data):
        connection = ServerConnection()
        try:
            connection.receive(text)
            events(connection)
            connection.receive(b"")
            events(connection)
        except Malformed as error:
            assert 400 <= error.status < 600
            assert error.message
