"""Root file systems over many layers: what is seen, what stays, what is left behind, and how long it takes."""

# ruff: noqa: ASYNC221 (a test may block its own loop)
from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tsunagu.kernel import syscalls
from tsunagu.kernel.storage import Storage
from tsunagu.model.errors import InvalidParameter, KernelFailure
from tsunagu.model.instance import Instance
from tsunagu.testing.archives import digest, files, member, tar

pytestmark = pytest.mark.root
Check = Callable[[Storage], Awaitable[None]]


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Storage]:
    """A storage whose containers are all gone at the end, with everything they mounted."""
    storage = Storage(Instance(root=str(path / "data root"), run_dir=str(path / "run")))
    storage.open()
    try:
        yield storage
    finally:
        for container_id in storage.stored() | storage.mounted():
            await storage.remove_rootfs(container_id)
        await storage.close()
        assert str(path) not in Path("/proc/self/mountinfo").read_text()


def run(path: Path, check: Check) -> None:
    async def main() -> None:
        async with opened(path) as storage:
            await check(storage)

    asyncio.run(main())


def add(storage: Storage, *layers: bytes) -> list[str]:
    below: list[str] = []
    for data in layers:
        draft = storage.layers.draft(lambda data=data: io.BytesIO(data), diff_id=digest(data), what="test")  # type: ignore[misc]
        storage.layers.place(draft, below)
        below.append(draft.diff_id)
    return below


BASE = tar(
    member("./", mode=0o755),
    member("etc/", mode=0o755),
    member("etc/a", b"base"),
    member("gone", b"x"),
    member("dir/"),
    member("dir/old", b"old"),
    member("suid", b"x", mode=0o4755),
)
TOP = tar(
    member("etc/a", b"top"), member(".wh.gone"), member("dir/"), member("dir/.wh..wh..opq"), member("dir/new", b"n")
)


def test_layers_changes_and_removal(tmp_path: Path) -> None:
    async def check(storage: Storage) -> None:
        diff_ids = add(storage, BASE, TOP)
        root = Path(await storage.mount_rootfs("c1", diff_ids))
        assert str(root) == storage.merged("c1") == await storage.mount_rootfs("c1")
        assert (root / "etc/a").read_text() == "top" and not (root / "gone").exists()
        assert os.listdir(root / "dir") == ["new"] and os.stat(root / "suid").st_mode & 0o7777 == 0o4755
        (root / "mine").write_text("mine")
        (root / "dir/new").unlink()
        other = Path(await storage.mount_rootfs("c2", diff_ids))
        assert not (other / "mine").exists() and (other / "dir/new").exists()
        assert storage.mounted() == storage.stored() == {"c1", "c2"}
        assert storage.is_mounted("c1") and not storage.is_mounted("c3")

        await storage.unmount_rootfs("c1")
        await storage.unmount_rootfs("c1")
        assert storage.mounted() == {"c2"} and not root.exists()
        again = Path(await storage.mount_rootfs("c1"))
        assert (again / "mine").read_text() == "mine" and os.listdir(again / "dir") == []
        await storage.remove_rootfs("c1")
        await storage.remove_rootfs("c1")
        assert storage.mounted() == storage.stored() == {"c2"}

    run(tmp_path, check)


def test_mounts_outlive_the_storage_that_made_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as first:
            diff_ids = add(first, BASE)
            root = Path(await first.mount_rootfs("c1", diff_ids))
            (root / "mine").write_text("mine")
            async with opened(tmp_path / "other"):
                pass
            second = Storage(Instance(root=str(tmp_path / "data root"), run_dir=str(tmp_path / "run")))
            second.open()
            assert second.mounted() == {"c1"} and list(second.held()) == [tuple(diff_ids)]
            assert [layer.diff_id for layer in second.layers.all()] == diff_ids
            assert await second.mount_rootfs("c1") == str(root) and (root / "mine").read_text() == "mine"
            await second.remove_rootfs("c1")
            await second.close()

    asyncio.run(main())


@pytest.mark.parametrize("count", [0, 1, 100, 127])
def test_many_layers_fit_into_one_mount(tmp_path: Path, count: int) -> None:
    async def check(storage: Storage) -> None:
        layers = [files({f"f{i}": b"%d" % i, "last": b"%d" % i}) for i in range(count)]
        root = Path(await storage.mount_rootfs("c" * 64, add(storage, *layers)))
        assert len(os.listdir(root)) == (count + 1 if count else 0)
        if count:
            assert (root / "last").read_text() == str(count - 1) and (root / "f0").read_text() == "0"
        (root / "writable").write_text("yes")

    run(tmp_path, check)


