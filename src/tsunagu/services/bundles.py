"""What lies on disk for one container: its directory, the files bound over /etc, the OCI bundle, the rootfs mount.

`<root>/containers/<id>` survives a reboot (log, hosts, hostname, resolv.conf), `<run_dir>/bundles/<id>` does not.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from tsunagu.kernel import accounts, limits
from tsunagu.kernel.runtime import Runtime
from tsunagu.model.container import Container
from tsunagu.model.errors import InvalidParameter, KernelFailure
from tsunagu.model.process import HostFacts
from tsunagu.model.volume import Mount
from tsunagu.model.world import World
from tsunagu.rules import links, names
from tsunagu.rules.sandboxes import owner_of
from tsunagu.wire import oci, oci_limits

from .engine import Engine
from .images import Images
from .volumes import Volumes

ETC_FILES = ("resolv.conf", "hostname", "hosts")


class Bundles:
    def __init__(
        self,
        engine: Engine,
        images: Images,
        runtime: Runtime,
        volumes: Volumes,
        host_etc: str = "/etc",
        *,
        keeps_link_variables: bool = False,
    ) -> None:
        self._engine = engine
        self._instance = engine.instance
        self._images = images
        self._runtime = runtime
        self.volumes = volumes
        self._host_etc = host_etc
        self._keeps_link_variables = keeps_link_variables
        for parent in (f"{self._instance.root}/containers", f"{self._instance.run_dir}/bundles"):
            os.makedirs(parent, mode=0o700, exist_ok=True)

    def directory(self, container_id: str) -> str:
        """Directory that lives as long as the container."""
        return f"{self._instance.root}/containers/{container_id}"

    def log_path(self, container_id: str) -> str:
        return f"{self.directory(container_id)}/{container_id}-json.log"

    def rootfs(self, container_id: str) -> str | None:
        """Path of the mounted rootfs, or None while it is not mounted."""
        storage = self._images.storage
        return storage.merged(container_id) if storage.is_mounted(container_id) else None

    def facts(self) -> HostFacts:
        """What this host offers to containers."""
        return self._runtime.facts()

    # ---- life

    async def check(self, container: Container) -> None:
        """Refuse, before anything is made, what no bundle could be made of."""
        oci.check(container.host, self._runtime.facts())
        names.hosts_file(container, host_gateway="0.0.0.0")

    async def prepare(self, container: Container) -> None:
        """Make the container's directory and keep its image from being collected."""
        os.makedirs(self.directory(container.id), mode=0o700)
        await self._images.storage.prepare_rootfs(container.id, self._images.find(container.image_id).diff_ids)

    async def mount(self, container: Container) -> str:
        """Mount the rootfs and what the options of volumes ask for; returns the path of the rootfs."""
        await self.volumes.acquire(container)
        return await self._images.storage.mount_rootfs(container.id, self._images.layers_of(container.image_id))

    async def unmount(self, container_id: str) -> None:
        """Unmount the rootfs and drop the bundle; the container's changes stay."""
        await self._images.storage.unmount_rootfs(container_id)
        await self.volumes.release(container_id)
        await asyncio.to_thread(shutil.rmtree, f"{self._instance.run_dir}/bundles/{container_id}", True)

    async def remove(self, container_id: str) -> None:
        """Remove everything a container has on disk. No error when it is gone."""
        await self.unmount(container_id)
        await self._images.storage.remove_rootfs(container_id)
        await asyncio.to_thread(shutil.rmtree, self.directory(container_id), True)

    async def write(self, world: World, container: Container, rootfs: str, netns: str | None) -> str:
        """Write the files of /etc and config.json; returns the bundle's path. `container` has joined its networks.

        Who lives in another one's sandbox has its host name and its files of /etc, the very same ones (Docker).
        """
        owner = owner_of(world, container)
        if owner is container:
            self.write_etc(world, container)
        else:
            config = replace(container.config, hostname=owner.config.hostname, domainname=owner.config.domainname)
            container = replace(container, config=config)
        account = accounts.resolve_user(rootfs, container.config.user, container.host.group_add or ())
        if container.config.working_dir:
            accounts.make_directory(rootfs, container.config.working_dir)
        for mounted in container.mounts:
            _make_source(mounted)
        directory = self.directory(owner.id)
        asked = container.host.limits
        bundle_config = oci.container_config(
            container,
            account=account,
            rootfs=rootfs,
            netns=netns,
            cgroup_parent=self._instance.cgroup,
            facts=self._runtime.facts(),
            sources=self.volumes.sources(container),
            etc_files={f"/etc/{name}": f"{directory}/{name}" for name in ETC_FILES},
            linked=self._link_variables(world, container),
            devices=[
                (device, inside, wanted.cgroup_permissions)
                for wanted in asked.devices
                for device, inside in limits.find_devices(
                    wanted.path_on_host, wanted.path_in_container or wanted.path_on_host
                )
            ],
            block_numbers={path: limits.block_numbers(path) for path in oci_limits.block_paths(asked)},
        )
        bundle = f"{self._instance.run_dir}/bundles/{container.id}"
        os.makedirs(bundle, mode=0o700, exist_ok=True)
        with open(f"{bundle}/config.json", "wb") as file:
            file.write(msgspec.json.encode(bundle_config))
        return bundle

    def _link_variables(self, world: World, container: Container) -> list[str]:
        return links.environment(world, container) if self._keeps_link_variables and container.links else []

    def write_etc(self, world: World, container: Container) -> None:
        """Write resolv.conf, hostname and hosts as Docker does; in place: running containers have them bound."""
        resolv = names.resolv_conf(
            _read(f"{self._host_etc}/resolv.conf"),
            container,
            is_default_bridge=not names.needs_resolver(world, container),
            has_ipv6=any(e.ipv6 for e in container.endpoints),
        )
        self._write_file(container.id, "resolv.conf", resolv)
        self._write_file(container.id, "hostname", f"{container.config.hostname}\n")
        self.write_hosts(world, container)

    def write_hosts(self, world: World, container: Container) -> None:
        """Write the hosts file anew: the container's addresses changed, or those of a container it is linked to."""
        bridge = next((n for n in world.networks.values() if n.is_default_bridge), None)
        gateway = bridge.subnets[0].gateway if bridge and bridge.subnets else ""
        text = names.hosts_file(
            container,
            host_gateway=gateway,
            links=links.hosts_entries(self._engine.world, container) if container.links else (),
            host_text=_read(f"{self._host_etc}/hosts"),
        )
        self._write_file(container.id, "hosts", text)

    def search_domains(self, container_id: str) -> tuple[str, ...]:
        """Return the search list in the container's resolv.conf, as it is now. Raises OSError."""
        with open(f"{self.directory(container_id)}/resolv.conf", errors="replace") as file:
            return tuple(names.parse_resolv_conf(file.read()).search)

    def _write_file(self, container_id: str, name: str, text: str) -> None:
        with open(f"{self.directory(container_id)}/{name}", "w") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)

    async def exec_spec(
        self,
        container: Container,
        *,
        cmd: Sequence[str],
        env: Sequence[str],
        user: str,
        working_dir: str,
        has_tty: bool,
        is_privileged: bool,
        console_size: tuple[int, int] | None,
    ) -> dict[str, Any]:
        """Return the OCI process of an exec; raises InvalidParameter for a user that the container does not have."""
        rootfs = self.rootfs(container.id)
        if rootfs is None:
            raise KernelFailure(f"container {container.id} has no root file system", hint="restart the container")
        who = user or container.config.user
        return oci.exec_process(
            container,
            cmd=cmd,
            account=accounts.resolve_user(rootfs, who, container.host.group_add or ()),
            facts=self._runtime.facts(),
            env=env,
            linked=self._link_variables(self._engine.world, container),
            working_dir=working_dir,
            tty=has_tty,
            is_privileged=is_privileged,
            console_size=console_size or (0, 0),
        )

    # ---- facts

    def mounted(self) -> set[str]:
        """Return the ids of containers whose rootfs is mounted."""
        return self._images.storage.mounted()

    def stored(self) -> set[str]:
        """Return the ids of containers that have something on disk."""
        return set(os.listdir(f"{self._instance.root}/containers")) | self._images.storage.stored()

    async def size(self, container_id: str) -> int:
        """Return the bytes that removing a container gives back: its own layer and its directory."""
        return await asyncio.to_thread(
            lambda: _tree_size(self.directory(container_id)) + _tree_size(self._images.storage.upper(container_id))
        )


def _make_source(mount: Mount) -> None:
    """Make a missing host directory of `-v`, as Docker does; that of `--mount` must be there."""
    source = mount.source
    if mount.type == "bind" and not os.path.lexists(source):
        if not mount.makes_source:
            raise InvalidParameter(f'invalid mount config for type "bind": bind source path does not exist: {source}')
        try:
            os.makedirs(source, mode=0o755, exist_ok=True)
        except OSError as error:
            raise InvalidParameter(f"error while creating mount source path '{source}': {error.strerror}") from error


def _tree_size(path: str) -> int:
    total = 0
    for parent, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(f"{parent}/{name}").st_blocks * 512
            except OSError:
                continue  # removed while we counted
    return total


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
