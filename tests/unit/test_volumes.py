"""rules.volumes: names, options, users."""

from __future__ import annotations

import pytest

from tsunagu.model.container import Config, Container, HostConfig, State, Status
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter, NotFound, NotSupported
from tsunagu.model.volume import Mount, Volume
from tsunagu.model.world import ContainerCreated, VolumeCreated, VolumeRemoved, World, apply
from tsunagu.rules import volumes


@pytest.mark.parametrize("name", ["ab", "a.b-c_d", "0" * 64, "A" * 240])
def test_names_that_may_be(name: str) -> None:
    assert volumes.check_name(name) == name


@pytest.mark.parametrize("name", ["", ".x", "-x", "a/b", "../x", "a b", "a\n", "ä1", "x:y", "a\0b", "_x"])
def test_names_that_may_not_be(name: str) -> None:
    with pytest.raises(InvalidParameter, match="includes invalid characters for a local volume name"):
        volumes.check_name(name)


def test_names_have_a_length() -> None:
    with pytest.raises(InvalidParameter, match="create x: volume name is too short, names should be at least two"):
        volumes.check_name("x")
    with pytest.raises(InvalidParameter, match="longer than"):
        volumes.check_name("x" * 241)


def test_drivers() -> None:
    volumes.check_driver("v", "")
    volumes.check_driver("v", "local")
    with pytest.raises(NotFound) as caught:
        volumes.check_driver("v1", "nosuch")
    assert caught.value.message == 'create v1: error looking up volume plugin nosuch: plugin "nosuch" not found'


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"foo": "1"}, InvalidParameter, 'create v: invalid option: "foo"'),
        ({"device": "/x"}, InvalidParameter, 'create v: missing required option: "type"'),
        ({"type": "none"}, InvalidParameter, 'create v: missing required option: "device"'),
        ({"o": "bind", "type": "none"}, InvalidParameter, 'create v: missing required option: "device"'),
        ({"size": "1g"}, InvalidParameter, "create v: quota size requested but no quota support"),
        ({"type": "nfs", "device": ":/x", "o": "addr=10.0.0.1,rw"}, NotSupported, 'volumes of type "nfs"'),
        ({"type": "cifs", "device": "//h/x"}, NotSupported, 'volumes of type "cifs"'),
        ({"type": "ext4", "device": "/dev/sdb"}, NotSupported, 'volumes of type "ext4"'),
        ({"type": "none", "device": "x", "o": "bind"}, InvalidParameter, "is no absolute path"),
        ({"type": "none", "device": "/x", "o": "bind,uid=1"}, InvalidParameter, 'invalid option: "uid=1"'),
        ({"type": "tmpfs", "device": "tmpfs", "o": "bind"}, InvalidParameter, 'invalid option: "bind"'),
        ({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,huge=1"}, InvalidParameter, 'invalid option: "huge=1"'),
        ({"type": "none", "device": "/x\0y", "o": "bind"}, InvalidParameter, "NUL"),
    ],
)
def test_options_that_cannot_be_mounted(options: dict[str, str], kind: type[EngineError], words: str) -> None:
    with pytest.raises(kind) as caught:
        volumes.check_options("v", options)
    assert words in caught.value.message


def test_options_that_can() -> None:
    assert volumes.check_options("v", {}) is None
    bound = volumes.check_options("v", {"type": "none", "device": "/srv", "o": "bind,ro"})
    assert bound == volumes.LocalMount("none", "/srv", ("bind", "ro"))
    memory = volumes.check_options("v", {"type": "tmpfs", "device": "tmpfs", "o": "size=10m,uid=5,noexec"})
    assert memory == volumes.LocalMount("tmpfs", "tmpfs", ("size=10m", "uid=5", "noexec"))


def world() -> World:
    made = apply(World(), VolumeCreated(Volume(name="data", created=1)))
    made = apply(made, VolumeCreated(Volume(name="idle", created=2)))
    container = Container(
        id="c" * 64, name="web", created=3, image_id="i", path="sh", args=(), config=Config(), host=HostConfig(),
        mounts=(Mount(type="volume", name="data", destination="/d"), Mount(type="bind", source="/a", destination="/b")),
        state=State(status=Status.EXITED),
    )  # fmt: skip
    return apply(made, ContainerCreated(container))


def test_a_volume_in_use_names_its_users() -> None:
    assert volumes.used(world()) == {"data"}
    volumes.check_unused(world(), "idle")
    with pytest.raises(Conflict) as caught:
        volumes.check_unused(world(), "data")
    assert caught.value.message == f"remove data: volume is in use - [{'c' * 64}]"
    assert "used by: web" in caught.value.hint


def test_the_world_has_volumes() -> None:
    assert world().volume("idle").created == 2
    with pytest.raises(NotFound, match="get nosuch: no such volume"):
        world().volume("nosuch")
    assert list(apply(world(), VolumeRemoved("idle")).volumes) == ["data"]


def test_another_place_under_the_same_name_is_refused() -> None:
    volume = Volume(name="v", created=1, options={"type": "none", "device": "/a", "o": "bind"})
    volumes.check_same(volume, {})
    volumes.check_same(volume, dict(volume.options))
    with pytest.raises(Conflict, match="create v: conflict: volume name must be unique"):
        volumes.check_same(volume, {"type": "none", "device": "/b", "o": "bind"})
