"""The messages between engine and resolver: what is sent arrives, and nothing else is taken for a message."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.wire import control

NUMBER = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=20)
TEXTS = st.lists(TEXT, max_size=4)
PACKED = st.sampled_from([b"", bytes(4), bytes(16), b"\x0a\0\0\2"])
KINDS = {
    control.Hello: st.builds(control.Hello, NUMBER, NUMBER, NUMBER),
    control.Held: st.builds(control.Held, TEXT),
    control.Reset: st.just(control.Reset()),
    control.Network: st.builds(
        control.Network, TEXT, TEXT, NUMBER, st.lists(st.tuples(PACKED, st.integers(0, 128)), max_size=3)
    ),
    control.DropNetwork: st.builds(control.DropNetwork, TEXT),
    control.Join: st.builds(control.Join, TEXT, TEXT, TEXTS, PACKED, PACKED, TEXT, st.booleans()),
    control.Leave: st.builds(control.Leave, TEXT, TEXT),
    control.Sandbox: st.builds(control.Sandbox, TEXT),
    control.View: st.builds(
        control.View,
        TEXT,
        TEXTS,
        st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=3),
        TEXTS,
        st.booleans(),
        st.booleans(),
    ),
    control.DropSandbox: st.builds(control.DropSandbox, TEXT),
    control.Servers: st.builds(control.Servers, TEXTS),
    control.Commit: st.builds(control.Commit, NUMBER),
    control.Done: st.builds(control.Done, NUMBER, st.lists(st.tuples(TEXT, NUMBER), max_size=3)),
    control.Quit: st.just(control.Quit()),
    control.Follow: st.builds(control.Follow, st.booleans(), TEXTS),
    control.Seen: st.builds(
        control.Seen,
        NUMBER,
        st.lists(
            st.tuples(TEXT, NUMBER, TEXT, NUMBER, st.booleans(), TEXT, NUMBER, NUMBER, TEXTS, TEXT, TEXT, NUMBER).map(
                lambda values: control.Asked(*values)
            ),
            max_size=3,
        ),
    ),
}
ANY: st.SearchStrategy[Any] = st.one_of(*KINDS.values())


def test_every_kind_is_tried_here() -> None:
    assert set(get_args(control.Message)) == set(KINDS)


@given(ANY)
def test_messages_come_back(message: control.Message) -> None:
    back = control.decode(control.encode(message))
    assert type(back) is type(message)
    assert back == message


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_garbled(data: bytes) -> None:
    try:
        message = control.decode(data)
    except control.Garbled:
        return
    assert control.encode(message) == data


@given(ANY, st.data())
def test_damage_is_noticed_or_makes_another_message(message: control.Message, data: st.DataObject) -> None:
    raw = bytearray(control.encode(message))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert control.encode(control.decode(bytes(raw))) == bytes(raw)
    except control.Garbled:
        return


@given(ANY)
def test_cut_messages_are_garbled(message: control.Message) -> None:
    raw = control.encode(message)
    for end in range(len(raw)):
        with pytest.raises(control.Garbled):
            control.decode(raw[:end])
    with pytest.raises(control.Garbled):
        control.decode(raw + b"t")


def test_greeting_keeps_its_bytes_in_every_version() -> None:
    """A newer engine takes the sockets of an older resolver over: these three may never change."""
    assert control.encode(control.Hello(1, 2, 3)).hex() == "00" + "".join(f"69{n:016x}" for n in (1, 2, 3))
    assert control.encode(control.Held("ab")).hex() == "01" + "73" + "00000002" + "6162"
    assert control.encode(control.Quit()).hex() == "02"


def test_nesting_is_bounded() -> None:
    with pytest.raises(control.Garbled):
        control.decode(b"\x0b" + b"l\0\0\0\1" * 20000)


def test_long_messages_are_refused() -> None:
    with pytest.raises(control.Garbled):
        control.encode(control.Servers(["x" * 1000] * 61))


def test_text_that_is_no_text_is_replaced() -> None:
    assert control.decode(control.encode(control.Held("a\ud800b"))) == control.Held("a?b")
