"""wire.stdcopy: frames in any cut give back what was framed; garbage is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.wire import stdcopy


def test_a_frame_is_dockers() -> None:
    assert stdcopy.frame(stdcopy.STDERR, b"hi") == b"\x02\0\0\0\0\0\0\x02hi"


@given(
    pieces=st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=20),
    cuts=st.lists(st.integers(1, 30), min_size=1, max_size=30),
)
def test_any_cut_decodes_alike(pieces: Sequence[tuple[int, bytes]], cuts: Sequence[int]) -> None:
    data = b"".join(stdcopy.frame(stream, piece) for stream, piece in pieces)
    decoder, seen, position, turn = stdcopy.Decoder(), {1: b"", 2: b""}, 0, 0
    while position < len(data):
        size = cuts[turn % len(cuts)]
        for stream, piece in decoder.feed(data[position : position + size]):
            seen[stream] += piece
        position += size
        turn += 1
    assert seen == {n: b"".join(p for s, p in pieces if s == n) for n in (1, 2)}
    assert decoder.is_between_frames


@pytest.mark.parametrize("garbage", [b"\x09\0\0\0\0\0\0\x01x", b"HTTP/1.1", b"\x01\0\x01\0\0\0\0\x01x"])
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(stdcopy.MalformedFrame):
        list(stdcopy.Decoder().feed(garbage))


def test_a_cut_stream_is_noticed() -> None:
    decoder = stdcopy.Decoder()
    assert list(decoder.feed(b"\x01\0\0\0\0\0\0\x05ab")) == [(1, b"ab")]
    assert not decoder.is_between_frames
