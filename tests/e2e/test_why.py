"""`tsunagu why` in a table: set-ups broken for real, each diagnosed; the remedy is pasted, and then it works."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

SLEEP = "alpine sleep 3600"


def serve(name: str, options: str, listen: str = "-l 80") -> str:
    """A container that listens, once it has been waited for (`run`)."""
    return f"run -d --name {name} {options} bench nc -k {listen}"


class Case(NamedTuple):
    """`made` are commands; `asked` are the arguments of why; `fix` replaces a remedy that is not a repair by itself
    ("" when the remedy is pasted as it is); `then` is asked after that instead of `asked`, and the remedy is a question
    unless it `repairs`."""

    name: str
    made: tuple[str, ...]
    asked: str
    reason: str
    remedy: str
    fix: tuple[str, ...] = ()
    then: str = ""
    repairs: bool = False


NET = "network create app"
CASES = (
    # the four rows of the tutorial's table
    Case(
        "default bridge", (f"run -d --name c1 {SLEEP}", serve("c2", "")), "c1 c2:80", "default-bridge",
        "tsunagu network create c1-c2 && tsunagu network connect c1-c2 c1 && tsunagu network connect c1-c2 c2",
    ),
    Case(
        "different networks",
        (NET, "network create back", f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network back")),
        "c1 c2:80", "no-shared-network", "tsunagu network connect back c1",
    ),
    Case(
        "service not up", (NET, f"run -d --name c1 --network app {SLEEP}", f"run -d --name c2 --network app {SLEEP}"),
        "c1 c2:80", "not-listening", "tsunagu logs c2", fix=("exec -d c2 nc -ll -p 80 -e true",),
    ),
    Case(
        "internal", ("network create --internal app", f"run -d --name c1 --network app {SLEEP}"),
        "c1 outside", "internal-egress", "tsunagu network connect bridge c1",
    ),
    # names
    Case(
        "alias on another network only",
        (
            NET, "network create back", f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app"),
            "network connect --alias store back c2",
        ),
        "c1 store:80", "name-in-other-network", "tsunagu network connect back c1",
    ),
    Case(
        "one on the default bridge, one not", (NET, f"run -d --name c1 {SLEEP}", serve("c2", "--network app")),
        "c1 c2:80", "no-shared-network", "tsunagu network connect app c1",
    ),
    Case(
        "several containers share the name",
        (
            NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app --network-alias api"),
            f"run -d --name c3 --network app --network-alias api {SLEEP}",
        ),
        "c1 api:80", "shared-name", "tsunagu network disconnect app c3",
    ),
    Case(
        "two projects on one network",
        (
            NET, f"run -d --name c1 --network app {SLEEP}",
            serve("p1-db-1", "--network app --network-alias db -l com.docker.compose.project=p1"),
            f"run -d --name p2-db-1 --network app --network-alias db -l com.docker.compose.project=p2 {SLEEP}",
        ),
        "c1 db:80", "shared-name", "tsunagu network disconnect app p2-db-1",
    ),
    Case(
        "a typing error", (NET, f"run -d --name c1 --network app {SLEEP}", serve("database", "--network app")),
        "c1 databse:80", "name-unknown", "tsunagu why c1 database", then="c1 database:80",
    ),
    Case(
        "a link to a stopped container",
        (
            NET, serve("c2", "--network app"), f"run -d --name c1 --network app --link c2:db {SLEEP}", "stop -t 0 c2",
        ),
        "c1 db:80", "link-target-away", "tsunagu start c2",
    ),
    Case(
        "name of a container in another one's sandbox",
        (
            NET, f"run -d --name c1 --network app {SLEEP}", f"run -d --name vpn --network app {SLEEP}",
            serve("c2", "--network container:vpn"),
        ),
        "c1 c2:80", "no-own-name", "tsunagu why c1 vpn:80", then="c1 vpn:80",
    ),
    # states
    Case(
        "stopped with the sandbox that it joined",
        (
            NET, f"run -d --name c1 --network app {SLEEP}", f"run -d --name vpn --network app {SLEEP}",
            serve("c2", "--network container:vpn"), "stop -t 0 c2 vpn",
        ),
        "c2 c1", "not-running", "tsunagu start vpn c2",
    ),
    Case(
        "stopped target",
        (NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app"), "stop -t 0 c2"),
        "c1 c2:80", "not-running", "tsunagu start c2",
    ),
    Case(
        "never started target",
        (NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app").replace("run -d", "create")),
        "c1 c2:80", "not-running", "tsunagu start c2",
    ),
    Case(
        "stopped source", (NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app"), "kill c1"),
        "c1 c2:80", "not-running", "tsunagu start c1",
    ),
    Case(
        "alias of a stopped container",
        (
            NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app --network-alias db"),
            "stop -t 0 c2",
        ),
        "c1 db:80", "not-running", "tsunagu start c2",
    ),
    Case(
        "paused target",
        (NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app"), "pause c2"),
        "c1 c2:80", "paused", "tsunagu unpause c2",
    ),
    Case(
        "paused source",
        (NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app"), "pause c1"),
        "c1 c2:80", "paused", "tsunagu unpause c1",
    ),
    Case(
        "paused behind a published port", (NET, serve("c2", "--network app -p 38088:80"), "pause c2"),
        "outside host:38088", "paused", "tsunagu unpause c2",
    ),
    Case(
        "no network at all", (NET, f"run -d --name c1 --network none {SLEEP}", serve("c2", "--network app")),
        "c1 c2:80", "network-none", "tsunagu rm -f c1 && tsunagu run -d --name c1 --network app alpine sleep 3600",
    ),
    Case(
        "disconnected from everything",
        (NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app"), "network disconnect app c2"),
        "c1 c2:80", "no-network", "tsunagu network connect app c2",
    ),
    # listening sockets
    Case(
        "listens on 127.0.0.1 only",
        (NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app", "-l 127.0.0.1 80")),
        "c1 c2:80", "loopback-only", "tsunagu logs c2", fix=("rm -f c2", serve("c2", "--network app")),
    ),
    Case(
        "another port", (NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app", "-l 8080")),
        "c1 c2:80", "other-port", "tsunagu why c1 c2:8080", then="c1 c2:8080",
    ),
    Case(
        "TCP asked, UDP there",
        (NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app", "-u -l 53")),
        "c1 c2:53", "other-protocol", "tsunagu why c1 c2:53/udp", then="c1 c2:53/udp",
    ),
    Case(
        "UDP asked, TCP there", (NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app", "-l 53")),
        "c1 c2:53/udp", "other-protocol", "tsunagu why c1 c2:53", then="c1 c2:53",
    ),
    Case(
        "listens on another address",
        (
            NET, "network create --subnet 10.63.7.0/24 back", f"run -d --name c1 --network app {SLEEP}",
            "run -d --name c2 --network app bench", "network connect --ip 10.63.7.9 back c2",
            "exec -d c2 nc -k -l 10.63.7.9 80",
        ),
        "c1 c2:80", "other-address", "tsunagu logs c2", fix=("network connect back c1",), then="c1 10.63.7.9:80",
    ),
    Case(
        "listens on IPv4 only",
        (
            "network create --ipv6 --subnet 10.63.7.0/24 --subnet fd63:7::/64 app",
            f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app --ip6 fd63:7::9", "-4 -l 80"),
        ),
        "c1 [fd63:7::9]:80", "other-address", "tsunagu why c1 c2:80", then="c1 c2:80",
    ),
    # what no rule knows
    Case(
        "the name server is cut off",
        (
            NET, "run -d --name c1 --network app --cap-add NET_ADMIN bench", serve("c2", "--network app"),
            "exec c1 ip link set lo down",
        ),
        "c1 c2:80", "dns-silent", "tsunagu restart c1",
    ),
    # rules
    Case(
        "icc off",
        (
            "network create -o com.docker.network.bridge.enable_icc=false app",
            f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app"),
        ),
        "c1 c2:80", "icc-off",
        "tsunagu network create c1-c2 && tsunagu network connect c1-c2 c1 && tsunagu network connect c1-c2 c2"
        " && tsunagu network disconnect app c1",
    ),
    Case(
        "address of a container elsewhere",
        (
            NET, "network create --subnet 10.63.7.0/24 back", f"run -d --name c1 --network app {SLEEP}",
            serve("c2", "--network back --ip 10.63.7.9"),
        ),
        "c1 10.63.7.9:80", "no-shared-network", "tsunagu network connect back c1",
    ),
    Case(
        "into an internal network by address",
        (
            NET, "network create --internal --subnet 10.63.7.0/24 back", f"run -d --name c1 --network app {SLEEP}",
            serve("c2", "--network back --ip 10.63.7.9"),
        ),
        "c1 10.63.7.9:80", "internal-ingress", "tsunagu network connect back c1",
    ),
    Case(
        "from an internal network to another one",
        (
            "network create --internal app", "network create back", f"run -d --name c1 --network app {SLEEP}",
            serve("c2", "--network back"),
        ),
        "c1 c2:80", "no-shared-network", "tsunagu network connect back c1",
    ),
    Case(
        "no masquerading",
        (
            "network create -o com.docker.network.bridge.enable_ip_masquerade=false zzz",
            f"run -d --name c1 --network zzz {SLEEP}",
        ),
        "c1 outside", "no-way-back", "tsunagu network connect bridge c1",
    ),
    Case(
        "an address of long ago",
        ("network create --subnet 10.63.7.0/24 app", f"run -d --name c1 --network app {SLEEP}", serve("c2",
        "--network app")),
        "c1 10.63.7.77:80", "address-unused", "tsunagu network inspect app", then="c1 c2:80",
    ),
    Case(
        "no IPv6 here",
        (
            NET, "network create --ipv6 --subnet fd63:7::/64 back", f"run -d --name c1 --network app {SLEEP}",
            serve("c2", "--network back --ip6 fd63:7::9", "-6 -l 80"),
        ),
        "c1 [fd63:7::9]:80", "family-mismatch", "tsunagu network connect back c1",
    ),
    Case(
        "packet sizes differ",
        (
            NET, f"run -d --name c1 --network app {SLEEP}",
            serve("c2", "--network app --cap-add NET_ADMIN", "-u -l 53"), "exec c2 ip link set eth0 mtu 1280",
        ),
        "c1 c2:53/udp", "mtu-mismatch", "tsunagu network disconnect app c2 && tsunagu network connect app c2",
    ),
    # published ports
    Case(
        "a container addressed from outside, its port published", (NET, serve("c2", "--network app -p 38088:80")),
        "outside c2:80", "direct-routing", "tsunagu why outside host:38088", then="outside host:38088",
    ),
    Case(
        "a container addressed from outside, its port not published",
        (NET, serve("c2", "--network app", "-l 38088")), "outside c2:38088", "direct-routing",
        "tsunagu rm -f c2 && tsunagu run -d --name c2 --network app -p 38088:38088 bench nc -k -l 38088",
        then="outside host:38088", repairs=True,
    ),
    Case(
        "published on loopback, asked from outside", (NET, serve("c2", "--network app -p 127.0.0.1:38088:80")),
        "outside host:38088", "published-on-loopback",
        "tsunagu rm -f c2 && tsunagu run -d --name c2 --network app -p 38088:80 bench nc -k -l 80",
    ),
    Case(
        "published on loopback, asked from another network",
        (
            NET, "network create back", f"run -d --name c1 --network app {SLEEP}",
            serve("c2", "--network back -p 127.0.0.1:38088:80"),
        ),
        "c1 host:38088", "published-on-loopback",
        "tsunagu rm -f c2 && tsunagu run -d --name c2 --network back -p 38088:80 bench nc -k -l 80",
    ),
    Case(
        "published on loopback, asked on the same network",
        (NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app -p 127.0.0.1:38088:80")),
        "c1 host:38088", "published-on-loopback", "tsunagu why c1 c2:80", then="c1 c2:80",
    ),
    Case(
        "published, and nothing listens", (NET, f"run -d --name c2 --network app -p 38088:80 {SLEEP}"),
        "outside host:38088", "not-listening", "tsunagu logs c2", fix=("exec -d c2 nc -ll -p 80 -e true",),
    ),
    Case(
        "published, and it listens on 127.0.0.1 only",
        (
            NET, f"run -d --name c1 --network app {SLEEP}",
            serve("c2", "--network app -p 38088:80", "-l 127.0.0.1 80"),
        ),
        "c1 host:38088", "loopback-only", "tsunagu logs c2",
        fix=("rm -f c2", serve("c2", "--network app -p 38088:80")),
    ),
    Case(
        "published, and it listens on another port", (NET, serve("c2", "--network app -p 38088:80", "-l 8080")),
        "outside host:38088", "other-port",
        "tsunagu rm -f c2 && tsunagu run -d --name c2 --network app -p 38088:8080 bench nc -k -l 8080",
    ),
    Case(
        "an interface that is down",
        (
            NET, f"run -d --name c1 --network app {SLEEP}", serve("c2", "--network app --cap-add NET_ADMIN"),
            "exec c2 ip link set eth0 down",
        ),
        "c1 c2:80", "unanswered", "tsunagu doctor", fix=("exec c2 ip link set eth0 up",),
    ),
)  # fmt: skip


@pytest.fixture
def cli(engine: EngineProcess, tsunagu: CommandLine) -> Iterator[CommandLine]:
    yield tsunagu
    refused = engine.remove_everything()
    assert not refused, refused


def run(cli: CommandLine, *commands: str) -> None:
    """Run commands; what is to listen listens when this returns."""
    for command in commands:
        cli(command).ok()
        if command.startswith("run ") and " bench nc " in command:
            listens(cli, name_of(command))
        elif command.startswith("exec -d "):
            listens(cli, command.split()[2])


def name_of(command: str) -> str:
    words = command.split()
    return words[words.index("--name") + 1]


def listens(cli: CommandLine, container: str) -> None:
    """Wait until a process in the container listens, the name server's sockets aside."""
    pid = cli("inspect -f {{.State.Pid}}", container).ok()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        shown = subprocess.run(
            ["nsenter", "-t", pid, "-n", "ss", "-Hlntu"], capture_output=True, text=True, check=True
        ).stdout
        if any("127.0.0.11:" not in line for line in shown.splitlines()):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing in {container} began to listen")


