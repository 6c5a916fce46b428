"""Special networks: `--network container:NAME` (one sandbox for several containers), `host` and `none`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root
ClientOf = Callable[[str, EngineProcess], CommandLine]

DAEMON = "Error response from daemon: "
SERVE = "echo hello > /index.html; exec httpd -f -p 80 -h /"


@pytest.fixture
def shared(cli: CommandLine) -> Iterator[CommandLine]:
    """`vpn` on a network with a published port, `web` that serves in its sandbox, `asker` beside them."""
    cli("network create app").ok()
    cli("run -d --name vpn --network app -p 127.0.0.1::80 alpine sleep 3600").ok()
    cli("run -d --name web --network container:vpn alpine sh -c", SERVE).ok()
    cli("run -d --name asker --network app alpine sleep 3600").ok()
    yield cli


def inspect(cli: CommandLine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli(f"inspect {name}").ok())[0]
    return found


def answers(cli: CommandLine, port: str) -> list[str]:
    """What the server says by name from the network, through the published port, and to its sandbox's own loopback."""
    by_name = cli("exec asker sh -c", "wget -qO- http://vpn/ || echo nobody").ok()
    published = cli("run --rm --network host alpine sh -c", f"wget -qO- http://{port}/ || echo nobody").ok()
    return [by_name, published]


def published(cli: CommandLine) -> str:
    return cli("port vpn 80/tcp").ok()


def test_several_containers_share_one_sandbox(shared: CommandLine) -> None:
    cli = shared
    owner = inspect(cli, "vpn")
    assert answers(cli, published(cli)) == ["hello", "hello"]
    assert cli("exec vpn wget -qO- http://127.0.0.1/").ok() == "hello"
    for command in ("hostname", "cat /etc/hosts", "cat /etc/resolv.conf", "ip -4 addr", "ip route"):
        assert cli(f"exec web {command}").ok() == cli(f"exec vpn {command}").ok(), command
    assert cli("exec web nslookup -type=a asker").code == 0
    assert cli("exec asker nslookup -type=a web").code == 1, "who joins has no name of its own, as in Docker"
    shown = inspect(cli, "web")
    assert shown["HostConfig"]["NetworkMode"] == f"container:{owner['Id']}"
    settings = shown["NetworkSettings"]
    assert (settings["Networks"], settings["Ports"], settings["SandboxKey"]) == ({}, {}, "")
    assert [shown[key] for key in ("HostsPath", "ResolvConfPath", "HostnamePath")] == [
        owner[key] for key in ("HostsPath", "ResolvConfPath", "HostnamePath")
    ]
    assert cli("ps --filter name=web --format {{.Ports}}").ok() == ""
    members = json.loads(cli("network inspect app").ok())[0]["Containers"]
    assert sorted(one["Name"] for one in members.values()) == ["asker", "vpn"]
    # whoever joins a joiner is in the same sandbox; so is an exec
    assert cli("run --rm --network container:web alpine wget -qO- http://127.0.0.1/").ok() == "hello"


def test_the_sandbox_survives_its_owner(shared: CommandLine) -> None:
    cli = shared
    port, before = published(cli), inspect(cli, "vpn")["NetworkSettings"]
    cli("stop -t 0 vpn").ok()
    assert answers(cli, port) == ["hello", "hello"], "names, addresses and ports stay while anybody lives there"
    cli("run --rm --network container:vpn alpine wget -qO- http://127.0.0.1/").ok()
    cli.refuses(
        cli("rm vpn"),
        1,
        DAEMON + 'cannot remove container "vpn": its network is used by web: stop them before removing or force remove',
    )
    assert cli("container prune -f").ok().splitlines()[0] == "Total reclaimed space: 0B"
    refused = cli("network rm app")
    assert refused.code == 1
    assert "has active endpoints" in refused.err
    cli("network create late").ok()
    cli("network connect late vpn").ok()
    assert "eth1" in cli("exec web ip addr").ok(), "a network is connected to the sandbox, whoever lives in it"
    cli("network disconnect late vpn").ok()
    cli("start vpn").ok()
    assert inspect(cli, "vpn")["NetworkSettings"] == before, "the start entered the same sandbox"
    cli("restart -t 0 vpn").ok()
    assert inspect(cli, "vpn")["NetworkSettings"] == before
    assert answers(cli, port) == ["hello", "hello"]
    assert cli("exec vpn wget -qO- http://127.0.0.1/").ok() == "hello"


