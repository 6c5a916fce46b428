"""An image store of a test's own, and small images to fill it with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tsunagu.model.instance import Instance
from tsunagu.services.images import Images
from tsunagu.store.db import Database
from tsunagu.testing.archives import config, digest, files, member, tar

BASE = tar(member("etc/"), member("etc/hello", b"hello"), member("bin/"), member("bin/x", b"x" * 5000, mode=0o755))
MORE = files({"more": b"more" * 1000})
CONFIG = config([BASE])
BOTH = config([BASE, MORE], {"Cmd": ["x"], "Labels": {"who": "me"}})
ID, BOTH_ID = digest(CONFIG), digest(BOTH)
HOLDER = "c" * 64


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Images]:
    instance = Instance(root=str(path / "root"), run_dir=str(path / "run"))
    os.makedirs(instance.root, mode=0o700, exist_ok=True)
    db = Database(f"{instance.root}/state.db")
    images = Images(instance, db)
    await images.open()
    try:
        yield images
    finally:
        for container_id in images.storage.stored() | images.storage.mounted():
            await images.storage.remove_rootfs(container_id)
        await images.close()
        db.close()


def run(path: Path, check: Callable[[Images], Awaitable[None]]) -> None:
    async def main() -> None:
        async with opened(path) as images:
            await check(images)

    asyncio.run(main())


async def chunks(data: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def load(images: Images, data: bytes) -> list[str]:
    return [line async for line in images.load(chunks(data))]


async def save(images: Images, *words: str) -> bytes:
    return b"".join([piece async for piece in images.save(words)])


def on_disk(path: Path) -> set[str]:
    """What there is under the data root, named by its last two components; the database and temporaries aside."""
    root = path / "root"
    return {
        f"{d.parent.name}/{d.name}" for d in (*root.glob("layers/*"), *root.glob("blobs/sha256/*"), *root.glob("tmp/*"))
    }


def items(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{key: value} for key, value in pairs]
