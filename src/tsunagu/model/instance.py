"""An engine instance: every name it may use in the kernel and on disk follows from its root and run directory.

Two instances never touch each other's interfaces, nft tables, address pools or directories, so that tests, benches and
a second engine can run beside the default one.
"""

from __future__ import annotations

import hashlib

import msgspec

from .settings import Pool, Settings

DEFAULT_ROOT = "/var/lib/tsunagu"
DEFAULT_RUN = "/run/tsunagu"
DEFAULT_SOCKET = "/run/tsunagu/tsunagu.sock"


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """Where one engine lives. `tag` is "" for the default instance, else 4 hex digits of the root's hash.

    `bind_address` is where ports are published that name no address: 0.0.0.0 means all addresses of both families.
    `allows_icc` tells whether containers of the predefined `bridge` network reach each other without a link.
    """

    root: str = DEFAULT_ROOT
    run_dir: str = DEFAULT_RUN
    socket: str = DEFAULT_SOCKET
    bind_address: str = "0.0.0.0"
    allows_icc: bool = True
    settings: Settings = Settings()

    @property
    def tag(self) -> str:
        if self.root == DEFAULT_ROOT and self.run_dir == DEFAULT_RUN:
            return ""
        return hashlib.sha256(f"{self.root}\0{self.run_dir}".encode()).hexdigest()[:4]

    @property
    def nft_table(self) -> str:
        return f"tsunagu_{self.tag}" if self.tag else "tsunagu"

    @property
    def cgroup(self) -> str:
        """Name of the parent cgroup, without a leading slash."""
        return f"tsunagu-{self.tag}" if self.tag else "tsunagu"

    @property
    def default_bridge(self) -> str:
        return f"ts{self.tag}br0" if self.tag else "tsunagu0"

    @property
    def bridge_prefix(self) -> str:
        return f"ts{self.tag}-" if self.tag else "br-"

    @property
    def veth_prefix(self) -> str:
        return f"tv{self.tag}" if self.tag else "veth"

    def bridge_name(self, network_id: str) -> str:
        """Interface name of a network's bridge, at most 15 characters (IFNAMSIZ)."""
        return (self.bridge_prefix + network_id)[:15]

    def veth_name(self, endpoint_id: str) -> str:
        """Interface name of an endpoint's host side, at most 15 characters."""
        return (self.veth_prefix + endpoint_id)[:15] if self.tag else self.veth_prefix + endpoint_id[:11]

    def volume_path(self, name: str) -> str:
        """Where the data of a volume lies on the host."""
        return f"{self.root}/volumes/{name}/_data"

    @property
    def default_subnet(self) -> str:
        """Subnet of the predefined `bridge` network. Docker's own for the default instance."""
        return f"10.{self._octet}.0.0/24" if self.tag else "172.17.0.0/16"

    @property
    def pools(self) -> tuple[Pool, ...]:
        """What networks are cut from, unless set /24s of wide prefixes: hundreds of networks fit (Docker's hold 31)."""
        if self.settings.pools:
            return self.settings.pools
        if self.tag:
            return (Pool(f"10.{self._octet}.0.0/16"),)
        return tuple(map(Pool, ("172.18.0.0/15", "172.20.0.0/14", "172.24.0.0/13", "192.168.0.0/16")))

    @property
    def _octet(self) -> int:
        return 64 + int(self.tag, 16) % 128
