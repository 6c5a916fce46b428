"""Volume values: data that outlives containers, and what of it (and of the host) is mounted into one. Pure values.

`Mount` is what the engine acts on and `inspect` shows; `MountSpec` is the long form in which clients ask (`--mount`),
with Docker's JSON names (Engine API 1.51), kept so that inspect gives back what create was told.
"""

from __future__ import annotations

import msgspec

ANONYMOUS = "com.docker.volume.anonymous"  # Docker's label of volumes that nobody gave a name
DRIVER = "local"


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """One named directory. `created` is in nanoseconds since the epoch; `options` say what is mounted there instead."""

    name: str
    created: int
    labels: dict[str, str] = {}
    options: dict[str, str] = {}

    @property
    def is_anonymous(self) -> bool:
        return ANONYMOUS in self.labels


class BindOptions(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeDriver(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    name: str = ""
    options: dict[str, str] = {}


class VolumeOptions(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    no_copy: bool = False
    labels: dict[str, str] = {}
    subpath: str = ""
    driver_config: VolumeDriver | None = None


class TmpfsOptions(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    size_bytes: int = 0
    mode: int = 0
    options: tuple[tuple[str, ...], ...] = ()


class MountSpec(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """One element of `HostConfig.Mounts`."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class Mount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is mounted in a container, decided when it was created.

    `type` is bind, volume or tmpfs. `source` is the host path of a bind, `name` the volume. `mode` is the user's
    word as inspect shows it; `propagation` is "" for the default. `is_anonymous`: nobody named the volume, so it goes
    with `rm -v`. `options` are those of a tmpfs.
    """

    type: str
    destination: str
    source: str = ""
    name: str = ""
    mode: str = ""
    propagation: str = ""
    is_readonly: bool = False
    is_recursive: bool = True
    has_recursive_readonly: bool = True
    is_anonymous: bool = False
    copies_up: bool = False
    makes_source: bool = False
    subpath: str = ""
    options: str = ""
