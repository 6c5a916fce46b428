"""Images without a registry: load, save, import, tag, list, inspect, remove; archives that are not what they say."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root


@pytest.fixture
def tidy(cli: CommandLine, engine: EngineProcess) -> Iterator[CommandLine]:
    """Images that a test made under `made/` go away again."""
    yield cli
    engine.remove_everything()
    for line in cli("images --format", "{{.Repository}}:{{.Tag}}").ok().splitlines():
        if line.startswith("made/"):
            cli("rmi -f", line).ok()


def test_list(cli: CommandLine) -> None:
    lines = cli("images").ok().splitlines()
    assert lines[0].split()[:2] == ["REPOSITORY", "TAG"]
    references = cli("images --format", "{{.Repository}}:{{.Tag}}").ok().splitlines()
    for reference in ("alpine:latest", "nginx:latest", "mysql:8", "redis:alpine", "myapp:v1", "order-service:latest"):
        assert reference in references
    ids = set(cli("images -q --no-trunc myapp").ok().splitlines())
    assert len(ids) == 1
    assert ids.pop().startswith("sha256:")
    assert cli("images -q nosuchimage").ok() == ""


def test_inspect_and_history(cli: CommandLine) -> None:
    image = json.loads(cli("image inspect nginx").ok())[0]
    assert "nginx:latest" in image["RepoTags"]
    assert image["Config"]["Cmd"] == ["nginx", "-g", "daemon off;"]
    assert image["Config"]["ExposedPorts"] == {"80/tcp": {}}
    assert any(word.startswith("NGINX_VERSION=") for word in image["Config"]["Env"])
    assert image["Os"] == "linux"
    assert len(image["RootFS"]["Layers"]) == 2
    # the Debian layer below is the same one for nginx and redis
    redis = json.loads(cli("image inspect redis:alpine").ok())[0]
    assert redis["RootFS"]["Layers"][0] == image["RootFS"]["Layers"][0]
    assert "tests/images: layer nginx" in cli("history --no-trunc nginx").ok()
    result = cli("image inspect nosuchimage")
    assert (result.code, result.out.strip()) == (1, "[]")
    assert "No such image: nosuchimage" in result.err


def test_tag_and_untag(tidy: CommandLine) -> None:
    tidy("tag alpine made/one:1.0").ok()
    tidy("tag made/one:1.0 made/two").ok()
    assert tidy("images -q made/one").ok() == tidy("images -q alpine").ok()
    assert tidy("run --rm made/two echo fine").ok() == "fine"
    assert tidy("rmi made/one:1.0").ok() == "Untagged: made/one:1.0"
    assert tidy("rmi made/one:1.0").code == 1
    assert "No such image" in tidy("rmi made/one:1.0").err
    assert tidy("tag nosuchimage made/x").code == 1
    assert tidy("tag alpine 'made/Bad Name'").code == 1


def test_image_in_use_stays(tidy: CommandLine) -> None:
    tidy("tag alpine made/used").ok()
    tidy("run -d --name holder made/used sleep 100").ok()
    # other references of the same image remain, so the name may go; the image may not
    identity = tidy("inspect -f {{.Image}} holder").ok()
    result = tidy("rmi", identity)
    assert result.code == 1
    assert "conflict" in result.err


def test_save_and_load_again(tidy: CommandLine, tmp_path: Path) -> None:
    archive = tmp_path / "saved.tar"
    tidy("tag alpine made/saved:1").ok()
    before = tidy("images -q --no-trunc made/saved:1").ok()
    tidy(f"save -o {archive} made/saved:1").ok()
    with tarfile.open(archive) as saved:
        names = saved.getnames()
    assert {"manifest.json", "index.json", "oci-layout"} <= set(names)
    tidy("rmi made/saved:1").ok()
    assert tidy(f"load -i {archive}").ok() == "Loaded image: made/saved:1"
    assert tidy("images -q --no-trunc made/saved:1").ok() == before
    # compressed, and through a pipe
    packed = gzip.compress(archive.read_bytes())
    tidy("rmi made/saved:1").ok()
    assert tidy("load", stdin=packed).ok() == "Loaded image: made/saved:1"


def test_import_a_root_file_system(tidy: CommandLine, tmp_path: Path) -> None:
    rootfs = io.BytesIO()
    with tarfile.open(fileobj=rootfs, mode="w") as archive:
        busybox = archive.gettarinfo("/bin/busybox", "bin/busybox")
        with open("/bin/busybox", "rb") as stream:
            archive.addfile(busybox, stream)
        link = tarfile.TarInfo("bin/cat")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        archive.addfile(link)
        text = tarfile.TarInfo("etc/greeting")
        text.size = 6
        archive.addfile(text, io.BytesIO(b"hello\n"))
    path = tmp_path / "rootfs.tar"
    path.write_bytes(rootfs.getvalue())
    identity = tidy(
        "import --change", 'CMD ["/bin/cat", "/etc/greeting"]', "--change", "ENV A=b", str(path), "made/imported:1"
    ).ok()
    assert identity.startswith("sha256:")
    assert tidy("run --rm made/imported:1").ok() == "hello"
    assert tidy("inspect -f", "{{.Config.Env}}", "made/imported:1").ok().startswith("[A=b")
    assert tidy("import - made/piped:2", stdin=rootfs.getvalue()).code == 0


def make_archive(layer: Callable[[tarfile.TarFile], None]) -> bytes:
    """A docker-save archive of one image made/evil:1 whose single layer is written by `layer`."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        layer(archive)
    import hashlib

    digest = hashlib.sha256(data.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    listing = json.dumps([{"Config": "config.json", "RepoTags": ["made/evil:1"], "Layers": ["layer.tar"]}]).encode()
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, content in (("config.json", config), ("layer.tar", data.getvalue()), ("manifest.json", listing)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return whole.getvalue()


def test_archives_cannot_escape(tidy: CommandLine, tmp_path: Path) -> None:
    mark = tmp_path / "escaped"

    def through_dots(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo("../" * 20 + str(mark)[1:])
        member.size = 2
        archive.addfile(member, io.BytesIO(b"no"))

    def through_a_link(archive: tarfile.TarFile) -> None:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        member = tarfile.TarInfo("out/escaped")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"no"))

    def through_a_hard_link(archive: tarfile.TarFile) -> None:
        link = tarfile.TarInfo("shadow")
        link.type, link.linkname = tarfile.LNKTYPE, "../" * 20 + "etc/shadow"
        archive.addfile(link)

    for layer in (through_dots, through_a_link, through_a_hard_link):
        tidy("load", stdin=make_archive(layer))
        assert not mark.exists()
    assert os.stat("/etc/shadow").st_nlink == 1

    assert tidy("run --rm alpine echo fine").ok() == "fine"


def test_malformed_archives(tidy: CommandLine) -> None:
    good = make_archive(lambda archive: archive.addfile(tarfile.TarInfo("empty")))
    before = tidy("images -q").ok()
    for data in (b"", b"not an archive", good[: len(good) // 3], good.replace(b'"layer.tar"', b'"nothe.tar"')):
        result = tidy("load", stdin=data)
        assert result.code == 1, result
        assert result.err, result
    assert tidy("images -q").ok() == before


def test_built_in_image(tsunagu: CommandLine) -> None:
    assert tsunagu("run --rm tiny echo works").ok() == "works"
