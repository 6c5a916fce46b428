"""An engine started like dockerd: daemon.json and flags take effect, reload, and are refused when they cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess, tsunagu_program

pytestmark = pytest.mark.root

Client = Callable[[str, EngineProcess], CommandLine]
FILE = {
    "bip": "10.254.0.1/20",
    "fixed-cidr": "10.254.4.0/24",
    "mtu": 1400,
    "default-address-pools": [{"base": "10.254.128.0/20", "size": 26}],
    "dns": ["192.0.2.53"],
    "dns-opts": ["timeout:3"],
    "dns-search": ["corp.test"],
    "labels": ["rack=7"],
    "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 512, "Hard": 640}},
    "live-restore": True,
    "userland-proxy": False,
}


@pytest.fixture
def configured(tmp_path: Path, images: Callable[[str], Path]) -> Iterator[EngineProcess]:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps(FILE))
    engine = EngineProcess("--config-file", str(file), "--pidfile", str(tmp_path / "pid"))
    engine.start()
    try:
        engine.load(images("alpine"))
        yield engine
    finally:
        left = engine.close()
        assert left == []


def inspect_bridge(engine: EngineProcess) -> dict[str, object]:
    found = engine.api.get("/networks/bridge")
    return {"ipam": found["IPAM"]["Config"], "mtu": found["Options"]["com.docker.network.driver.mtu"]}


@pytest.mark.parametrize("client", ["docker", "tsunagu"])
def test_the_configuration_file_takes_effect(
    client: str, configured: EngineProcess, client_of: Client, tmp_path: Path
) -> None:
    cli = client_of(client, configured)
    assert (tmp_path / "pid").read_text() == str(configured.pid)
    expected = [{"Subnet": "10.254.0.0/20", "IPRange": "10.254.4.0/24", "Gateway": "10.254.0.1"}]
    assert inspect_bridge(configured) == {"ipam": expected, "mtu": "1400"}
    text = cli("run --rm alpine sh -c", "ip -4 addr show eth0; ip route; cat /etc/resolv.conf").ok()
    assert "mtu 1400" in text and "inet 10.254.4." in text and "via 10.254.0.1" in text
    assert "nameserver 192.0.2.53" in text and "search corp.test" in text and "options timeout:3" in text
    own = cli("run --rm --dns 192.0.2.99 alpine cat /etc/resolv.conf").ok()
    assert "nameserver 192.0.2.99" in own and "192.0.2.53" not in own and "search corp.test" in own
    assert cli("run --rm alpine sh -c", "ulimit -Sn; ulimit -Hn").ok().split() == ["512", "640"]
    assert cli("run --rm --ulimit nofile=300 alpine sh -c", "ulimit -n").ok().split() == ["300"]
    cli("network create pooled").ok()
    assert cli("network inspect -f", "{{(index .IPAM.Config 0).Subnet}}", "pooled").ok() == "10.254.128.0/26"
    info = configured.api.get("/info")
    assert info["DefaultAddressPools"] == [{"Base": "10.254.128.0/20", "Size": 26}]
    assert info["Labels"] == ["rack=7"]

    # the settings of the bridge change between two runs of the engine, not under running containers
    file = tmp_path / "daemon.json"
    cli("run -d --name stays alpine sleep 1000").ok()
    configured.stop()
    assert not (tmp_path / "pid").exists()
    file.write_text(json.dumps({**FILE, "bip": "10.253.0.1/24", "fixed-cidr": "10.253.0.128/25"}))
    with pytest.raises(RuntimeError, match="cannot change while containers run on it: stays"):
        configured.start()
    file.write_text(json.dumps(FILE))
    configured.start()
    cli("rm -f stays").ok()
    configured.stop()
    file.write_text(json.dumps({**FILE, "bip": "10.253.0.1/24", "fixed-cidr": "10.253.0.128/25"}))
    configured.start()
    assert "inet 10.253.0.1" in cli("run --rm alpine ip -4 addr show eth0").ok()

    # SIGHUP: labels follow, a broken file changes nothing
    file.write_text(json.dumps({**FILE, "labels": ["rack=8"]}))
    os.kill(configured.pid, signal.SIGHUP)
    await_labels(configured, ["rack=8"])
    file.write_text("{")
    os.kill(configured.pid, signal.SIGHUP)
    await_log(configured, "the configuration was not reloaded")
    assert configured.api.get("/info")["Labels"] == ["rack=8"]


def test_ipv6_on_the_default_bridge(tmp_path: Path, images: Callable[[str], Path], client_of: Client) -> None:
    engine = EngineProcess("--ipv6", "--fixed-cidr-v6", "fd00:25:9::/64")
    engine.start()
    try:
        engine.load(images("alpine"))
        text = client_of("docker", engine)("run --rm alpine sh -c", "ip -6 addr show eth0; ip -6 route").ok()
        assert "inet6 fd00:25:9::" in text and "default via fd00:25:9::1" in text
    finally:
        left = engine.close()
    assert left == []


def await_labels(engine: EngineProcess, labels: list[str]) -> None:
    end = time.monotonic() + 10
    while engine.api.get("/info")["Labels"] != labels:
        assert time.monotonic() < end
        time.sleep(0.05)


def await_log(engine: EngineProcess, words: str) -> None:
    end = time.monotonic() + 10
    while words not in engine.log_path.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_validate_and_refusals(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"

    def daemon(*words: str) -> tuple[int, str]:
        command = [tsunagu_program(), "daemon", "--root", str(tmp_path / "r"), "--config-file", str(file), *words]
        result = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
        )
        return result.returncode, result.stderr

    file.write_text('{"bip": "10.9.0.1/24"}')
    assert daemon("--validate") == (0, "configuration OK\n")
    code, text = daemon("--validate", "--bip", "10.8.0.1/24")
    assert code == 1
    assert (
        "the following directives are specified both as a flag and in the configuration file: "
        "bip: (from flag: 10.8.0.1/24, from file: 10.9.0.1/24)" in text
    )
    code, text = daemon("--validate", "--iptables=false")
    assert (code, "iptables=false is not supported" in text) == (1, True)
    file.write_text('{"bip": ')
    code, text = daemon("--validate")
    assert (code, f"with file {file}" in text, "line 1, column 9" in text) == (1, True, True)
