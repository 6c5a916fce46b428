"""`dns` on the command line: what is asked, what is printed, how it exits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tsunagu.cli.commands.dns import _ORIGINS, duration, line, origin
from unit.canned_engine import CannedEngine, serving, tsunagu


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[CannedEngine]:
    with serving(tmp_path) as engine:
        yield engine


def answer(**changes: Any) -> dict[str, Any]:
    return {
        "Name": "db", "Type": "A", "Status": "NOERROR", "Records": [{"Type": "A", "TTL": 5, "Data": "10.0.0.2"}],
        "Origin": "network", "Detail": "app", "Microseconds": 400, "Hosts": [], **changes,
    }  # fmt: skip


def test_ls(engine: CannedEngine) -> None:
    engine.routes["GET /tsunagu/dns/zone"] = [
        {
            "Name": "db", "Network": "app", "IPv4": ["10.0.0.2", "10.0.0.3"], "IPv6": ["fd00::2"],
            "Why": ["alias"], "Containers": ["one", "two"], "TTL": 5,
        }
    ]  # fmt: skip
    result = tsunagu(engine, "dns", "ls", "web")
    assert result.out == (
        "NAME   TYPE   ADDRESS              NETWORK   WHY                 TTL\n"
        "db     A      10.0.0.2, 10.0.0.3   app       alias of one, two   5\n"
        "db     AAAA   fd00::2              app       alias of one, two   5\n"
    )
    assert engine.requests[-1].query == "container=web"


def test_query(engine: CannedEngine) -> None:
    engine.routes["GET /tsunagu/dns/query"] = answer()
    assert tsunagu(engine, "dns", "query", "web", "db") == (
        0, "db   A   5   10.0.0.2\nfrom: network app, 400 µs\n", "",
    )  # fmt: skip
    assert engine.requests[-1].query == "container=web&name=db&type=A"


def test_no_answer(engine: CannedEngine) -> None:
    engine.routes["GET /tsunagu/dns/query"] = answer(
        Status="SERVFAIL", Records=[], Origin="internal", Detail="", Hosts=["10.9.9.9"]
    )
    result = tsunagu(engine, "dns", "query", "web", "db", "AAAA")
    assert result.code == 0  # /etc/hosts has it
    assert result.out == "db   SERVFAIL\nfrom: not forwarded: all its networks are internal, 400 µs\n"
    assert result.err == "db is in the /etc/hosts of web (10.9.9.9): programs find that first\n"
    engine.routes["GET /tsunagu/dns/query"] = answer(Records=[], Type="AAAA")
    assert tsunagu(engine, "dns", "query", "web", "db", "AAAA").code == 1


def test_the_log_is_written_only_for_who_follows(engine: CannedEngine) -> None:
    result = tsunagu(engine, "dns", "log", "web")
    assert result.code == 1
    assert "tsunagu dns log -f web" in result.err
    assert engine.requests == []


@pytest.mark.parametrize("word", _ORIGINS)
def test_every_origin_has_words(word: str) -> None:
    assert "{}" not in origin(answer(Origin=word, Detail=""))
    assert "{}" not in origin(answer(Origin=word, Detail="x"))


def test_a_line_of_the_log() -> None:
    entry = answer(Time=10**9, Container="web", Protocol="tcp", Answers=["10.0.0.2"], Microseconds=1500)
    assert line(entry)[12:] == "  web  A db over tcp → 10.0.0.2  (network app, 1.5 ms)"
    entry = answer(
        Time=10**9, Container="web", Protocol="udp", Answers=[], Status="NXDOMAIN", Origin="subnet", Detail=""
    )
    assert "A db → NXDOMAIN  (an address of a network of ours that nobody has" in line(entry)


def test_durations() -> None:
    assert (duration(999), duration(1000)) == ("999 µs", "1.0 ms")
