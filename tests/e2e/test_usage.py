"""`system df`, `system prune` and the filters of `image prune`, with both clients on an engine of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root


@pytest.mark.parametrize("name", ["docker", "tsunagu"])
def test_disk_usage_and_what_prune_takes(
    name: str,
    new_engine: Callable[[], EngineProcess],
    client_of: Callable[[str, EngineProcess], CommandLine],
    images: Callable[[str], Path],
) -> None:
    engine = new_engine()
    cli = client_of(name, engine)
    engine.load(images("alpine"))
    cli("run -d --name up alpine sleep 1000").ok()
    cli("run --name down alpine sh -c", "head -c 2000000 /dev/zero > /big").ok()
    cli("network create idle").ok()
    cli("run --rm -v named:/data alpine sh -c", "head -c 1000000 /dev/zero > /data/big").ok()
    cli("run --name holder -v /anonymous -v named:/data alpine true").ok()
    cli("commit --change 'LABEL keep=yes' down made/one").ok()
    cli("commit --change 'LABEL keep=no' down made/two").ok()
    lines = {line.split("  ")[0]: line.split() for line in cli("system df").ok().splitlines()}
    assert lines["TYPE"] == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert lines["Images"][1:3] == ["3", "1"]
    assert lines["Containers"][1:3] == ["3", "1"] and lines["Containers"][3].endswith("MB")
    assert "(9" in " ".join(lines["Containers"]) or "(100%)" in lines["Containers"]
    assert lines["Local Volumes"][:5] == ["Local", "Volumes", "2", "2", "1MB"]
    assert "named" in cli("system df -v").ok().partition("Local Volumes space usage:")[2]
    assert "Containers space usage:" in cli("system df -v").ok()
    assert "Total reclaimed space: 0B" in cli("image prune -af --filter label=nosuch").ok()
    assert "Total reclaimed space: 0B" in cli("image prune -af --filter until=24h").ok()
    pruned = cli("image prune -af --filter label!=keep=yes").ok()
    assert "untagged: made/two:latest" in pruned and "made/one" not in pruned
    asked = cli("system prune", stdin=b"n\n")
    assert asked.out.startswith(
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
        "  - all dangling images\n  - unused build cache\n\nAre you sure you want to continue? [y/N] "
    )
    assert cli("inspect -f {{.Name}} down").ok() == "/down"
    done = cli("system prune -af").ok()
    assert "Deleted Containers:\n" in done and "Deleted Networks:\nidle\n" in done and "made/one:latest" in done
    assert done.splitlines()[-1].startswith("Total reclaimed space: ") and "MB" in done.splitlines()[-1]
    assert len(cli("volume ls -q").ok().split()) == 2, "volumes stay"
    asked = cli("system prune --volumes", stdin=b"n\n")
    assert "\n  - all anonymous volumes not used by at least one container\n" in asked.out
    done = cli("system prune --volumes -f").ok()
    assert "Deleted Volumes:\n" in done and cli("volume ls -q").ok() == "named"
    assert 'The "until" filter is not supported with "--volumes"' in (
        cli("system prune -f --volumes --filter until=1h").err
    )
    assert cli("ps -aq").ok().count("\n") == 0 and cli("images -q").ok().count("\n") == 0
