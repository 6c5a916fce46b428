"""Clients that other people wrote, unmodified: Docker Compose, docker-py, aiodocker, testcontainers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiodocker
import docker as docker_py
import docker.errors
import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
Compose = Callable[..., str]


@pytest.fixture(autouse=True)
def nothing_is_left(engine: EngineProcess) -> Iterator[None]:
    yield
    refused = engine.remove_everything()
    assert not refused, refused


@pytest.fixture
def compose(engine: EngineProcess, tmp_path: Path) -> Compose:
    """Docker Compose as PyPI ships it, at the session's engine; returns what it printed on standard output."""
    program = Path(sys.executable).with_name("docker-compose")

    def run(file: str, *words: str) -> str:
        done = subprocess.run(
            [program, "-p", "shop", "-f", EXAMPLES / file, *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DOCKER_HOST": engine.host},
        )  # fmt: skip
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


def test_compose_brings_up_scales_and_takes_down_microservices(compose: Compose, docker: CommandLine) -> None:
    """The tutorial's file: each service reaches its own database only, and nobody else reaches one."""
    compose("microservices.yml", "up", "-d")
    services = {
        row["Service"]: row
        for row in map(json.loads, compose("microservices.yml", "ps", "--format", "json").splitlines())
    }
    assert set(services) == {"gateway", "user-service", "order-service", "user-db", "order-db"}
    assert {row["State"] for row in services.values()} == {"running"}
    assert services["gateway"]["Ports"] == "0.0.0.0:8088->80/tcp"
    networks = docker("network ls --filter label=com.docker.compose.project=shop --format {{.Name}}").ok()
    assert set(networks.splitlines()) == {"shop_frontend", "shop_order-db", "shop_user-db"}

    def resolves(container: str, name: str) -> bool:
        return docker(f"exec shop-{container}-1 getent hosts {name}").code == 0

    assert resolves("gateway", "user-service") and resolves("gateway", "order-service")
    assert not resolves("gateway", "user-db") and not resolves("gateway", "order-db")
    assert resolves("user-db", "user-service") and not resolves("user-db", "order-db")
    assert docker("exec shop-user-db-1 ping -c 1 8.8.8.8").code != 0

    compose("microservices.yml", "up", "-d", "--scale", "user-service=3")
    names = docker("ps --filter label=com.docker.compose.service=user-service --format {{.Names}}").ok()
    assert set(names.splitlines()) == {f"shop-user-service-{number}" for number in (1, 2, 3)}
    found = docker("exec shop-gateway-1 getent ahostsv4 user-service").ok()
    assert len({line.split()[0] for line in found.splitlines()}) == 3

    before = docker("ps -q --no-trunc").ok()
    compose("microservices.yml", "up", "-d", "--scale", "user-service=3")
    assert docker("ps -q --no-trunc").ok() == before, "nothing had changed, so nothing is made anew"

    compose("microservices.yml", "down", "-t", "1")
    assert docker("ps -aq").ok() == ""
    assert docker("network ls -q --filter label=com.docker.compose.project=shop").ok() == ""


def test_compose_gives_aliases(compose: Compose) -> None:
    compose("aliases.yml", "up", "-d")
    for name in ("mysql", "db", "database", "mysql-server", "shop-mysql-1"):
        assert "1 packets received" in compose("aliases.yml", "exec", "-T", "app", "ping", "-c", "1", name)
    assert "DATABASE_HOST=db" in compose("aliases.yml", "exec", "-T", "app", "env")
    compose("aliases.yml", "down", "-t", "1")


def test_compose_keeps_a_named_volume(compose: Compose, docker: CommandLine) -> None:
    ready = "until redis-cli ping 2>/dev/null | grep -q PONG; do sleep 0.1; done; "
    compose("database.yml", "up", "-d")
    assert docker("volume ls -q --filter label=tier=database").ok() == "shop_data"
    assert docker("exec shop-cache-1 sh -c", f"{ready} redis-cli set visits 7").ok() == "OK"
    assert docker("exec shop-reader-1 ls /data").ok() == "appendonlydir"
    assert docker("exec shop-reader-1 touch /data/x").code == 1
    compose("database.yml", "down", "-t", "1")
    assert docker("ps -aq").ok() == ""
    compose("database.yml", "up", "-d")
    kept = "until redis-cli get visits 2>/dev/null | grep -x 7; do sleep 0.1; done"
    assert docker("exec shop-cache-1 sh -c", kept).ok() == "7"
    compose("database.yml", "down", "-t", "1", "-v")
    assert docker("volume ls -q").ok() == ""


def test_docker_py_from_network_to_removal(engine: EngineProcess) -> None:
    client = docker_py.DockerClient(base_url=engine.host)
    try:
        network = client.networks.create("library", driver="bridge")
        web = client.containers.run("nginx", detach=True, name="web", network="library")
        network.reload()
        assert [c.name for c in network.containers] == ["web"]
        page = client.containers.run("alpine", "wget -qO- http://web", network="library", remove=True)
        assert b"Welcome to nginx!" in page
        code, printed = web.exec_run("hostname")
        assert (code, printed.decode().strip()) == (0, web.short_id)
        web.pause()
        web.reload()
        assert web.status == "paused"
        web.unpause()
        assert web.stats(stream=False)["pids_stats"]["current"] >= 1
        stream, facts = web.get_archive("/etc/hostname")
        assert facts["name"] == "hostname" and b"".join(stream)
        network.disconnect(web)
        network.connect(web, aliases=["site"])
        answer = client.containers.run("alpine", "nslookup site", network="library", remove=True)
        assert b"Address: " in answer
        with pytest.raises(docker.errors.APIError) as refusal:
            network.remove()
        assert refusal.value.status_code == 403 and "active endpoints" in str(refusal.value)
        web.kill()
        assert web.wait()["StatusCode"] == 137
        web.remove()
        with pytest.raises(docker.errors.NotFound):
            client.containers.get("web")
        with pytest.raises(docker.errors.ContainerError) as failure:
            client.containers.run("alpine", "sh -c 'echo no >&2; exit 3'", remove=True)
        assert failure.value.exit_status == 3
        network.remove()
    finally:
        client.close()


def test_aiodocker_reads_logs_execs_and_events(engine: EngineProcess) -> None:
    async def session() -> None:
        client = aiodocker.Docker(url=engine.host)
        try:
            config: dict[str, Any] = {"Image": "alpine", "Cmd": ["sh", "-c", "echo hello; exec sleep 60"]}
            container = await client.containers.create_or_replace(name="asynchronous", config=config)
            await container.start()
            assert await anext(container.log(stdout=True, follow=True)) == "hello\n"
            stream = (await container.exec(["echo", "inside"])).start(detach=False)
            message = await stream.read_out()
            assert message is not None and message.data == b"inside\n"
            await stream.close()
            await container.kill()
            assert (await container.wait())["StatusCode"] == 137
            await container.delete()
        finally:
            await client.close()

    asyncio.run(asyncio.wait_for(session(), 60))


def test_testcontainers_starts_a_server(engine: EngineProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its janitor container (ryuk) is switched off as its documentation allows: it is an image from a registry."""
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    monkeypatch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
    from testcontainers.core.container import DockerContainer  # reads the environment when imported
    from testcontainers.core.waiting_utils import wait_for_logs

    server = DockerContainer("alpine").with_exposed_ports(80)
    server.with_command("sh -c 'echo testcontainers >/index.html; httpd -p 80 -h /; echo ready; exec sleep 60'")
    with server as started:
        wait_for_logs(started, "ready", timeout=30)
        address = f"http://{started.get_container_host_ip()}:{started.get_exposed_port(80)}/"
        with urllib.request.urlopen(address, timeout=10) as page:
            assert page.read() == b"testcontainers\n"
