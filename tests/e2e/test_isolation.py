"""Who reaches whom, as a matrix: relation × kind of address × family × protocol, in every state of engine and rules.

Real containers on a private host with two machines next to it; real packets from inside every sandbox, all cells of a
state at once. The table of what is expected stands here in full and comes from no rule of ours: it is what Docker's
users rely on (needs.md 6.1.8). It is printed with what was found.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import NamedTuple, cast

import pytest
from packets import Exchange, Probe
from random_worlds import MACHINES, PORT, UPLINK, Built, machine

from tsunagu.kernel.network import NetworkKernel
from tsunagu.model.network import BridgePlan
from tsunagu.rules.flows import HOST, NEIGHBOUR, OUTSIDE
from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess, tsunagu_program
from tsunagu.testing.namespaces import on_private_host, private_instance

pytestmark = pytest.mark.root

PUBLISHED, ON_LOOPBACK, CLOSED = 8080, 8081, 8089  # ports of the host
PATIENCE = 5.0  # seconds for what must arrive
NO_RULES = "without rules"
COLUMNS = [(family, protocol) for family in (4, 6) for protocol in ("tcp", "udp", "icmp")]
NETWORKS = {
    "app": "",
    "other": "",
    "inner": "--internal",
    "apart": "-o com.docker.network.bridge.enable_icc=false",
    "sealed": "--internal -o com.docker.network.bridge.gateway_mode_ipv4=isolated"
    " -o com.docker.network.bridge.gateway_mode_ipv6=isolated",
}
CONTAINERS = {
    "web": f"--network app -p {PUBLISHED}:{PORT} -p {PUBLISHED}:{PORT}/udp -p 127.0.0.1:{ON_LOOPBACK}:{PORT}",
    "peer": "--network app",
    "far": "--network other",
    "in1": "--network inner",
    "in2": f"--network inner -p 8070:{PORT}",
    "ap1": "--network apart",
    "ap2": f"--network apart -p 8090:{PORT} -p 8090:{PORT}/udp",
    "sl1": "--network sealed",
    "sl2": "--network sealed",
    "hosted": "--network host",
    "alone": "--network none",
}


class Row(NamedTuple):
    """One relation and one kind of address. `expected` has a character per column: + arrives, - does not, · no such
    thing."""

    relation: str
    source: str
    address: str  # a container's name, NETWORK gateway, host, loopback, or a machine
    port: int
    expected: str


ALL, NONE, SOCKETS = "+++ +++", "--- ---", "++· ++·"
ROWS = (
    # the container's own address
    Row("same network", "peer", "web", PORT, ALL),
    Row("itself", "web", "web", PORT, ALL),
    Row("other network", "far", "web", PORT, NONE),
    Row("other network, back", "web", "far", PORT, NONE),
    Row("same internal network", "in1", "in2", PORT, ALL),
    Row("into an internal network", "peer", "in1", PORT, NONE),
    Row("out of an internal network", "in1", "peer", PORT, NONE),
    Row("same network, icc off", "ap1", "ap2", PORT, NONE),
    Row("into a network, icc off", "peer", "ap1", PORT, NONE),
    Row("out of a network, icc off", "ap1", "peer", PORT, NONE),
    Row("same isolated network", "sl1", "sl2", PORT, ALL),
    Row("into an isolated network", "peer", "sl1", PORT, NONE),
    Row("out of an isolated network", "sl1", "peer", PORT, NONE),
    Row("the host", HOST, "web", PORT, ALL),
    Row("the host, internal", HOST, "in1", PORT, ALL),
    Row("the host, icc off", HOST, "ap1", PORT, ALL),
    Row("the host, isolated", HOST, "sl1", PORT, NONE),
    Row("container in the host's network", "hosted", "web", PORT, ALL),
    Row("container in the host's network, internal", "hosted", "in1", PORT, ALL),
    Row("no network", "alone", "web", PORT, NONE),
    Row("a machine outside", OUTSIDE, "web", PORT, NONE),
    Row("a machine that routes to us", NEIGHBOUR, "web", PORT, NONE),
    Row("a machine that routes to us, internal", NEIGHBOUR, "in1", PORT, NONE),
    Row("a machine that routes to us, icc off", NEIGHBOUR, "ap1", PORT, NONE),
    # outside
    Row("outwards", "peer", OUTSIDE, PORT, ALL),
    Row("outwards, icc off", "ap1", OUTSIDE, PORT, ALL),
    Row("outwards, internal", "in1", OUTSIDE, PORT, NONE),
    Row("outwards, isolated", "sl1", OUTSIDE, PORT, NONE),
    Row("outwards, no network", "alone", OUTSIDE, PORT, NONE),
    Row("outwards, host's network", "hosted", OUTSIDE, PORT, ALL),
    # gateways: the host's own addresses on its networks
    Row("own gateway", "peer", "app gateway", PORT, ALL),
    Row("another network's gateway", "far", "app gateway", PORT, ALL),
    Row("own gateway, internal", "in1", "inner gateway", PORT, ALL),
    Row("another's gateway, internal", "in1", "app gateway", PORT, NONE),
    Row("own gateway, icc off", "ap1", "apart gateway", PORT, ALL),
    Row("another's gateway, isolated", "sl1", "app gateway", PORT, NONE),
    Row("gateway, no network", "alone", "app gateway", PORT, NONE),
    Row("gateway, a machine outside", OUTSIDE, "app gateway", PORT, NONE),
    # the host's address
    Row("host", "peer", HOST, PORT, ALL),
    Row("host, internal", "in1", HOST, PORT, NONE),
    Row("host, icc off", "ap1", HOST, PORT, ALL),
    Row("host, isolated", "sl1", HOST, PORT, NONE),
    Row("host, no network", "alone", HOST, PORT, NONE),
    Row("host, a machine outside", OUTSIDE, HOST, PORT, ALL),
    # a published port
    Row("published, same network", "peer", HOST, PUBLISHED, SOCKETS),
    Row("published, itself", "web", HOST, PUBLISHED, SOCKETS),
    Row("published, other network", "far", HOST, PUBLISHED, SOCKETS),
    Row("published, other network, its gateway", "far", "other gateway", PUBLISHED, SOCKETS),
    Row("published, internal", "in1", HOST, PUBLISHED, "--· --·"),
    Row("published, the host", HOST, HOST, PUBLISHED, SOCKETS),
    Row("published, the host's loopback", HOST, "loopback", PUBLISHED, "++· --·"),
    Row("published, host's network", "hosted", HOST, PUBLISHED, SOCKETS),
    Row("published, isolated", "sl1", HOST, PUBLISHED, "--· --·"),
    Row("published, no network", "alone", HOST, PUBLISHED, "--· --·"),
    Row("published, a machine outside", OUTSIDE, HOST, PUBLISHED, SOCKETS),
    Row("published, icc off, neighbour", "ap1", HOST, 8090, SOCKETS),
    Row("published, icc off, a machine outside", OUTSIDE, HOST, 8090, SOCKETS),
    Row("published, internal only", OUTSIDE, HOST, 8070, "--· --·"),
    Row("published, internal only, the host", HOST, HOST, 8070, "--· --·"),
    Row("published on loopback, the host", HOST, "loopback", ON_LOOPBACK, "+-· --·"),
    Row("published on loopback, neighbour", "peer", "app gateway", ON_LOOPBACK, "--· --·"),
    Row("published on loopback, a machine outside", OUTSIDE, HOST, ON_LOOPBACK, "--· --·"),
    Row("published elsewhere, container's address", OUTSIDE, "web", PORT, NONE),
    Row("not published, a machine outside", OUTSIDE, HOST, CLOSED, "--· --·"),
    Row("not published, neighbour", "peer", HOST, CLOSED, "--· --·"),
)


class Field:
    """The private host with its engine, machines and containers; what `Exchange` wants to know of a built world."""

    def __init__(self, engine: EngineProcess, kernel: NetworkKernel, directory: str, home: Path) -> None:
        self.engine = engine
        self.kernel = kernel
        self.run = CommandLine("tsunagu", tsunagu_program(), engine.host, home)
        self.paths: dict[str, str | None] = {HOST: None}
        for word in MACHINES:
            self.paths[word] = os.path.join(directory, word)
        self.endpoints: dict[str, list[str]] = {}
        self.gateways: dict[str, list[str]] = {}

    async def build(self) -> None:
        await self.kernel.ensure_bridge(
            BridgePlan(name="up0", mtu=1500, addresses=(f"{UPLINK[4]}1/24", f"{UPLINK[6]}1/64"), has_ipv6=True)
        )
        for word, path in self.paths.items():
            if path is not None:
                await self.kernel.set_up_sandbox(machine(path, word))
        for name, flags in NETWORKS.items():
            self.run(f"network create --ipv6 {flags} {name}").ok()
            (found,) = json.loads(self.run(f"network inspect {name}").ok())
            self.gateways[name] = [one["Gateway"] for one in found["IPAM"]["Config"] if one.get("Gateway")]
        for name, flags in CONTAINERS.items():
            identifier = self.run(f"run -d --name {name} {flags} tiny sleep 3600").ok().split()[-1]
            (found,) = json.loads(self.run(f"inspect {name}").ok())
            ends = found["NetworkSettings"]["Networks"].values()
            self.endpoints[name] = [end[key] for end in ends for key in ("IPAddress", "GlobalIPv6Address") if end[key]]
            if name == "hosted":
                here = os.readlink("/proc/thread-self/ns/net")
                assert os.readlink(f"/proc/{found['State']['Pid']}/ns/net") == here
            else:
                self.paths[name] = f"{self.engine.instance.run_dir}/netns/{identifier}"

    def addresses(self, word: str) -> list[str]:
        """Every address of a party."""
        if word in MACHINES:
            return [f"{prefix}{MACHINES[word]}" for prefix in UPLINK.values()]
        if word == HOST:
            return [f"{prefix}1" for prefix in UPLINK.values()] + [g for ours in self.gateways.values() for g in ours]
        return self.endpoints[word]

    def probes(self) -> list[tuple[int, int, Probe]]:
        """What is to be sent, with its row and column."""
        found = []
        for number, row in enumerate(ROWS):
            network, _, is_gateway = row.address.partition(" ")
            if row.address == "loopback":
                targets = ["127.0.0.1", "::1"]
            else:
                targets = self.gateways[network] if is_gateway else self.addresses(row.address)
            for column, (family, protocol) in enumerate(COLUMNS):
                if row.expected.replace(" ", "")[column] != "·":
                    target = next(one for one in targets if (":" in one) == (family == 6))
                    source = HOST if row.source == "hosted" else row.source
                    found.append((number, column, Probe(source, target, protocol, row.port)))
        return found

    def rules(self) -> list[str]:
        shown = subprocess.run(["nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
        return sorted(shown.splitlines())

    def flush(self) -> None:
        """Flush all rules of the host, and return when the engine has put its own back."""
        before = self.rules()
        assert any("no-shared-network" in line for line in before)
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        deadline = time.monotonic() + 20
        while self.rules() != before:
            assert time.monotonic() < deadline, "the rules did not come back"
            time.sleep(0.02)


async def measure(field: Field, exchange: Exchange, expected: list[str]) -> list[str]:
    """Send everything; return each row as it was found."""
    probes = field.probes()
    wanted = [i for i, (row, column, _) in enumerate(probes) if expected[row].replace(" ", "")[column] == "+"]
    reached = await exchange.run([probe for _, _, probe in probes], wanted, PATIENCE)
    cells = [list(row.replace(" ", "")) for row in expected]
    for i, (row, column, _) in enumerate(probes):
        cells[row][column] = "+" if i in reached else "-"
    return ["".join(row[:3]) + " " + "".join(row[3:]) for row in cells]


@pytest.mark.parametrize("bridge_netfilter", ["0", "1"])
def test_isolation_matrix(bridge_netfilter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = [row.expected for row in ROWS]
    if bridge_netfilter == "1":  # docs/differences.md: the kernel bridges such packets itself
        expected[[row.relation for row in ROWS].index("published, icc off, neighbour")] = "--· --·"
    found: dict[str, list[str]] = {}

    @on_private_host
    async def body() -> None:
        for name in ("iptables", "ip6tables", "arptables"):
            Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}").write_text(bridge_netfilter)
        instance, remove = private_instance()
        kernel = NetworkKernel(instance)
        await kernel.open()
        engine = EngineProcess()
        try:
            engine.start()
            field = Field(engine, kernel, f"{instance.run_dir}/netns", tmp_path)
            await field.build()
            exchange = Exchange(cast(Built, field))
            await exchange.open()
            for state, happens in (
                ("fresh", None),
                ("flushed", field.flush),
                ("killed", engine.kill),
                (NO_RULES, lambda: subprocess.run(["nft", "flush", "ruleset"], check=True)),
                ("restarted", engine.start),
            ):
                if happens is not None:
                    happens()
                nothing = [cells.replace("+", "-") for cells in expected]  # is waited for
                found[state] = await measure(field, exchange, nothing if state == NO_RULES else expected)
            exchange.close()
        finally:
            left = engine.close()
            await kernel.close()
            remove()
        assert left == []

    body()
    without = {row.relation: cells for row, cells in zip(ROWS, found.pop(NO_RULES), strict=True)}
    with capsys.disabled():
        print(table(found, bridge_netfilter))
    wrong = [
        f"{state}: {row.relation} ({row.source} to {row.address}:{row.port}): {cells}, expected {wanted}"
        for state, rows in found.items()
        for row, cells, wanted in zip(ROWS, rows, expected, strict=True)
        if cells != wanted
    ]
    assert not wrong, "\n".join(wrong)
    # The matrix can fail: with no rules and nobody to put them back it does, as docs/firewall.md says.
    for relation in ("other network", "a machine that routes to us"):
        assert without[relation] == ALL, without
    assert without["published, a machine outside"] == "--· --·", without


def table(found: dict[str, list[str]], bridge_netfilter: str) -> str:
    """The matrix as text; each cell tells IPv4 and IPv6, and of each TCP, UDP and ICMP."""
    lines = [f"\nisolation, bridge netfilter {'on' if bridge_netfilter == '1' else 'off'}: IPv4 and IPv6, tcp udp icmp"]
    lines.append(f"{'relation':44}{'from':11}{'to':20}" + "".join(f"{state:11}" for state in found))
    for number, row in enumerate(ROWS):
        target = f"{row.address}:{row.port}"
        lines.append(
            f"{row.relation:44}{row.source:11}{target:20}" + "".join(f"{rows[number]:11}" for rows in found.values())
        )
    return "\n".join(line.rstrip() for line in lines)