def ask(cli: CommandLine, words: str) -> tuple[int, dict[str, Any]]:
    result = cli(f"why --json {words}")
    assert result.code in (0, 1, 2), result
    return result.code, json.loads(result.out)


def paste(cli: CommandLine, line: str) -> None:
    """Run a remedy as a user pastes it."""
    function = f'tsunagu() {{ {shlex.quote(cli.program)} "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", function + line], env=cli.environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_broken_set_up(cli: CommandLine, case: Case) -> None:
    run(cli, *case.made)
    code, found = ask(cli, case.asked)
    assert (found["Reason"], found["Reachable"]) == (case.reason, False), found
    assert found["Remedy"] == case.remedy, found
    assert code == (2 if case.reason == "name-unknown" else 1)
    assert found["Documentation"] == f"docs/reasons.md#{case.reason}"
    assert [step["Ok"] for step in found["Steps"]] == [True] * (len(found["Steps"]) - 1) + [False]
    if (not case.fix and not case.then) or case.repairs:
        paste(cli, case.remedy)
    run(cli, *case.fix)
    for made in case.made:
        if " bench nc " in made:
            listens(cli, name_of(made))
    paste(cli, "tsunagu why --quiet " + shlex.join((case.then or case.asked).split()) + " || "
          "tsunagu why " + shlex.join((case.then or case.asked).split()))  # fmt: skip


