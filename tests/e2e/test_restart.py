"""The engine goes and comes again: containers run on, names are answered all the time, everything is known again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root
ClientOf = Callable[[str, EngineProcess], CommandLine]

# Asks every 5 ms on a fresh socket, as programs do; writes what failed. Ends when the file /stop appears.
ASKING = (
    "rm -f /stop; n=0; bad=0; while [ ! -e /stop ]; do "
    "n=$((n+1)); nslookup -type=a web 127.0.0.11 >/dev/null 2>&1 || bad=$((bad+1)); usleep 5000; done; "
    'echo "asked $n failed $bad"'
)


def networks_of(engine: EngineProcess) -> list[dict[str, Any]]:
    """Everything that is known of the networks, in a fixed order."""
    return sorted(engine.api.get("/networks"), key=lambda network: str(network["Id"]))


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_names_resolve_while_the_engine_is_away(
    new_engine: Callable[[], EngineProcess], images: Callable[[str], Path], client_of: ClientOf, ending: str
) -> None:
    engine = new_engine()
    engine.load(images("alpine"))
    cli = client_of("tsunagu", engine)
    cli("network create net").ok()
    cli("run -d --name web --network net --network-alias front alpine sleep 3600").ok()
    cli("run -d --name asker --network net alpine sh -c", ASKING).ok()
    cli("run -d --name ticker --network net alpine sh -c", "while :; do echo tick; sleep 0.1; done").ok()
    before = {name: json.loads(cli(f"inspect {name}").ok())[0] for name in ("web", "asker", "ticker")}
    networks = networks_of(engine)
    logged = cli("logs ticker").out.count("tick")
    for _ in range(3):
        engine.stop() if ending == "stop" else engine.kill()
        engine.start()
    for name, old in before.items():
        new = json.loads(cli(f"inspect {name}").ok())[0]
        assert new["State"]["Pid"] == old["State"]["Pid"], f"{name} ran on"
        assert new["State"]["StartedAt"] == old["State"]["StartedAt"]
        assert new["NetworkSettings"]["Networks"] == old["NetworkSettings"]["Networks"]
    assert networks_of(engine) == networks
    # the engine still follows its containers: logs, execs, names, ends
    assert cli("logs ticker").out.count("tick") > logged
    assert cli("exec web echo here").ok() == "here"
    cli("run -d --name late --network net alpine sleep 3600").ok()
    assert cli("exec asker nslookup -type=a late").code == 0
    assert cli("exec late nslookup -type=a front").code == 0
    cli("exec asker touch /stop")  # may be killed with its container, which ends at once
    assert cli("wait asker").ok() == "0"
    words = cli("logs asker").ok().split()
    assert int(words[1]) > 50
    assert words[2:] == ["failed", "0"], words


def test_end_of_a_container_while_the_engine_is_away(
    new_engine: Callable[[], EngineProcess], images: Callable[[str], Path], client_of: ClientOf, tmp_path: Path
) -> None:
    engine = new_engine()
    engine.load(images("alpine"))
    cli = client_of("tsunagu", engine)
    cli("network create net").ok()
    cli("run -d --name stays --network net alpine sleep 3600").ok()
    gate = tmp_path / "gate"
    gate.mkdir()
    cli(
        f"run -d --name ends --network net -v {gate}:/gate alpine sh -c",
        "until [ -e /gate/go ]; do usleep 1000; done; exit 5",
    ).ok()
    pid = int(cli("inspect -f {{.State.Pid}} ends").ok())
    engine.kill()
    (gate / "go").touch()
    while Path(f"/proc/{pid}").exists():
        pass
    engine.start()
    assert cli("wait ends").ok() == "5"
    assert cli("inspect -f", "{{.State.Status}} {{.State.ExitCode}}", "ends").ok() == "exited 5"
    assert cli("exec stays nslookup -type=a ends").code == 1, "its name has left"
    assert cli("ps -q").ok() == cli("inspect -f {{.Id}} stays").ok()[:12]
    cli("start ends").ok()


def test_state_without_containers_is_known_again(
    new_engine: Callable[[], EngineProcess], images: Callable[[str], Path], client_of: ClientOf
) -> None:
    engine = new_engine()
    engine.load(images("alpine"))
    cli = client_of("tsunagu", engine)
    cli("network create --label a=b net").ok()
    cli("create --name box --network net --label k=v alpine echo hello").ok()
    networks, images_before = networks_of(engine), engine.api.get("/images/json")
    engine.restart()
    assert networks_of(engine) == networks
    assert engine.api.get("/images/json") == images_before
    assert cli("start -a box").ok() == "hello"


def test_two_engines_do_not_touch_each_other(
    new_engine: Callable[[], EngineProcess], images: Callable[[str], Path], client_of: ClientOf
) -> None:
    first, second = new_engine(), new_engine()
    for number, engine in enumerate((first, second)):
        engine.load(images("alpine"))
        cli = client_of("tsunagu", engine)
        cli("network create net").ok()
        cli("run -d --name web --network net alpine sleep 3600").ok()
        assert cli("ps --format {{.Names}}").ok() == "web", number
    left = second.close()
    assert left == []
    assert client_of("tsunagu", first)("run --rm --network net alpine ping -c 1 web").code == 0


def test_second_engine_on_the_same_root_is_refused(new_engine: Callable[[], EngineProcess]) -> None:
    engine = new_engine()
    twin = EngineProcess()
    try:
        twin.instance = engine.instance
        with pytest.raises(RuntimeError, match="another engine"):
            twin.start()
    finally:
        twin.directory.joinpath("engine.log").unlink()
        twin.directory.rmdir()
    assert engine.api.request("GET", "/_ping")[0] == 200
