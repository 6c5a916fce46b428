"""Unmodified clients against our server: the docker command line and docker-py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import docker
import docker.errors
import pytest

from .conftest import Served

needs_cli = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command line is not installed")


def run(served: Served, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "-H", f"unix://{served.path}", *words],
        capture_output=True, text=True, timeout=60, check=False,
        env={"HOME": "/nonexistent", "PATH": os.environ["PATH"]},
    )  # fmt: skip


@needs_cli
def test_docker_version_and_info(served: Served) -> None:
    version = run(served, "version", "--format", "{{json .Server}}")
    assert version.returncode == 0, version.stderr
    server = json.loads(version.stdout)
    assert server["Platform"]["Name"] == "Tsunagu 0.1.0"
    assert (server["ApiVersion"], server["MinAPIVersion"], server["Os"]) == ("1.51", "1.24", "linux")
    info = run(served, "info")
    assert info.returncode == 0, info.stderr
    for line in (
        "Server Version: 28.5.2+tsunagu0.1.0",
        "Storage Driver: overlay2",
        "Default Runtime: runc",
        "Swarm: inactive",
    ):
        assert line in info.stdout


@needs_cli
def test_docker_run_detached_ps_inspect_rm(served: Served) -> None:
    made = run(served, "run", "-d", "--name", "web", "-e", "A=b", "--label", "k=v", "tiny", "sleep", "9")
    assert made.returncode == 0, made.stderr
    identifier = made.stdout.strip()
    listed = run(served, "ps", "--format", "{{.ID}}|{{.Image}}|{{.Command}}|{{.Names}}|{{.State}}")
    assert listed.stdout == f'{identifier[:12]}|tiny|"sleep 9"|web|running\n'
    shown = run(served, "inspect", "-f", "{{.Name}} {{.Config.Env}} {{.HostConfig.NetworkMode}} {{.State.Pid}}", "web")
    assert shown.stdout == "/web [A=b] default 4242\n".replace("default", "bridge")
    refused = run(served, "rm", "web")
    assert refused.returncode == 1
    assert 'cannot remove container "web": container is running' in refused.stderr
    assert run(served, "rm", "-f", "web").stdout == "web\n"
    gone = run(served, "inspect", "web")
    assert gone.returncode == 1 and "no such object: web" in gone.stderr.lower()


@needs_cli
def test_docker_run_errors_have_dockers_exit_codes(served: Served) -> None:
    missing = run(served, "run", "--rm", "nosuchimage", "true")
    assert missing.returncode == 125
    assert "Unable to find image 'nosuchimage:latest' locally" in missing.stderr
    assert "docker: Error response from daemon: manifest for nosuchimage:latest not found" in missing.stderr
    assert run(served, "run", "tiny", "nosuchcmd").returncode == 127
    unsupported = run(served, "run", "-d", "--cgroup-parent", "other", "tiny")
    assert unsupported.returncode == 125
    assert "HostConfig.CgroupParent is not supported yet" in unsupported.stderr


@needs_cli
def test_docker_exec_prints_output_and_exit_code(served: Served) -> None:
    run(served, "run", "-d", "--name", "web", "tiny")
    done = run(served, "exec", "web", "say", "hello")
    assert (done.stdout, done.returncode) == ("say hello\n", 3)


@needs_cli
def test_docker_attach_and_logs(served: Served) -> None:
    run(served, "run", "-d", "--name", "web", "tiny")
    logs = run(served, "logs", "-t", "web")
    assert logs.stdout == "2023-11-14T22:13:20.000000000Z out\n"
    assert logs.stderr == "2023-11-14T22:13:20.500000000Z err\n"


@needs_cli
def test_docker_network_commands(served: Served) -> None:
    made = run(
        served, "network", "create", "--label", "a=b", "--subnet", "172.29.0.0/24", "--gateway", "172.29.0.254", "n1"
    )
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.strip()) == 64
    assert run(served, "network", "create", "n1").stderr == (
        "Error response from daemon: network with name n1 already exists\n"
    )
    assert (
        run(served, "network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").stdout
        == "bridge bridge local\nn1 bridge local\n"
    )
    shown = json.loads(run(served, "network", "inspect", "n1").stdout)[0]
    assert shown["IPAM"]["Config"] == [{"Subnet": "172.29.0.0/24", "Gateway": "172.29.0.254"}]
    assert shown["Labels"] == {"a": "b"}
    run(served, "run", "-d", "--name", "web", "tiny")
    assert run(served, "network", "connect", "--alias", "x", "--ip", "172.29.0.9", "n1", "web").returncode == 0
    ((word, container, config),) = served.app.connections.made
    assert (word, container, config.aliases, config.ipv4, config.has_ipam_config) == (
        "n1",
        "web",
        ("x",),
        "172.29.0.9",
        True,
    )
    assert run(served, "network", "rm", "n1").stdout == "n1\n"


@needs_cli
def test_docker_images_load_save(served: Served, tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert run(served, "images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}").stdout == "tiny:latest 1.23kB\n"
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"x" * 300_000)
    assert run(served, "load", "-i", str(archive)).stdout == "Loaded image: tiny:latest\nLoaded image: other:latest\n"
    out = tmp_path / "out.tar"
    assert run(served, "save", "-o", str(out), "tiny").returncode == 0
    assert out.stat().st_size == 400 * 65536
    assert "No such image: other:latest" in run(served, "save", "-o", str(out), "other").stderr


@needs_cli
def test_docker_pull_that_breaks_off(served: Served) -> None:
    broken = run(served, "pull", "breaks")
    assert (broken.returncode, broken.stderr) == (1, "unexpected EOF\n")
    assert "latest: Pulling from library/breaks" in broken.stdout


@needs_cli
def test_docker_refusals(served: Served) -> None:
    assert 'This node is not a swarm manager. Use "docker swarm init"' in run(served, "node", "ls").stderr
    assert run(served, "volume", "ls", "-q").stdout == ""
    assert "logging in" in run(served, "login", "-u", "u", "-p", "p", "registry.example").stderr


@needs_cli
def test_docker_volumes(served: Served) -> None:
    assert run(served, "volume", "create", "--label", "a=1", "data").stdout == "data\n"
    assert run(served, "volume", "ls").stdout == "DRIVER    VOLUME NAME\nlocal     data\n"
    assert run(served, "volume", "ls", "-q", "--filter", "label=a=2").stdout == ""
    assert run(served, "volume", "ls", "-q", "--filter", "name=dat", "--filter", "dangling=true").stdout == "data\n"
    assert run(served, "volume", "inspect", "-f", "{{.Labels}} {{.Scope}}", "data").stdout == "map[a:1] local\n"
    assert "get nosuch: no such volume" in run(served, "volume", "inspect", "nosuch").stderr
    assert "invalid filter 'nosuch'" in run(served, "volume", "ls", "--filter", "nosuch=1").stderr
    assert run(served, "volume", "rm", "data").stdout == "data\n"
    assert "get data: no such volume" in run(served, "volume", "rm", "data").stderr
    assert run(served, "volume", "rm", "-f", "data").stdout == "data\n"
    run(served, "volume", "create", "data")
    assert run(served, "volume", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    assert run(served, "volume", "prune", "-af").stdout.startswith("Deleted Volumes:\ndata\n\n")


def test_docker_py(served: Served) -> None:
    client = docker.DockerClient(base_url=f"unix://{served.path}", timeout=20)
    try:
        assert client.ping() is True
        assert client.version()["ApiVersion"] == "1.51"
        container = client.containers.run("tiny", ["sleep", "9"], name="py", detach=True, labels={"x": "y"})
        assert [c.name for c in client.containers.list(filters={"label": "x=y"})] == ["py"]
        assert client.containers.list(filters={"label": "x=z"}) == []
        container.reload()
        assert container.attrs["State"]["Running"] is True
        assert container.logs() == b"out\nerr\n"
        assert container.exec_run(["say", "hi"]) == (3, b"say hi\n")
        with pytest.raises(docker.errors.APIError) as conflict:
            client.containers.create("tiny", name="py")
        assert conflict.value.status_code == 409
        with pytest.raises(docker.errors.NotFound):
            client.containers.get("nosuch")
        with pytest.raises(docker.errors.ImageNotFound):
            client.images.get("nosuch")
        assert client.networks.list(names=["bridge"])[0].name == "bridge"
        assert client.info()["Driver"] == "overlay2"
        container.remove(force=True)
    finally:
        client.close()