def test_restarting_target(cli: CommandLine, tmp_path: Path) -> None:
    """It ends as soon as it is started, until what it lacks is there; meanwhile it is told apart from a stopped one."""
    run(
        cli, NET, f"run -d --name c1 --network app {SLEEP}",
        f"run -d --name c2 --network app --restart always -v {tmp_path}:/data bench "
        "sh -c 'test -e /data/ready || { echo no /data/ready >&2; exit 3; }; exec nc -k -l 80'",
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while (found := ask(cli, "c1 c2:80")[1])["Reason"] != "restarting" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found["Reason"] == "restarting", found
    assert found["Sentence"].startswith("c2 has ended with exit code 3 and waits for its restart policy")
    assert found["Remedy"] == "tsunagu logs c2"
    assert "no /data/ready" in cli("logs c2").err
    (tmp_path / "ready").touch()
    deadline = time.monotonic() + 60
    while (answer := ask(cli, "c1 c2:80"))[0] != 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert answer[0] == 0, answer


def test_names_of_two_compose_projects(cli: CommandLine) -> None:
    """Both projects are named: where one does not answer in the sentence, where both do in a warning."""
    label = "-l com.docker.compose.project="
    run(
        cli, NET, f"run -d --name c1 --network app {SLEEP}",
        serve("shop-db-1", f"--network app --network-alias db {label}shop"),
        f"run -d --name blog-db-1 --network app --network-alias db {label}blog {SLEEP}",
    )  # fmt: skip
    code, found = ask(cli, "c1 db:80")
    assert (code, found["Reason"]) == (1, "shared-name"), found
    said = "they belong to different Compose projects (blog, shop)"
    assert found["Sentence"].endswith(said), found
    run(cli, "exec -d blog-db-1 nc -ll -p 80 -e true")
    code, found = ask(cli, "c1 db:80")
    assert code == 0, found
    assert any(warning.endswith(said) for warning in found["Warnings"]), found
    paste(cli, "tsunagu network disconnect app blog-db-1")
    assert ask(cli, "c1 db:80")[1]["Warnings"] == []


@contextmanager
def name_server(address: str, known: dict[str, str]) -> Iterator[list[str]]:
    """Somebody's name server on the host; yields the names that it was asked for."""
    asked: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 53))

        def serve_names() -> None:
            while True:
                data, sender = sock.recvfrom(4096)
                if not data:
                    return
                query = dns.message.from_wire(data)
                question = query.question[0]
                name = question.name.to_text().rstrip(".")
                asked.append(name)
                reply = dns.message.make_response(query)
                if name not in known:
                    reply.set_rcode(dns.rcode.NXDOMAIN)
                elif question.rdtype == dns.rdatatype.A:
                    reply.answer.append(dns.rrset.from_text(question.name, 9, "IN", "A", known[name]))
                sock.sendto(reply.to_wire(), sender)

        thread = threading.Thread(target=serve_names)
        thread.start()
        try:
            yield asked
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"", (address, 53))
            thread.join()


