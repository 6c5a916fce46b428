"""What lies on disk for one container: its directory, the files bound over /etc, the OCI bundle, the rootfs mount."""

from __future__ import annotations

import asyncio
import os
import shutil

import msgspec

from tsunagu.kernel.accounts import resolve_user
from tsunagu.model.container import Container
from tsunagu.model.errors import InvalidParameter, KernelFailure
from tsunagu.model.world import World
from tsunagu.rules import names
from tsunagu.wire import oci

from .engine import Engine
from .images import Images


class Bundles:
    """Directories: `<root>/containers/<id>` survives a reboot, `<run_dir>/bundles/<id>` does not."""

    def __init__(self, engine: Engine, images: Images, host_resolv_conf: str = "/etc/resolv.conf") -> None:
        self._instance = engine.instance
        self._images = images
        self._host_resolv_conf = host_resolv_conf
