"""services.logs: conmon's k8s-file format, tail, time bounds, following."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsunagu.services import logs

EPOCH = 1_700_000_000


def record(stream: str, flag: str, text: str, second: int = 0) -> bytes:
    moment = datetime.fromtimestamp(EPOCH + second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.000000042+00:00 {stream} {flag} {text}\n".encode()


def read_all(path: Path, **options: object) -> list[logs.Line]:
    async def collect() -> list[logs.Line]:
        return [line async for line in logs.read(str(path), **options)]  # type: ignore[arg-type]

    return asyncio.run(collect())


def test_streams_times_and_texts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(
        record("stdout", "F", "one") + record("stderr", "F", " two  words ", 1) + record("stdout", "F", "")
    )
    base = EPOCH * 10**9 + 42
    assert read_all(path) == [
        ("stdout", base, b"one\n"),
        ("stderr", base + 10**9, b" two  words \n"),
        ("stdout", base, b"\n"),
    ]
    assert [line[2] for line in read_all(path, stdout=False)] == [b" two  words \n"]
    assert [line[2] for line in read_all(path, since_ns=base + 1)] == [b" two  words \n"]
    assert [line[2] for line in read_all(path, until_ns=base)] == [b"one\n"]


def test_partial_lines_are_joined_per_stream(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(
        record("stdout", "P", "a")
        + record("stderr", "F", "error")
        + record("stdout", "P", "b", 5)
        + record("stdout", "F", "c", 6)
        + record("stdout", "P", "prompt> ", 7)
    )
    lines = read_all(path)
    assert [line[2] for line in lines] == [b"error\n", b"abc\n", b"prompt> "]
    assert lines[1][1] == EPOCH * 10**9 + 42  # the time of its first piece


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert read_all(tmp_path / "none") == []
    assert read_all(tmp_path / "none", tail=5) == []


def test_other_text_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"garbage\n\0\0\n" + record("stdout", "F", "good") + b"2023 stdout F bad time\n" + b"cut off")
    assert [line[2] for line in read_all(path)] == [b"good\n"]


def test_a_huge_line_comes_in_bounded_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log"
    piece = "x" * 8000
    path.write_bytes(record("stdout", "P", piece) * 400 + record("stdout", "F", "end"))
    lines = [line[2] for line in read_all(path)]
    assert b"".join(lines) == piece.encode() * 400 + b"end\n"
    assert max(map(len, lines)) <= logs.LINE_LIMIT + 8000
    assert [line[2] for line in read_all(path, tail=1)][-1].endswith(b"end\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"2023-11-14T22:13:20.000000042+00:00", EPOCH * 10**9 + 42),
        (b"2023-11-14T23:13:20.500000000+01:00", EPOCH * 10**9 + 5 * 10**8),
        (b"2023-11-14T22:13:20Z", EPOCH * 10**9),
        (b"2023-11-14T22:13:20.1+00:00", None),
        (b"2023-11-14T22:13:20", None),
        (b"now", None),
    ],
)
def test_times(text: bytes, expected: int | None) -> None:
    parsed = logs.parse_record(text + b" stdout F x")
    assert (parsed and parsed[1]) == expected


RECORDS = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from("FFP"), st.text("ab", max_size=40)), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(records=RECORDS, count=st.integers(0, 20), block=st.sampled_from([16, 64, 300, 4096]))
def test_tail_is_the_end_of_everything(
    records: Sequence[tuple[str, str, str]], count: int, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("tail") / "log"
    path.write_bytes(b"".join(record(s, f, f"{n}{t}", n) for n, (s, f, t) in enumerate(records)))
    before = logs.BLOCK
    logs.BLOCK = block
    try:
        everything = read_all(path)
        assert read_all(path, tail=count) == (everything[-count:] if count else [])
    finally:
        logs.BLOCK = before


def test_tail_of_a_large_log_reads_its_end_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(record("stdout", "F", f"line {n}") for n in range(100_000)))
    read: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: read.append(size) or pread(fd, size, at))
    assert [line[2] for line in read_all(path, tail=2)] == [b"line 99998\n", b"line 99999\n"]
    assert sum(read) < 2 * logs.HEAD_SEARCH + 10 * logs.BLOCK


def test_since_finds_its_place_in_a_large_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(record("stdout", "F", f"line {n}", n) for n in range(100_000)))
    reads: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: reads.append(size) or pread(fd, size, at))
    lines = read_all(path, since_ns=(EPOCH + 99_990) * 10**9)
    assert [line[2] for line in lines] == [b"line %d\n" % n for n in range(99_990, 100_000)]
    assert len(reads) < 25


def test_following_ends_with_the_container(tmp_path: Path) -> None:
    path = tmp_path / "log"

    async def scenario() -> list[bytes]:
        ended = asyncio.Event()
        seen: list[bytes] = []
        read_one = asyncio.Event()

        async def follow() -> None:
            async for _, _, data in logs.read(str(path), ended=ended):
                seen.append(data)
                read_one.set()

        task = asyncio.ensure_future(follow())
        await asyncio.sleep(0)  # it watches before the file is there
        path.write_bytes(record("stdout", "F", "first"))
        await asyncio.wait_for(read_one.wait(), 10)
        with path.open("ab") as file:
            file.write(record("stdout", "P", "sec"))
            file.flush()
            read_one.clear()
            file.write(record("stdout", "F", "ond"))
            file.flush()
            await asyncio.wait_for(read_one.wait(), 10)
            file.write(record("stderr", "F", "last words"))
        ended.set()
        await asyncio.wait_for(task, 10)
        return seen

    assert asyncio.run(scenario()) == [b"first\n", b"second\n", b"last words\n"]


def test_following_ends_when_its_time_is_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(record("stdout", "F", "old"))

    async def scenario() -> list[bytes]:
        until = int((datetime.now(UTC).timestamp() + 0.05) * 1e9)
        return [data async for _, _, data in logs.read(str(path), ended=asyncio.Event(), until_ns=until)]

    assert asyncio.run(asyncio.wait_for(scenario(), 10)) == [b"old\n"]


def test_an_idle_follower_uses_no_cpu(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(record("stdout", "F", "old"))

    async def scenario() -> int:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        lines = logs.read(str(path), ended=ended)
        await anext(lines)
        waiting = asyncio.ensure_future(anext(lines, None))
        with path.open("ab") as file:  # wakes it once
            file.write(b"not a record\n")
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1

        for _ in range(50):
            loop.call_soon(turn)
            await asyncio.sleep(0.002)
        busy = turns
        ended.set()
        assert await waiting is None
        return busy

    assert asyncio.run(scenario()) == 50
