"""An engine that is killed while it loads leaves no image, no layer nobody owns, and no temporary file."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import load, on_disk, opened

from tsunagu.testing.archives import config, digest, member, saved, tar

pytestmark = pytest.mark.root

LAYERS = [tar(*(member(f"{i}/f{n}", os.urandom(3000)) for n in range(400))) for i in range(5)]
CONFIG = config(LAYERS)
ARCHIVE = saved([(["a:1"], LAYERS, CONFIG)])
CHILD = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from stores import load, opened
async def main():
    async with opened(Path(sys.argv[2])) as images:
        print("open", flush=True)
        await load(images, Path(sys.argv[3]).read_bytes())
asyncio.run(main())
"""


def _has(pattern: str, count: int = 1) -> Callable[[Path], bool]:
    return lambda root: len(list(root.glob(pattern))) >= count


MOMENTS = {
    "while the upload is written": _has("tmp/upload-*"),
    "while the first layer is unpacked": _has("tmp/layer-*/diff/*"),
    "while the fourth layer is unpacked": _has("tmp/layer-*", 4),
    "when a layer is in place": _has("layers/*/layer.json"),
    "when all layers are in place": _has("layers/*/layer.json", len(LAYERS)),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_while_loading(tmp_path: Path, moment: str) -> None:
    upload = tmp_path / "upload.tar"
    upload.write_bytes(ARCHIVE)
    words = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path), str(upload)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "open\n"
        deadline = time.monotonic() + 60
        while not MOMENTS[moment](tmp_path / "root"):
            if child.poll() is not None or time.monotonic() > deadline:
                break  # it was faster than this test could look: then the image must be whole
        child.send_signal(signal.SIGKILL)

    async def check() -> None:
        async with opened(tmp_path) as images:
            if images.all():
                assert images.find("a:1").id == digest(CONFIG) and len(images.storage.layers.all()) == len(LAYERS)
            else:
                assert images.storage.layers.all() == []
            assert (await load(images, ARCHIVE))[-1] == "Loaded image: a:1\n"
            root = Path(await images.storage.mount_rootfs("c1", images.find("a:1").diff_ids))
            assert all(len(os.listdir(root / str(i))) == 400 for i in range(len(LAYERS)))
        assert not any(name.startswith("tmp/") for name in on_disk(tmp_path))

    asyncio.run(check())
