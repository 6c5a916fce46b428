"""`why` on the command line: how its target is read, what it prints, how it exits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tsunagu.cli.commands.why import split_target
from tsunagu.cli.output import Failure
from unit.canned_engine import CannedEngine, serving, tsunagu


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[CannedEngine]:
    with serving(tmp_path) as engine:
        yield engine


def answer(reason: str = "same-network", **changes: Any) -> dict[str, Any]:
    is_good = reason == "same-network"
    step = {"Ok": is_good, "Text": "the last step", "Reason": reason}
    return {
        "Reachable": is_good, "Reason": reason, "Sentence": "it is so", "Remedy": "", "Documentation": "docs/x#y",
        "Addresses": [], "Containers": [], "Warnings": [],
        "Steps": [{"Ok": True, "Text": "the first step", "Reason": ""}, step], **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db", ("db", 0, "")),
        ("db:5432", ("db", 5432, "")),
        ("db:53/udp", ("db", 53, "udp")),
        ("db:53/UDP", ("db", 53, "udp")),
        ("db/icmp", ("db", 0, "icmp")),
        ("10.0.0.1:80", ("10.0.0.1", 80, "")),
        ("fd00::1", ("fd00::1", 0, "")),
        ("[fd00::1]:80", ("fd00::1", 80, "")),
        ("[fd00::1]", ("fd00::1", 0, "")),
        ("http://web/index.html?x=1", ("web", 80, "")),
        ("http://web:8080", ("web", 8080, "")),
        ("postgres://user:secret@db/app", ("db", 5432, "")),
        ("redis://[fd00::2]:7000/0", ("fd00::2", 7000, "")),
    ],
)
def test_targets(text: str, expected: tuple[str, int, str]) -> None:
    assert split_target(text) == expected


@pytest.mark.parametrize(
    "text", ["db:", "db:http", "db:0", "db:65536", "db:-1", ":80", "db/udp", "db:1/sctp", "", "db:٣"]
)
def test_wrong_targets(text: str) -> None:
    with pytest.raises(Failure) as caught:
        split_target(text)
    assert caught.value.code == 125


def test_reachable(engine: CannedEngine) -> None:
    engine.routes["GET /tsunagu/why"] = answer(Warnings=["look out"])
    result = tsunagu(engine, "why", "web", "db:80")
    assert result == (0, "✓ the first step\n✓ the last step\n! look out\n\nweb reaches db:80.\n", "")
    (request,) = engine.requests
    assert sorted(request.query.split("&")) == ["from=web", "port=80", "to=db"]


def test_not_reachable(engine: CannedEngine) -> None:
    engine.routes["GET /tsunagu/why"] = answer("icc-off", Remedy="tsunagu do this")
    result = tsunagu(engine, "why", "web", "db:80/udp")
    assert result.code == 1
    assert result.out == (
        "✓ the first step\n✗ the last step\n\nweb does not reach db:80/udp: it is so (icc-off).\n"
        "Try:\n  tsunagu do this\n"
    )
    assert tsunagu(engine, "why", "-q", "web", "db").out == ""


def test_the_deciding_rules_counter_is_shown_when_it_counted(engine: CannedEngine) -> None:
    counter = {"Rule": "icc-off", "Verdict": "drop", "Packets": 3, "Bytes": 180}
    engine.routes["GET /tsunagu/why"] = answer("icc-off", Counter=counter)
    said = "✗ the last step\n  (the rule icc-off has dropped 3 packets, 180 bytes, since it is in force)\n\n"
    assert said in tsunagu(engine, "why", "web", "db").out
    counter |= {"Rule": "outgoing", "Verdict": "accept", "Packets": 1, "Bytes": 84}
    engine.routes["GET /tsunagu/why"] = answer(Counter=counter)
    assert "(the rule outgoing has let through 1 packet, 84 bytes" in tsunagu(engine, "why", "web", "db").out
    counter |= {"Packets": 0}
    engine.routes["GET /tsunagu/why"] = answer(Counter=counter)
    assert "the rule" not in tsunagu(engine, "why", "web", "db").out


def test_json(engine: CannedEngine) -> None:
    engine.routes["GET /tsunagu/why"] = answer("icc-off")
    result = tsunagu(engine, "why", "--json", "web", "db")
    assert result.code == 1
    assert json.loads(result.out) == answer("icc-off")


def test_unknown_things(engine: CannedEngine) -> None:
    engine.routes["GET /tsunagu/why"] = answer("name-unknown")
    assert tsunagu(engine, "why", "web", "nosuch").code == 2
    engine.routes["GET /tsunagu/why"] = (404, {"message": "No such container: nosuch"})
    expected = (2, "", "Error response from daemon: No such container: nosuch\n")
    assert tsunagu(engine, "why", "nosuch", "web") == expected
