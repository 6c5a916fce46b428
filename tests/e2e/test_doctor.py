"""`tsunagu doctor` in a table: a host broken for real, each damage named, repaired with --fix where that is promised.

Everything happens on a private host: damage to the real one would be felt by others.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess, tsunagu_program
from tsunagu.testing.namespaces import on_private_host

pytestmark = pytest.mark.root

PORT = 18080


class Damage(NamedTuple):
    """What is done to a healthy host, as shell lines, and what doctor says. Words in braces: bridge, port (the host
    side of web's interface), netns (web's), table."""

    name: str
    done: str
    topic: str
    said: str
    is_repaired: bool = True
    undone: str = ""


DAMAGES = (
    Damage("forwarding off", "echo 0 > /proc/sys/net/ipv4/ip_forward", "forwarding", "does not forward IPv4"),
    Damage("forwarding off, IPv6", "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding", "forwarding", "forward IPv6"),
    Damage("a bridge is gone", "ip link delete {bridge}", "bridges", "bridge {bridge} of network app is missing"),
    Damage("a bridge is down", "ip link set {bridge} down", "bridges", "bridge {bridge} of network app is down"),
    Damage(
        "a gateway's address is gone", "ip address flush dev {bridge} scope global", "bridges",
        "bridge {bridge} of network app has lost its address",
    ),
    Damage("a bridge's MTU", "ip link set {bridge} mtu 1400", "bridges", "has an MTU of 1400 instead of 1500"),
    Damage("taken off its bridge", "ip link set {port} nomaster", "interfaces", "is on no bridge instead of {bridge}"),
    Damage("an interface is down", "ip link set {port} down", "interfaces", "interface {port} (eth0 of web) is down"),
    Damage("another group", "ip link set {port} group 0", "interfaces", "has another link group"),
    Damage(
        "loopback answers", "echo 0 > /proc/sys/net/ipv4/conf/{bridge}/route_localnet", "sysctls",
        "route_localnet is off",
    ),
    Damage("IPv6 off", "echo 1 > /proc/sys/net/ipv6/conf/{bridge}/disable_ipv6", "sysctls", "IPv6 is off although"),
    Damage(
        "names are cut off", "nsenter --net={netns} nft delete table ip tsunagu", "names",
        "the name server inside web does not answer",
    ),
    Damage(
        "a leftover link", "ip link add left type bridge; ip link set left alias {table}", "leftovers",
        "interface left belongs to nobody",
    ),
    Damage(
        "a leftover namespace", "touch {run}/netns/{nobody}", "leftovers",
        "network namespace {run}/netns/{nobody} belongs to nobody",
    ),
    # what only a person can put right
    Damage(
        "an interface is gone", "ip link delete {port}", "interfaces", "interface {port} (eth0 of web) is gone",
        is_repaired=False, undone="restart -t 0 web",
    ),
    Damage(
        "an address inside is gone", "nsenter --net={netns} ip address flush dev eth0 scope global", "sandboxes",
        "interface eth0 inside web has lost its address", is_repaired=False, undone="restart -t 0 web",
    ),
)  # fmt: skip


class Patient:
    """An engine on the calling thread's host, with a container `web` on network `app` that publishes a port."""

    def __init__(self, engine: EngineProcess, home: Path) -> None:
        self.engine = engine
        self.run = CommandLine("tsunagu", tsunagu_program(), engine.host, home)
        self.run("network create --ipv6 app").ok()
        self.run(f"run -d --name web --network app -p {PORT}:80 tiny sleep 3600").ok()

    def words(self) -> dict[str, str]:
        run_dir = self.engine.instance.run_dir
        (network,) = json.loads(self.run("network inspect app").ok())
        bridge = self.engine.instance.bridge_name(network["Id"])
        shown = subprocess.run(["ip", "-j", "link", "show", "master", bridge], capture_output=True, check=True).stdout
        return {
            "bridge": bridge,
            "port": json.loads(shown)[0]["ifname"],
            "netns": f"{run_dir}/netns/{self.run('inspect -f {{.Id}} web').ok()}",
            "table": self.engine.instance.nft_table,
            "run": run_dir,
            "nobody": "0" * 64,
        }

    def ask(self, *flags: str) -> tuple[int, dict[str, Any]]:
        result = self.run("doctor --json", *flags)
        return result.code, json.loads(result.out)

    def is_healthy(self) -> None:
        code, answer = self.ask()
        assert (code, answer["Healthy"]) == (0, True), answer
        assert self.run("why host web").code == 0


