"""Images from a real registry (Debian's docker-registry), with both clients; registries that break or lie."""

from __future__ import annotations

import contextlib
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root
_CONFIGURATION = """version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:0"}}
{more}
"""


@contextlib.contextmanager
def registry(directory: Path, more: str = "") -> Iterator[str]:
    """A registry of its own; gives its address. It says on which port it listens."""
    program = shutil.which("docker-registry")
    assert program, "docker-registry is missing: make dev"
    directory.mkdir(exist_ok=True)
    (directory / "config.yml").write_text(_CONFIGURATION.format(root=directory / "blobs", more=more))
    process = subprocess.Popen(
        [program, "serve", str(directory / "config.yml")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        said = b""
        while (found := re.search(rb"listening on 127\.0\.0\.1:(\d+)", said)) is None:
            assert select.select([process.stderr], [], [], 30)[0], said
            piece = process.stderr.read1(65536)  # type: ignore[attr-defined]
            assert piece, said
            said += piece
        yield f"127.0.0.1:{found[1].decode()}"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def fill(address: str, archive: Path, name: str) -> None:
    """Put an image of tests/images in a registry, with skopeo as a client of its own."""
    subprocess.run(
        ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{address}/{name}"],
        check=True,
        timeout=60,
    )


@pytest.fixture
def served(tmp_path: Path, images: Callable[[str], Path]) -> Iterator[tuple[str, Path]]:
    """A registry with `x:latest` and `x:v2`, and where its blobs are."""
    with registry(tmp_path / "registry") as address:
        fill(address, images("alpine"), "x:latest")
        fill(address, images("myapp"), "x:v2")
        yield address, tmp_path / "registry" / "blobs"


@pytest.fixture
def own(new_engine: Callable[..., EngineProcess]) -> EngineProcess:
    """An engine without images: one that is there already would not be fetched."""
    return new_engine()


@pytest.fixture(params=["docker", "tsunagu"])
def puller(
    request: pytest.FixtureRequest, own: EngineProcess, client_of: Callable[[str, EngineProcess], CommandLine]
) -> CommandLine:
    return client_of(request.param, own)


def blobs(root: Path) -> list[Path]:
    """The files of a registry's blobs, the largest last."""
    return sorted(root.glob("docker/registry/v2/blobs/sha256/*/*/data"), key=lambda path: path.stat().st_size)


def test_pull(puller: CommandLine, served: tuple[str, Path]) -> None:
    name = f"{served[0]}/x"
    lines = puller("pull", name).ok().splitlines()
    assert lines[:2] == ["Using default tag: latest", "latest: Pulling from " + name]
    digest = next(line.removeprefix("Digest: ") for line in lines if line.startswith("Digest: sha256:"))
    assert lines[-2:] == [f"Status: Downloaded newer image for {name}:latest", f"{name}:latest"]
    again = puller("pull", name).ok().splitlines()
    assert again[-2] == f"Status: Image is up to date for {name}:latest"
    assert f"{name}@{digest}" in puller("image inspect -f", "{{json .RepoDigests}}", name).ok()
    assert puller("run --rm --pull never", f"{name}@{digest}", "echo", "digest").ok() == "digest"
    assert puller("pull -q", f"{name}@{digest}").code == 0
    assert "v2: Pulling from " in puller("pull -a", name).ok()
    assert puller("run --rm --pull never", f"{name}:v2", "true").code == 0


def test_run_pulls_what_is_missing(puller: CommandLine, served: tuple[str, Path]) -> None:
    name = f"{served[0]}/x:v2"
    never = puller("run --rm --pull never", name, "true")
    assert never.code == 125 and f"No such image: {name}" in never.err
    found = puller("run --rm", name, "echo", "here")
    assert (found.code, found.out) == (0, "here\n")
    assert f"Unable to find image '{name}' locally\n" in found.err
    assert f"Status: Downloaded newer image for {name}\n" in found.err
    assert "Image is up to date" in puller("run --rm --pull always", name, "true").err


def test_what_is_not_there(puller: CommandLine, served: tuple[str, Path]) -> None:
    missing = puller("pull", f"{served[0]}/nosuch")
    assert missing.code == 1
    sentence = f"manifest for {served[0]}/nosuch:latest not found: manifest unknown: manifest unknown"
    assert f"Error response from daemon: {sentence}\n" in missing.err
    away = puller("pull 127.0.0.1:1/x")
    assert 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused' in away.err


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_lying_registry_leaves_nothing(
    damage: str,
    own: EngineProcess,
    client_of: Callable[[str, EngineProcess], CommandLine],
    tmp_path: Path,
    images: Callable[[str], Path],
) -> None:
    docker = client_of("docker", own)
    with registry(tmp_path / "registry") as address:
        fill(address, images("alpine"), "x")
        layer = blobs(tmp_path / "registry" / "blobs")[-1]
        if damage == "missing":
            layer.unlink()
        else:
            data = layer.read_bytes()
            layer.write_bytes(data[: len(data) // 2] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
        failed = docker("pull", f"{address}/x")
        assert failed.code == 1 and failed.err, failed
        assert "Downloaded" not in failed.out
    assert docker("images -aq").ok() == ""
    assert not list(Path(own.instance.root, "tmp").glob("auth-*"))


def test_refused_without_credentials(docker: CommandLine, tmp_path: Path, engine: EngineProcess) -> None:
    """Without them the registry's refusal is told; the file that held them is gone afterwards."""
    (tmp_path / "users").write_text("u:$2y$05$notahashnotahashnotahashnotahashnotahashnotahashnotah\n")
    more = f"auth: {{htpasswd: {{realm: test, path: {tmp_path / 'users'}}}}}"
    with registry(tmp_path / "registry", more) as address:
        refused = docker("pull", f"{address}/x")
        assert refused.code == 1
        assert "unauthorized: authentication required" in refused.err
    assert not list(Path(engine.instance.root, "tmp").glob("auth-*"))