def test_the_last_one_gives_everything_back(shared: CommandLine, engine: EngineProcess) -> None:
    cli = shared
    pinned = Path(engine.instance.run_dir, "netns", inspect(cli, "vpn")["Id"])
    port = published(cli)
    cli("stop -t 0 vpn").ok()
    assert pinned.exists()
    cli("stop -t 0 web").ok()
    assert not pinned.exists()
    assert answers(cli, port) == ["nobody", "nobody"]
    assert inspect(cli, "vpn")["NetworkSettings"]["Networks"]["app"]["IPAddress"] == ""
    for words in ("start web", "run --rm --network container:web alpine true"):
        stopped = "web" if "container:web" in words else "vpn"
        refused = cli(words)
        assert refused.code in (1, 125)
        sentence = "cannot join network namespace of a non running container: container {} is exited"
        assert sentence.format(stopped) in refused.err
    cli("start vpn web").ok()
    assert answers(cli, published(cli)) == ["hello", "hello"]


def test_a_forced_removal_takes_the_network_away(shared: CommandLine) -> None:
    cli = shared
    cli("rm -f vpn").ok()
    assert cli("exec web ip -o link").ok().count("\n") == 0, "loopback only, as in Docker"
    cli("rm -f asker").ok()
    cli("network rm app").ok()
    cli("stop -t 0 web").ok()
    refused = cli("start web")
    assert "joining network namespace of container: No such container: " in refused.err


def test_the_owner_is_removed_while_another_container_enters(cli: CommandLine) -> None:
    """It is in time, and goes on alone; or it is refused in words about the owner, not what the runtime missed."""
    for _ in range(5):
        cli("run -d --name owner alpine sleep 1000").ok()
        with ThreadPoolExecutor() as pool:
            starting = pool.submit(cli, "run -d --name guest --network container:owner alpine sleep 1000")
            cli("rm -f owner").ok()
            started = starting.result()
        if started.code:
            assert re.search("(join network namespace|joining network namespace) of ", started.err) or (
                "No such container: owner" in started.err
            ), started.err
        cli("rm -f guest")


def test_refusals_of_container_mode(cli: CommandLine) -> None:
    cli("network create app").ok()
    cli("run -d --name vpn --network app alpine sleep 3600").ok()
    cli("run -d --name web --network container:vpn alpine sleep 3600").ok()
    for words, sentence in (
        ("-h other", "conflicting options: hostname and the network mode"),
        ("--dns 192.0.2.1", "conflicting options: dns and the network mode"),
        ("--dns-search example.com", "conflicting options: dns and the network mode"),
        ("--add-host a:192.0.2.1", "conflicting options: custom host-to-IP mapping and the network mode"),
        ("--mac-address 02:42:ac:11:00:02", "conflicting options: mac-address and the network mode"),
        ("-p 80", "conflicting options: port publishing and the container type network mode"),
        ("-P", "conflicting options: port publishing and the container type network mode"),
        ("--expose 80", "conflicting options: port exposing and the container type network mode"),
        (
            "--link vpn",
            "conflicting options: container type network can't be used with links. "
            "This would result in undefined behavior",
        ),
    ):
        refused = cli(f"run --rm --network container:vpn {words} alpine true")
        cli.refuses(refused, 125, DAEMON + sentence, help_for="run")
    refused = cli("run --rm --network container:nosuch alpine true")
    sentence = "joining network namespace of container: No such container: nosuch"
    assert DAEMON + sentence in refused.err
    assert refused.code == 125
    cli("create --name self --network container:self alpine true").ok()
    cli.refuses(cli("start self"), 1, DAEMON + "cannot join own network namespace", out="")
    shared = (
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )
    cli.refuses(cli("network connect bridge web"), 1, DAEMON + shared)
    identity = inspect(cli, "web")["Id"]
    cli.refuses(cli("network disconnect app web"), 1, DAEMON + f"container {identity} is not connected to network app")