@contextmanager
def patient(home: Path) -> Iterator[Patient]:
    engine = EngineProcess()
    engine.start()
    try:
        yield Patient(engine, home)
    finally:
        left = engine.close()
    assert left == []


def private(body: Callable[[], None]) -> None:
    """Run `body` on a private host."""

    @on_private_host
    async def run() -> None:
        body()

    run()


def wrong_ones(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in answer["Findings"] if one["Level"] == "wrong"]


def test_every_damage_is_named_and_repaired(tmp_path: Path) -> None:
    def body() -> None:
        with patient(tmp_path) as it:
            it.is_healthy()
            for damage in DAMAGES:
                words = it.words()
                subprocess.run(["sh", "-c", damage.done.format(**words)], check=True)
                code, answer = it.ask()
                said = [one for one in wrong_ones(answer) if one["Topic"] == damage.topic]
                assert code == 1 and not answer["Healthy"], damage.name
                assert any(damage.said.format(**words) in one["Text"] for one in said), (damage.name, answer)
                assert all(one["Remedy"] for one in wrong_ones(answer)), answer
                code, answer = it.ask("--fix")
                if damage.is_repaired:
                    assert code == 0, (damage.name, answer)
                    done = [one for one in answer["Repairs"] if damage.said.format(**words) in one["Text"]]
                    assert done and all(not one["Error"] for one in answer["Repairs"]), (damage.name, answer)
                else:
                    assert code == 1, damage.name
                    it.run(damage.undone).ok()
                it.is_healthy()

    private(body)


def test_words_for_people(tmp_path: Path) -> None:
    def body() -> None:
        with patient(tmp_path) as it:
            fine = it.run("doctor")
            assert (fine.code, fine.err) == (0, "")
            assert "✓ forwarding" in fine.out and fine.out.endswith("\nNothing is wrong.\n")
            assert "✗" not in fine.out
            Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
            wrong = it.run("doctor")
            assert wrong.code == 1
            assert "✗ forwarding       the host does not forward IPv4" in wrong.out
            assert "try: sysctl -w net.ipv4.ip_forward=1\n" in wrong.out
            assert wrong.out.endswith("\n1 wrong; 1 of them can be repaired: tsunagu doctor --fix\n")
            fixed = it.run("doctor --fix")
            assert fixed.code == 0
            assert fixed.out.startswith("repaired: the host does not forward IPv4")
            assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"

    private(body)


def test_other_firewalls_that_drop_are_named_with_a_remedy_that_works(tmp_path: Path) -> None:
    def body() -> None:
        with patient(tmp_path) as it:
            subprocess.run(
                ["nft", "add table ip theirs; add chain ip theirs FORWARD "
                 "{ type filter hook forward priority 0; policy drop; }"], check=True,
            )  # fmt: skip
            code, answer = it.ask()
            (found,) = [one for one in answer["Findings"] if one["Topic"] == "other firewalls"]
            assert (code, found["Level"]) == (0, "warning")
            assert found["Text"].startswith("ip theirs FORWARD drops forwarded packets that it does not know")
            subprocess.run(["sh", "-c", found["Remedy"]], check=True)
            _, answer = it.ask()
            (found,) = [one for one in answer["Findings"] if one["Topic"] == "other firewalls"]
            assert found["Level"] == "ok", found

    private(body)


def test_a_port_lost_while_no_engine_ran_is_named_and_taken_back(tmp_path: Path) -> None:
    def body() -> None:
        with patient(tmp_path) as it:
            it.engine.kill()
            thief = subprocess.Popen(["busybox", "nc", "-l", "-p", str(PORT)], stdin=subprocess.DEVNULL)
            listens = f":{PORT:04X} "
            while (
                listens
                not in Path("/proc/thread-self/net/tcp").read_text() + Path("/proc/thread-self/net/tcp6").read_text()
            ):
                assert thief.poll() is None
            it.engine.start()
            code, answer = it.ask("--fix")
            assert code == 1
            said = [one["Text"] for one in wrong_ones(answer) if one["Topic"] == "ports"]
            assert said and all(f":{PORT}/tcp of web is not held" in text for text in said), answer
            thief.kill()
            thief.wait()
            assert it.ask("--fix")[0] == 0
            it.is_healthy()

    private(body)