def test_more_layers_than_can_be_mounted_are_refused(tmp_path: Path) -> None:
    async def check(storage: Storage) -> None:
        with pytest.raises(InvalidParameter, match="max depth exceeded"):
            await storage.mount_rootfs("c1", ["sha256:" + "a" * 64] * 128)
        with pytest.raises(KernelFailure, match="is not on disk"):
            await storage.mount_rootfs("c1", ["sha256:" + "a" * 64])
        with pytest.raises(InvalidParameter, match="invalid container id"):
            await storage.mount_rootfs("../c1", [])
        assert storage.stored() == set()

    run(tmp_path, check)


def test_a_busy_root_is_detached_and_can_come_back(tmp_path: Path) -> None:
    """Somebody who stands in the root file system does not hold up stop, rm or the next start."""

    async def check(storage: Storage) -> None:
        diff_ids = add(storage, BASE)
        root = await storage.mount_rootfs("c1", diff_ids)
        with open(f"{root}/kept open", "w") as file:
            await storage.unmount_rootfs("c1")
            assert storage.mounted() == set()
            file.write("still")
        assert Path(await storage.mount_rootfs("c1"), "kept open").read_text() == "still"

    run(tmp_path, check)


def test_mounts_do_not_reach_other_mount_namespaces(tmp_path: Path) -> None:
    """Where "/" is shared (systemd), a container's root must not appear in namespaces that receive from it."""
    script = f"""
import asyncio, io, sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from test_storage import *
async def main():
    async with opened(Path({str(tmp_path)!r})) as storage:
        diff_ids = add(storage, BASE)
        await storage.mount_rootfs("c1", diff_ids)
        print("mounted", flush=True)
        sys.stdin.readline()
asyncio.run(main())
"""
    # A namespace of its own in which everything is shared, and below it a slave that receives what is shared.
    shared = ["unshare", "--mount", "--propagation", "shared", "--"]
    slave = [
        "unshare",
        "--mount",
        "--propagation",
        "slave",
        "--",
        "sh",
        "-c",
        "echo ready; read x; cat /proc/self/mountinfo",
    ]
    program = (
        "import subprocess, sys\n"
        f"s = subprocess.Popen({slave!r}, stdin=-1, stdout=-1, text=True); s.stdout.readline()\n"
        f"m = subprocess.Popen([sys.executable, '-c', {script!r}], stdin=-1, stdout=-1, text=True)\n"
        "assert m.stdout.readline() == 'mounted\\n'\n"
        "seen = s.communicate('go\\n')[0]\n"
        "own = open('/proc/self/mountinfo').read()\n"
        "m.communicate('end\\n')\n"
        f"assert m.returncode == 0 and 'rootfs/c1 ' in own, own\n"
        "assert 'rootfs/c1 ' not in seen, seen\n"
    )
    done = subprocess.run([*shared, sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_host_cannot_reach_set_user_id_files_of_images(tmp_path: Path) -> None:
    async def check(storage: Storage) -> None:
        root = await storage.mount_rootfs("c1", add(storage, BASE))
        os.chmod(tmp_path, 0o755)
        inside = [f"{tmp_path}/data root/layers", root, storage.upper("c1")]
        for path in inside:
            done = subprocess.run(
                ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "ls", path],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode != 0 and "Permission denied" in done.stderr

    run(tmp_path, check)


def test_what_a_crash_left_is_swept(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as storage:
            add(storage, BASE)
            draft = storage.layers.draft(lambda: io.BytesIO(TOP), diff_id=digest(TOP), what="test")
            Path(storage.temporary("upload")).write_text("half")
            broken = Path(storage.layers.path, "a" * 24, "diff")
            broken.mkdir(parents=True)
            assert os.path.exists(draft.path)
        async with opened(tmp_path) as storage:
            pass
        assert os.listdir(tmp_path / "data root/tmp") == [] and not broken.exists()
        assert [layer.diff_id for layer in storage.layers.all()] == [digest(BASE)]

    asyncio.run(main())


def test_cost_does_not_grow_with_the_number_of_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's table of mounts has a line for each container: nothing on the way to a mount reads it."""

    async def check(storage: Storage) -> None:
        diff_ids = add(storage, BASE, TOP)
        with monkeypatch.context() as patch:
            patch.setattr(Storage, "mounted", None)
            for index in range(60):
                await storage.mount_rootfs(f"c{index}", diff_ids)
                assert storage.is_mounted(f"c{index}")
            for index in range(30):
                await storage.unmount_rootfs(f"c{index}")
                await storage.remove_rootfs(f"c{index}")
        assert storage.mounted() == {f"c{index}" for index in range(30, 60)}

    run(tmp_path, check)


def test_thread_directory_is_its_own() -> None:
    """The mount thread's working directory must not be the process's."""
    before = os.getcwd()

    async def main() -> None:
        def elsewhere() -> str:
            syscalls.leave_shared_directory()
            os.chdir("/proc")
            return os.getcwd()

        with ThreadPoolExecutor(1) as pool:
            assert await asyncio.wrap_future(pool.submit(elsewhere)) == "/proc"

    asyncio.run(main())
    assert os.getcwd() == before