def test_search_domain_catches_a_name(cli: CommandLine) -> None:
    """While the container is away its name is answered by a machine of the company; the remedy brings it home."""
    run(cli, "network create --subnet 10.63.8.0/24 app", "network create back")
    with name_server("10.63.8.1", {"db.corp.example": "192.0.2.53"}) as asked:
        run(
            cli, f"run -d --name c1 --network app --dns 10.63.8.1 --dns-search corp.example {SLEEP}",
            serve("db", "--network app"), "stop -t 0 db",
        )  # fmt: skip
        code, found = ask(cli, "c1 db:80")
        assert (code, found["Reason"], found["Remedy"]) == (1, "search-domain", "tsunagu start db"), found
        said = "c1 finds db elsewhere and not here: its name server answers 192.0.2.53 for db.corp.example"
        assert found["Sentence"] == said
        assert found["Documentation"] == "docs/reasons.md#search-domain"
        assert asked == ["db", "db", "db.corp.example"]  # as a C library asks, IPv4 and IPv6
        paste(cli, found["Remedy"])
        listens(cli, "db")
        assert ask(cli, "c1 db:80")[0] == 0
        run(cli, "rm -f db", serve("c2", "--network back --network-alias db"))
        code, found = ask(cli, "c1 db:80")
        remedy = "tsunagu network connect back c1"
        assert (code, found["Reason"], found["Remedy"]) == (1, "search-domain", remedy), found
        paste(cli, remedy)
        assert ask(cli, "c1 db:80")[0] == 0
        assert ask(cli, "c1 databank")[1]["Reason"] == "name-unknown"  # nobody anywhere


