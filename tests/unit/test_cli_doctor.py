"""`tsunagu doctor`: lines, exit codes and the request behind each flag, against canned answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unit.canned_engine import CannedEngine, serving, tsunagu

FINE = {"Topic": "forwarding", "Level": "ok", "Text": "the host forwards IPv4", "Remedy": "", "Repairable": False}
WRONG = {"Topic": "bridges", "Level": "wrong", "Text": "br-1 is missing", "Remedy": "do this", "Repairable": True}
ODD = {"Topic": "disk", "Level": "warning", "Text": "little space", "Remedy": "prune", "Repairable": False}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[CannedEngine]:
    with serving(tmp_path) as engine:
        yield engine


def answer(*findings: dict[str, Any], repairs: tuple[dict[str, str], ...] = ()) -> dict[str, Any]:
    return {
        "Healthy": all(one["Level"] != "wrong" for one in findings), "Findings": list(findings),
        "Repairs": list(repairs),
    }  # fmt: skip


def test_nothing_wrong(engine: CannedEngine) -> None:
    engine.routes["GET /tsunagu/doctor"] = answer(FINE, ODD)
    expected = (
        "✓ forwarding  the host forwards IPv4\n! disk        little space\n              try: prune\n\n"
        "Nothing is wrong.\n"
    )
    assert tsunagu(engine, "doctor") == (0, expected, "")


def test_something_wrong(engine: CannedEngine) -> None:
    engine.routes["GET /tsunagu/doctor"] = answer(FINE, WRONG)
    result = tsunagu(engine, "doctor")
    assert result.code == 1
    assert "✗ bridges     br-1 is missing\n              try: do this\n" in result.out
    assert result.out.endswith("\n\n1 wrong; 1 of them can be repaired: tsunagu doctor --fix\n")


def test_repairs(engine: CannedEngine) -> None:
    done = ({"Text": "br-1 is missing", "Error": ""}, {"Text": "veth1 is gone", "Error": "no such device"})
    engine.routes["POST /tsunagu/doctor"] = answer(WRONG, repairs=done)
    result = tsunagu(engine, "doctor", "--fix")
    assert result.code == 1
    assert result.out.startswith("repaired: br-1 is missing\nnot repaired (no such device): veth1 is gone\n\n✗ bridges")
    assert result.out.endswith("\n\n1 wrong.\n")


def test_json(engine: CannedEngine) -> None:
    engine.routes["GET /tsunagu/doctor"] = answer(WRONG)
    result = tsunagu(engine, "doctor", "--json")
    assert (result.code, json.loads(result.out)) == (1, answer(WRONG))
