"""Times images and root file systems: load next to `tar -x` of the same layers, save next to `sha256sum`, mounts.

    python bench/images/run.py [--image NAME] [--containers N]

The floor is measured in the same run, on the same disk. Needs root. Writes bench/results/images.json. May import the
standard library, tsunagu's image services and the test images.
"""

# ruff: noqa: ASYNC221 (a bench may block its own loop)
from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests"))

from images import build
from tsunagu.model.instance import Instance
from tsunagu.services.images import Images
from tsunagu.store.db import Database


async def chunks(path: Path) -> AsyncIterator[bytes]:
    """An upload as the API server gives it on."""
    with path.open("rb") as file:
        while data := file.read(1 << 16):
            yield data


def floor_load(path: Path, directory: Path) -> float:
    """Seconds that GNU tar needs for the archive and then its layers."""
    started = time.perf_counter()
    (directory / "archive").mkdir()
    subprocess.run(["tar", "-xf", path, "-C", directory / "archive"], check=True)
    (image,) = json.loads((directory / "archive/manifest.json").read_text())
    for index, layer in enumerate(image["Layers"]):
        (directory / str(index)).mkdir()
        subprocess.run(
            ["tar", "--xattrs", "-xf", directory / "archive" / layer, "-C", directory / str(index)], check=True
        )
    return time.perf_counter() - started


async def timed(work: Awaitable[Any]) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


async def measure(image: str, containers: int, directory: Path) -> dict[str, float]:
    path = build.ensure((image,))[image]
    size = path.stat().st_size / 1e6
    instance = Instance(root=str(directory / "root"), run_dir=str(directory / "run"))
    (directory / "root").mkdir(mode=0o700)
    images = Images(instance, Database(f"{instance.root}/state.db"))
    await images.open()
    results = {"archive MB": size, "tiny ms": 1000 * await timed(images.ensure("tiny"))}

    async def load() -> None:
        async for _ in images.load(chunks(path)):
            pass

    results["tar -x of the same s"] = await asyncio.to_thread(floor_load, path, directory)
    results["load s"] = await timed(load())
    results["load again s"] = await timed(load())
    loaded = next(i for i in images.all() if i.tags != ("tiny:latest",))
    samples: dict[str, list[float]] = {"prepare": [], "mount": [], "unmount": [], "remove": []}
    storage = images.storage
    names = [f"bench{i}" for i in range(containers)]
    try:
        for name in names:
            samples["prepare"].append(await timed(storage.prepare_rootfs(name, loaded.diff_ids)))
            samples["mount"].append(await timed(storage.mount_rootfs(name)))
    finally:
        for name in names:
            samples["unmount"].append(await timed(storage.unmount_rootfs(name)))
            samples["remove"].append(await timed(storage.remove_rootfs(name)))
    for what, values in samples.items():
        results[f"{what} ms, median"] = 1000 * statistics.median(values)
        results[f"{what} ms, best"] = 1000 * min(values)

    async def save() -> None:
        with (directory / "saved").open("wb") as out:
            async for piece in images.save([loaded.tags[0]]):
                out.write(piece)

    results["save s"] = await timed(save())
    started = time.perf_counter()
    subprocess.run(["sha256sum", directory / "saved"], check=True, stdout=subprocess.DEVNULL)
    results["sha256sum of the same s"] = time.perf_counter() - started
    await images.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--image", default="bench", help="a test image (default: bench)")
    parser.add_argument("--containers", type=int, default=100)
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("mounting needs root")
    directory = Path(tempfile.mkdtemp(prefix="tsunagu-bench-"))
    try:
        results = asyncio.run(measure(options.image, options.containers, directory))
    finally:
        shutil.rmtree(directory)
    for what, value in results.items():
        print(f"{what:28} {value:10.2f}")
    target = TOP / "bench/results/images.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