def test_what_works_says_so(cli: CommandLine) -> None:
    run(
        cli,
        "network create --ipv6 app",
        f"run -d --name c1 --network app {SLEEP}",
        serve("c2", "--network app --network-alias db", "-6 -l 80"),
    )
    for words in (
        "c1 c2:80",
        "c1 db:80",
        "c1 c2.app:80",
        "c1 c2",
        "c1 http://c2/",
        "host c2:80",
        "c1 host",
        "c1 outside",
        "c2 c2:80",
    ):
        code, found = ask(cli, words)
        assert (code, found["Reachable"]) == (0, True), (words, found)
    address = cli("inspect -f", "{{.NetworkSettings.Networks.app.GlobalIPv6Address}}", "c2").ok()
    code, found = ask(cli, f"c1 [{address}]:80")
    assert (code, found["Reason"]) == (0, "same-network"), found


def test_what_shares_a_sandbox(cli: CommandLine) -> None:
    """Localhost between sharers; from outside they are one; its owner may be stopped; a sandbox may be the host's."""
    run(
        cli,
        NET,
        f"run -d --name c1 --network app {SLEEP}",
        f"run -d --name vpn --network app {SLEEP}",
        serve("c2", "--network container:vpn"),
        f"run -d --name alone --network none {SLEEP}",
        serve("inside", "--network container:alone"),
        f"run -d --name onhost --network host {SLEEP}",
    )
    for words, reason in (
        ("c2 vpn:80", "same-sandbox"),
        ("vpn c2:80", "same-sandbox"),
        ("c2 127.0.0.1:80", "same-sandbox"),
        ("c1 vpn:80", "same-network"),
        ("c2 c1", "same-network"),
        ("alone inside:80", "same-sandbox"),
        ("onhost vpn:80", "host-reaches"),
        ("host c2:80", "host-reaches"),
    ):
        code, found = ask(cli, words)
        assert (code, found["Reason"]) == (0, reason), (words, found)
    assert any("c2 shares the sandbox of vpn" in step["Text"] for step in ask(cli, "c2 c1")[1]["Steps"])
    cli("stop -t 0 vpn").ok()
    for words in ("c1 vpn:80", "host vpn:80", "c2 c1"):
        code, found = ask(cli, words)
        assert code == 0, (words, found)
    assert "vpn is exited; in its sandbox there still is c2" in str(ask(cli, "host vpn:80")[1]["Steps"])
    assert ask(cli, "vpn c1")[1]["Reason"] == "not-running"


def test_unknown_source(cli: CommandLine) -> None:
    result = cli("why nosuch web:80")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Error response from daemon: No such container: nosuch\n")


def test_the_deciding_rule_tells_what_it_has_counted(cli: CommandLine) -> None:
    """What was really sent is in the answer: the rule's counter in the kernel, not a guess."""
    run(
        cli, NET, "network create --subnet 10.63.7.0/24 back", f"run -d --name c1 --network app {SLEEP}",
        serve("c2", "--network back --ip 10.63.7.9"),
    )  # fmt: skip
    _, before = ask(cli, "c1 10.63.7.9:80")
    assert before["Counter"] == {"Rule": "no-shared-network", "Verdict": "drop", "Packets": 0, "Bytes": 0}
    assert cli("exec c1 nc -w 1 10.63.7.9 80").code != 0
    _, after = ask(cli, "c1 10.63.7.9:80")
    assert after["Counter"]["Packets"] > 0
    assert "(the rule no-shared-network has dropped " in cli("why c1 10.63.7.9:80").out
