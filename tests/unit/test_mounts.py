"""rules.mounts: what a container mounts, from every way to ask for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.model.container import Config, Container, HostConfig
from tsunagu.model.errors import EngineError, InvalidParameter, NotSupported
from tsunagu.model.volume import (
    ANONYMOUS,
    BindOptions,
    Mount,
    MountSpec,
    TmpfsOptions,
    VolumeDriver,
    VolumeOptions,
)
from tsunagu.model.world import ContainerCreated, World, apply
from tsunagu.rules import mounts

BIND = {"type": "bind", "source": "/h"}


def plan(config: Config | None = None, world: World | None = None, **host: Any) -> mounts.Plan:
    names = iter(f"{n:064x}" for n in range(100))
    return mounts.plan(world or World(), config or Config(), HostConfig(**host), lambda: next(names))


def spec(**fields: Any) -> MountSpec:
    return MountSpec(**{"target": "/d", **fields})


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a:/b", Mount(type="bind", source="/a", destination="/b", makes_source=True)),
        ("/a/../b//c/:/x/./y/..", Mount(type="bind", source="/b/c", destination="/x", makes_source=True)),
        ("//a:///b", Mount(type="bind", source="/a", destination="/b", makes_source=True)),
        ("/a:/b:ro,z", Mount(type="bind", source="/a", destination="/b", mode="ro,z", is_readonly=True,
                             makes_source=True)),
        ("/a:/b:rslave,bind", Mount(type="bind", source="/a", destination="/b", mode="rslave,bind",
                                    propagation="rslave", is_recursive=False, makes_source=True)),
        ("data:/b", Mount(type="volume", name="data", destination="/b", copies_up=True)),
        ("data:/b:nocopy", Mount(type="volume", name="data", destination="/b", mode="nocopy")),
        ("/b", Mount(type="volume", destination="/b", is_anonymous=True, copies_up=True)),
    ],
)  # fmt: skip
def test_short_form(text: str, mount: Mount) -> None:
    assert mounts.parse(text) == mount


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (":/b", "invalid volume specification: ':/b'"),
        ("", "invalid volume specification: ''"),
        ("/a:", "invalid volume specification: '/a:'"),
        ("/a:ro", "invalid volume specification: '/a:ro'"),
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        ("/a:b", "invalid volume specification: '/a:b': invalid mount path: 'b' mount path must be absolute"),
        ("/a:/", "invalid volume specification: '/a:/': invalid specification: destination can't be '/'"),
        ("/a:/../..", "destination can't be '/'"),
        ("/a:/b:rx", "invalid mode: rx"),
        ("/a:/b:", "invalid mode: "),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:z,Z", "invalid mode: z,Z"),
        ("/a:/b:shared,slave", "invalid mode: shared,slave"),
        ("data:/b:rshared", 'invalid mount config for type "volume": field BindOptions must not be specified'),
        ("a/b:/c", 'create a/b: "a/b" includes invalid characters for a local volume name'),
        ("../a:/c", "includes invalid characters"),
        ("x:/c", "volume name is too short"),
    ],
)
def test_short_form_refusals(text: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        mounts.parse(text)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": "bind", "target": ""}, 'invalid mount config for type "bind": field Target must not be empty'),
        ({"type": "bind"}, "field Source must not be empty"),
        ({**BIND, "target": "d"}, "invalid mount path: 'd' mount path must be absolute"),
        ({**BIND, "target": "/."}, "invalid specification: destination can't be '/'"),
        ({"type": "bind", "source": "h"}, "invalid mount path: 'h' mount path must be absolute"),
        ({**BIND, "volume_options": VolumeOptions()}, "field VolumeOptions must not be specified"),
        ({**BIND, "tmpfs_options": TmpfsOptions()}, "field TmpfsOptions must not be specified"),
        ({**BIND, "bind_options": BindOptions(propagation="x")}, "invalid propagation mode: x"),
        ({"type": "volume", "bind_options": BindOptions()}, "field BindOptions must not be specified"),
        ({"type": "volume", "read_only": True}, "must not set ReadOnly mode when using anonymous volumes"),
        ({"type": "volume", "volume_options": VolumeOptions(subpath="a")},
         "must not set Subpath when using anonymous volumes"),
        ({"type": "volume", "source": "vv", "volume_options": VolumeOptions(subpath="../a")},
         "subpath must be a relative path within the volume"),
        ({"type": "volume", "source": "vv", "volume_options": VolumeOptions(subpath="a/../../b")},
         "subpath must be a relative path within the volume"),
        ({"type": "volume", "source": "vv", "volume_options": VolumeOptions(subpath="/a")},
         "subpath must be a relative path within the volume"),
        ({"type": "tmpfs", "source": "/x"}, "field Source must not be specified"),
        ({"type": "tmpfs", "tmpfs_options": TmpfsOptions(size_bytes=-1)}, "invalid size"),
        ({"type": "npipe"}, 'invalid mount config for type "npipe": mount type unknown'),
        ({"type": ""}, "mount type unknown"),
    ],
)  # fmt: skip
def test_long_form_refusals(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        mounts.mount_of(spec(**fields))
    assert words in caught.value.message


def test_long_form() -> None:
    options = BindOptions(propagation="rslave", non_recursive=True, create_mountpoint=True)
    assert mounts.mount_of(spec(**BIND, read_only=True, bind_options=options)) == Mount(
        type="bind", source="/h", destination="/d", is_readonly=True, propagation="rslave", is_recursive=False,
        makes_source=True,
    )  # fmt: skip
    assert mounts.mount_of(
        spec(type="volume", source="vv", volume_options=VolumeOptions(no_copy=True, subpath="a/b"))
    ) == Mount(type="volume", name="vv", destination="/d", subpath="a/b")
    memory = mounts.mount_of(spec(type="tmpfs", tmpfs_options=TmpfsOptions(size_bytes=1024, mode=0o1777)))
    assert memory == Mount(type="tmpfs", destination="/d", options="mode=1777,size=1024")
    with pytest.raises(NotSupported, match="type image"):
        mounts.mount_of(spec(type="image", source="x"))


def test_declared_and_anonymous_volumes_get_names_and_the_label() -> None:
    made = plan(Config(volumes={"/data": {}, "relative": {}}), mounts=(spec(type="volume"),))
    assert [(m.name[-1], m.destination, m.mode, m.is_anonymous) for m in made.mounts] == [
        ("0", "/d", "z", True), ("1", "/data", "", True), ("2", "/relative", "", True),
    ]  # fmt: skip
    assert all(wanted.labels == {ANONYMOUS: ""} for wanted in made.volumes.values())


def test_what_the_user_mounts_takes_the_place_of_a_declared_volume() -> None:
    config = Config(volumes={"/a": {}, "/b/": {}, "/c": {}})
    made = plan(config, binds=("data:/a",), mounts=(spec(**{**BIND, "target": "/b"}),), tmpfs={"/c": ""})
    assert [(m.type, m.destination) for m in made.mounts] == [("volume", "/a"), ("bind", "/b")]
    assert (made.mounts[0].mode, list(made.volumes)) == ("z", ["data"])


@pytest.mark.parametrize(
    "host",
    [
        {"binds": ("/a:/d", "/b:/d/")},
        {"binds": ("/a:/d",), "mounts": (spec(**BIND),)},
        {"binds": ("/a:/d",), "tmpfs": {"/d": ""}},
        {"mounts": (spec(**BIND), spec(type="tmpfs"))},
    ],
)
def test_one_place_is_mounted_once(host: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match="Duplicate mount point: /d"):
        plan(**host)


def test_volume_options_of_the_long_form_make_the_volume() -> None:
    driver = VolumeDriver(name="local", options={"type": "tmpfs", "device": "tmpfs"})
    options = VolumeOptions(labels={"a": "1"}, driver_config=driver)
    made = plan(mounts=(spec(type="volume", source="mem", volume_options=options),))
    assert made.volumes == {"mem": mounts.Wanted({"a": "1"}, driver.options)}
    unknown = VolumeOptions(driver_config=VolumeDriver(name="nosuch"))
    # not NotFound: a 404 makes Docker's client pull the image and try again
    with pytest.raises(InvalidParameter, match="error looking up volume plugin nosuch"):
        plan(mounts=(spec(type="volume", source="mem", volume_options=unknown),))
    with pytest.raises(InvalidParameter, match="error looking up volume plugin nosuch"):
        plan(binds=("data:/d",), volume_driver="nosuch")


def source_of_volumes() -> World:
    made = (
        Mount(type="volume", name="data", destination="/data", mode="z", copies_up=True),
        Mount(type="bind", source="/h", destination="/conf", is_readonly=True),
        Mount(type="volume", name="0" * 64, destination="/anon", is_anonymous=True),
    )
    container = Container(
        id="a" * 64, name="store", created=1, image_id="i", path="sh", args=(), config=Config(), host=HostConfig(),
        mounts=made,
    )  # fmt: skip
    return apply(World(), ContainerCreated(container))


def test_volumes_from() -> None:
    made = plan(world=source_of_volumes(), volumes_from=("store",))
    assert [(m.destination, m.is_readonly, m.mode, m.copies_up, m.is_anonymous) for m in made.mounts] == [
        ("/data", False, "", False, False), ("/conf", True, "", False, False), ("/anon", False, "", False, True),
    ]  # fmt: skip
    assert made.volumes == {}
    readonly = plan(world=source_of_volumes(), volumes_from=("aaaa:ro",))
    assert all(m.is_readonly for m in readonly.mounts)
    own = plan(world=source_of_volumes(), volumes_from=("store",), binds=("/mine:/data",))
    assert [m.source for m in own.mounts if m.destination == "/data"] == ["/mine"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nosuch", "No such container: nosuch"),
        ("store:rx", 'invalid mode for volumes-from: "rx"'),
        ("store:ro,rw", 'invalid mode for volumes-from: "ro,rw"'),
        (":ro", 'malformed volumes-from specification: ":ro"'),
    ],
)
def test_volumes_from_refusals(text: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        plan(world=source_of_volumes(), volumes_from=(text,))
    assert words in caught.value.message


@pytest.mark.parametrize("destination", ["/proc", "/proc/sys", "/proc/../proc/x", "/proc/self/attr"])
def test_mounts_over_proc_cve_2019_16884(destination: str) -> None:
    """CVE-2019-16884, CVE-2019-19921, CVE-2023-28642: a volume over /proc takes the masks away."""
    for host in ({"binds": (f"/h:{destination}",)}, {"binds": (f"data:{destination}",)}, {"tmpfs": {destination: ""}}):
        with pytest.raises(InvalidParameter, match="cannot be mounted because it is inside /proc"):
            plan(**host)
    with pytest.raises(InvalidParameter, match="inside /proc"):
        plan(Config(volumes={destination: {}}))


@pytest.mark.parametrize("bind", ["/a\0b:/c", "/a:/b\0c", f"/{'a/' * 2048}:/c", f"data:/{'a/' * 2048}"])
def test_paths_that_no_kernel_takes(bind: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid mount path: "):
        plan(binds=(bind,))


def test_what_may_be_mounted_in_proc() -> None:
    assert plan(binds=("/proc:/proc", "/h:/proc/cpuinfo", "/h:/process")).mounts


@given(st.text(max_size=40))
def test_any_text_is_a_mount_or_refused(text: str) -> None:
    try:
        mount = mounts.parse(text)
    except EngineError:
        return
    assert mount.destination.startswith("/") and mount.destination != "/"
    assert ".." not in mount.destination.split("/")
    assert "/" not in mount.name
