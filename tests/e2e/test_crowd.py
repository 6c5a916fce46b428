"""Many containers at once: every one comes up with its own address and name, and all leave without a trace."""

from __future__ import annotations

import concurrent.futures
import json

import pytest

from tsunagu.testing import host
from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

COUNT = 30


def test_thirty_at_once(cli: CommandLine, engine: EngineProcess) -> None:
    # the first container of an engine makes the parent cgroup, which stays as long as the engine
    cli("run --rm alpine true").ok()
    before = host.read()
    cli("network create crowd").ok()
    with_network = host.read()
    with concurrent.futures.ThreadPoolExecutor(COUNT) as pool:
        commands = [f"run -d --name member{n} --network crowd alpine sleep 3600" for n in range(COUNT)]
        results = list(pool.map(cli, commands))
    assert [str(result) for result in results if result.code] == []
    members = json.loads(cli("network inspect crowd").ok())[0]["Containers"].values()
    addresses = {member["Name"]: member["IPv4Address"].partition("/")[0] for member in members}
    assert len(addresses) == COUNT
    assert len(set(addresses.values())) == COUNT
    names = " ".join(addresses)
    lookups = cli("run --rm --network crowd bench sh -c", f"for name in {names}; do dig +short $name; done").ok()
    assert lookups.splitlines() == list(addresses.values())
    removed = cli("rm -f", *addresses)
    assert sorted(removed.ok().splitlines()) == sorted(addresses)
    assert_gone(with_network, engine)
    cli("network rm crowd").ok()
    assert_gone(before, engine)


def assert_gone(before: host.HostState, engine: EngineProcess) -> None:
    """Nothing of the engine's instance is there that was not there `before`."""
    known = set(before.of(engine.instance))
    # the resolver starts with the first container on a user-defined network and stays with the engine
    left = [
        entry for entry in host.read().of(engine.instance) if entry not in known and "tsunagu.resolver" not in entry
    ]
    assert left == []
