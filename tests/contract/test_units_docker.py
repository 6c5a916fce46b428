"""cli.units against the docker client: ages and sizes of a listing, moments of `logs --since`."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tsunagu.cli import units

from .docker_client import CannedApi, docker

SEED = int(os.environ.get("TSUNAGU_SEED", "1"))
MOMENTS = """10m 1h30m -5s 1.5h 24h0.5s 1h0 0 5 +5 -5 1e3 .5 1700000000 1700000000.5 1700000000. 1.2.3 x 12x 1700-
    2024-01-02 2024-01-02Z 2024-01-02T03 2024-01-02T3:04:05Z 2024-01-02T03:04 2024-01-02T03:04:05 2024-07-02T03:04:05
    2024-01-02T03:04:05Z 2024-01-02T03:04:05.5Z 2024-01-02T03:04:05,5Z 2024-01-02T03:04:05.123456789
    2024-01-02T03:04:05+09:00 2024-01-02T03:04:05-08:00 2024-01-02T03:04-08:00 2024-13-01 2024-02-30 2024-01-02T25
    2024-1-2 2024-01-02T03:04:05.Z 2024-01-02t03:04:05z 2024-01-02T03:04:60Z""".split()
ZONE = "Europe/Berlin" if Path("/usr/share/zoneinfo/Europe/Berlin").exists() else "UTC"

pytestmark = pytest.mark.skipif(
    not docker(), reason="no docker client on this machine to compare durations and sizes with"
)


def test_ages_and_sizes(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    now = int(time.time())
    # Ages in the middle of their unit's step: the client looks at its clock a moment after we do.
    ages = [int(chance.choice([1, 60, 3600, 86400, 86400 * 30]) * chance.uniform(1, 80)) for _ in range(300)]
    sizes = [int(10 ** chance.uniform(0, 17)) for _ in ages]
    items = [
        {"Id": f"sha256:{number:064x}", "RepoTags": [f"i{number}:1"], "Created": now - age, "Size": size}
        for number, (age, size) in enumerate(zip(ages, sizes, strict=True))
    ]
    api = CannedApi(tmp_path, {"/images/json": items})
    try:
        command = [docker(), "-H", api.url, "images", "--format", "{{.Repository}} {{.Size}} {{.CreatedSince}}"]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    finally:
        api.close()
    lines = {int(line.split(" ")[0][1:]): line.split(" ", 2)[1:] for line in printed.splitlines()}
    assert len(lines) == len(items)
    for number, (age, size) in enumerate(zip(ages, sizes, strict=True)):
        shown_size, shown_age = lines[number]
        assert shown_size == units.human_size(size, 3)
        assert shown_age in {f"{units.human_duration(age + late)} ago" for late in (0, 1, 2, 5)}


def test_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", ZONE)
    time.tzset()
    api = CannedApi(tmp_path, {"/containers/c/json": {"Id": "c", "Config": {"Tty": True}}})
    try:
        for text in MOMENTS:
            theirs, ours = _since(api, text), _ours(text)
            if text[-1] in "smh" and "-" not in text[1:]:
                # A duration back from now: the two clocks were read a moment apart.
                assert abs(int(theirs) - int(ours)) <= 5, text
            else:
                assert ours == theirs, text
    finally:
        api.close()
        monkeypatch.undo()
        time.tzset()


def _since(api: CannedApi, text: str) -> str:
    """What the client sends as `since`, or its complaint."""
    api.requests.clear()
    result = subprocess.run(
        [docker(), "-H", api.url, "logs", "--since", text, "c"], capture_output=True, text=True, timeout=20, check=False
    )
    sent = [parse_qs(urlsplit(request.split(" ", 1)[1]).query) for request in api.requests if "/logs" in request]
    return sent[0]["since"][0] if sent else result.stderr.strip().removeprefix('invalid value for "since": ')


def _ours(text: str) -> str:
    try:
        return units.timestamp(text, time.time())
    except ValueError as error:
        return str(error)