def test_shared_sandboxes_are_known_again(
    new_engine: Callable[[], EngineProcess], images: Callable[[str], Path], client_of: ClientOf
) -> None:
    """The engine is killed while the owner is stopped: what its joiner lives in stays, and is given back in the end."""
    engine = new_engine()
    engine.load(images("alpine"))
    cli = client_of("tsunagu", engine)
    cli("network create app").ok()
    cli("run -d --name vpn --network app -p 127.0.0.1::80 alpine sleep 3600").ok()
    cli("run -d --name web --network container:vpn alpine sh -c", SERVE).ok()
    cli("run -d --name asker --network app alpine sleep 3600").ok()
    port = published(cli)
    cli("stop -t 0 vpn").ok()
    before = inspect(cli, "vpn")["NetworkSettings"]
    for _ in range(2):
        engine.kill()
        engine.start()
        assert answers(cli, port) == ["hello", "hello"]
    cli("start vpn").ok()
    assert inspect(cli, "vpn")["NetworkSettings"] == before
    # both processes end while no engine looks: nobody lives there any more when it comes back
    pids = [int(inspect(cli, name)["State"]["Pid"]) for name in ("vpn", "web")]
    engine.kill()
    for pid in pids:
        os.kill(pid, 9)
        while Path(f"/proc/{pid}").exists():
            pass
    engine.start()
    cli("wait vpn web").ok()
    assert inspect(cli, "vpn")["NetworkSettings"]["Networks"]["app"]["IPAddress"] == ""
    assert answers(cli, port) == ["nobody", "nobody"]
    assert len(os.listdir(Path(engine.instance.run_dir, "netns"))) == 1


def test_host_and_none(cli: CommandLine) -> None:
    plain = cli("run -d --name plain alpine sleep 3600")
    assert plain.code == 0
    result = cli("run -d --name onhost --network host -p 80:80 alpine sleep 3600")
    result.ok()
    assert "WARNING: Published ports are discarded when using host network mode" in result.err
    cli("run -d --name onnone --network none alpine sleep 3600").ok()
    for name, mode in (("onhost", "host"), ("onnone", "none")):
        shown = inspect(cli, name)["NetworkSettings"]
        network = json.loads(cli(f"network inspect {mode}").ok())[0]
        mine = network["Containers"][inspect(cli, name)["Id"]]
        endpoint = shown["Networks"][mode]
        assert endpoint["NetworkID"] == network["Id"]
        assert mine == {
            "Name": name, "EndpointID": endpoint["EndpointID"], "MacAddress": "", "IPv4Address": "", "IPv6Address": "",
        }  # fmt: skip
        assert shown["Ports"] == {}
        cli.refuses(cli(f"network rm {mode}"), 1, DAEMON + f"{mode} is a pre-defined network and cannot be removed")
    assert cli("exec onhost cat /etc/hosts").ok() == Path("/etc/hosts").read_text().rstrip("\n")
    assert cli("exec onhost cat /etc/resolv.conf").ok() == Path("/etc/resolv.conf").read_text().rstrip("\n")
    assert cli("exec onhost hostname").ok() == os.uname().nodename
    one_only = "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    host_only = "cannot connect container to host network - container must be created in host network mode"
    shared = (
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )
    cli("network create app").ok()
    for words, sentence in (
        ("connect app onhost", shared),
        ("connect app onnone", one_only),
        ("connect none plain", one_only),
        ("connect host plain", host_only),
        ("connect host onnone", host_only),
        (
            "disconnect host onhost",
            "cannot disconnect container from host network - container was created in host network mode",
        ),
    ):
        cli.refuses(cli(f"network {words}"), 1, DAEMON + sentence)
    # a sandbox can be shared whatever it is made of
    assert cli("run --rm --network container:onnone alpine ip -o link").ok().count("\n") == 0
    assert cli("run --rm --network container:onhost alpine hostname").ok() == os.uname().nodename
