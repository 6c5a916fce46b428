"""rules.logging and services.log_files: drivers, options, logs of several files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tsunagu.model.container import LogConfig
from tsunagu.model.errors import EngineError
from tsunagu.rules.logging import Keeping, keeping
from tsunagu.services import logs
from tsunagu.services.log_files import rotate

STAMP = "2026-11-23T21:54:{:02d}.000000000+00:00"


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (LogConfig(), Keeping()),
        (LogConfig(type=""), Keeping()),
        (LogConfig(config={"max-size": "10m"}), Keeping(size=10_000_000)),
        (LogConfig(config={"max-size": "1.5k", "max-file": "3"}), Keeping(size=1500, files=3)),
        (LogConfig(config={"max-size": "512", "compress": "false"}), Keeping(size=512)),
        (LogConfig(type="local"), Keeping(size=20_000_000, files=5)),
        (LogConfig(type="local", config={"max-file": "1"}), Keeping(size=20_000_000)),
        (LogConfig(type="none"), Keeping(is_kept=False)),
    ],
)
def test_what_is_kept(config: LogConfig, kept: Keeping) -> None:
    assert keeping(config) == kept


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (LogConfig(type="paper"), "logger: no log driver named 'paper' is registered"),
        (LogConfig(type="syslog"), "the logging driver syslog is not supported yet"),
        (LogConfig(config={"max": "1"}), "unknown log opt 'max' for json-file log driver"),
        (LogConfig(type="none", config={"max-size": "1"}), "unknown log opt 'max-size' for none log driver"),
        (LogConfig(config={"tag": "x"}), "the option tag of logging driver json-file is not supported yet"),
        (
            LogConfig(config={"compress": "true"}),
            "the option compress of logging driver json-file is not supported yet",
        ),
        (LogConfig(config={"max-size": "big"}), "failed to initialize logging driver: invalid size: 'big'"),
        (
            LogConfig(config={"max-size": "0"}),
            "failed to initialize logging driver: max-size must be a positive number",
        ),
        (LogConfig(config={"max-file": "0"}), "failed to initialize logging driver: max-file cannot be less than 1"),
        (
            LogConfig(config={"max-file": "x"}),
            'failed to initialize logging driver: strconv.Atoi: parsing "x": invalid syntax',
        ),
    ],
)
def test_refusals(config: LogConfig, sentence: str) -> None:
    with pytest.raises(EngineError) as caught:
        keeping(config)
    assert caught.value.message == sentence


def record(number: int) -> str:
    return f"{STAMP.format(number)} stdout F line {number}\n"


def read(path: Path, **options: object) -> list[str]:
    async def work() -> list[str]:
        return [data.decode() async for _, _, data in logs.read(str(path), **options)]  # type: ignore[arg-type]

    return asyncio.run(work())


def test_rotation_keeps_as_many_files_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for number in range(5):
        path.write_text(record(number))
        rotate(str(path), 3)
    path.write_text(record(5))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert read(path) == [f"line {number}\n" for number in (3, 4, 5)]
    assert read(path, tail=2) == ["line 4\n", "line 5\n"]
    path.unlink()
    assert read(path, tail=1) == ["line 4\n"], "just moved, and not made anew yet"


def test_time_and_tail_across_files(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for first in (0, 10, 20):
        path.write_text("".join(record(number) for number in range(first, first + 10)))
        if first < 20:
            rotate(str(path), 4)
    assert read(path) == [f"line {number}\n" for number in range(30)]
    assert read(path, tail=25) == [f"line {number}\n" for number in range(5, 30)]
    since = logs.parse_record(record(12).rstrip("\n").encode())
    assert since is not None
    assert read(path, since_ns=since[1]) == [f"line {number}\n" for number in range(12, 30)]


def test_a_follower_misses_nothing_when_files_move(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(record(0))

    async def work() -> list[str]:
        ended = asyncio.Event()
        seen: list[str] = []
        async for _, _, data in logs.read(str(path), ended=ended):
            seen.append(data.decode())
            if len(seen) == 1:
                with path.open("a") as file:
                    file.write(record(1))
                    rotate(str(path), 4)
                    file.write(record(2))  # whoever writes has it open still
                path.write_text(record(3))
                rotate(str(path), 4)  # twice before the reader looks again
                path.write_text(record(4))
            elif len(seen) == 5:
                with path.open("a") as file:
                    file.write(record(5))
                ended.set()
        return seen

    assert asyncio.run(asyncio.wait_for(work(), 10)) == [f"line {number}\n" for number in range(6)]


def test_a_log_that_began_anew_is_not_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(record(0))
    rotate(str(path), 3)
    path.write_text(record(1))

    async def work() -> list[str]:
        ended = asyncio.Event()
        seen: list[str] = []
        async for _, _, data in logs.read(str(path), ended=ended):
            seen.append(data.decode())
            if len(seen) == 2:  # as conmon does it: another file takes its place
                (tmp_path / "new").write_text(record(2))
                (tmp_path / "new").rename(path)
                ended.set()
        return seen

    assert asyncio.run(asyncio.wait_for(work(), 10)) == [f"line {number}\n" for number in range(3)]
