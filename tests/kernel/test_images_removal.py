"""rmi and prune in Docker's words; containers keep the layers they stand on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from stores import BASE, BOTH, BOTH_ID, CONFIG, HOLDER, ID, MORE, items, load, on_disk, opened, run

from tsunagu.model.errors import Conflict, NotFound
from tsunagu.model.instance import Instance
from tsunagu.services.images import Images
from tsunagu.testing.archives import digest, saved

pytestmark = pytest.mark.root


def test_rmi(tmp_path: Path) -> None:
    async def check(images: Images) -> None:
        await load(images, saved([(["a:1", "a:2"], [BASE], CONFIG)]))
        with pytest.raises(Conflict) as caught:
            await images.remove(ID[7:19], force=False, holders={})
        assert caught.value.message == (
            f"conflict: unable to delete {ID[7:19]} (must be forced) - image is referenced in multiple repositories"
        )
        assert await images.remove("a:2", force=False, holders={}) == items(("Untagged", "a:2"))
        assert await images.remove("a:1", force=False, holders={}) == items(
            ("Untagged", "a:1"), ("Deleted", ID), ("Deleted", digest(BASE))
        )
        with pytest.raises(NotFound, match="No such image: a:1"):
            await images.remove("a:1", force=False, holders={})
        await images.storage.close()
        assert on_disk(tmp_path) == set()

    run(tmp_path, check)


def test_rmi_by_id_with_force_and_shared_layers(tmp_path: Path) -> None:
    async def check(images: Images) -> None:
        await load(images, saved([(["a:1", "b:1"], [BASE], CONFIG), (["c:1"], [BASE, MORE], BOTH)]))
        assert await images.remove(ID, force=True, holders={}) == items(
            ("Untagged", "a:1"), ("Untagged", "b:1"), ("Deleted", ID)
        )
        assert images.find("c:1").size == 9005
        root = Path(await images.storage.mount_rootfs("c1", images.find("c:1").diff_ids))
        assert (root / "etc/hello").exists() and (root / "more").exists()

    run(tmp_path, check)


@pytest.mark.parametrize("is_running", [True, False])
def test_rmi_of_an_image_in_use(tmp_path: Path, is_running: bool) -> None:
    holders = {ID: (HOLDER, is_running)}
    short, name = HOLDER[:12], ID[7:19]

    async def check(images: Images) -> None:
        await load(images, saved([(["alpine:latest"], [BASE], CONFIG)]))
        with pytest.raises(Conflict) as caught:
            await images.remove("alpine", force=False, holders=holders)
        assert caught.value.message == (
            f'conflict: unable to remove repository reference "alpine" (must force) - '
            f"container {short} is using its referenced image {name}"
        )
        with pytest.raises(Conflict) as caught:
            await images.remove(name, force=False, holders=holders)
        how, state = ("cannot be forced", "running") if is_running else ("must be forced", "stopped")
        assert caught.value.message == (
            f"conflict: unable to delete {name} ({how}) - image is being used by {state} container {short}"
        )
        assert images.find("alpine").tags == ("alpine:latest",)
        if is_running:
            with pytest.raises(Conflict, match="cannot be forced"):
                await images.remove(name, force=True, holders=holders)
            assert await images.remove("alpine", force=True, holders=holders) == items(("Untagged", "alpine:latest"))
            assert images.find(name).tags == ()

    run(tmp_path, check)


def test_a_container_keeps_the_layers_of_an_image_that_is_gone(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as images:
            await load(images, saved([(["a:1"], [BASE, MORE], BOTH)]))
            await images.storage.prepare_rootfs(HOLDER, images.find("a:1").diff_ids)
            removed = await images.remove(BOTH_ID, force=True, holders={BOTH_ID: (HOLDER, False)})
            assert removed == items(("Untagged", "a:1"), ("Deleted", BOTH_ID))
            root = Path(await images.storage.mount_rootfs(HOLDER, images.layers_of(BOTH_ID)))
            assert (root / "more").exists()
            instance = Instance(root=str(tmp_path / "root"), run_dir=str(tmp_path / "run"))
            again = Images(instance, images._db)
            await again.open()
            assert again.all() == [] and again.layers_of(BOTH_ID) == (digest(BASE), digest(MORE))
            assert len(again.storage.layers.all()) == 2
            await again.storage.remove_rootfs(HOLDER)
            assert again.storage.layers.all() == []
            with pytest.raises(NotFound):
                again.layers_of(BOTH_ID)
            await again.close()

    asyncio.run(main())


def test_prune(tmp_path: Path) -> None:
    async def check(images: Images) -> None:
        await load(images, saved([(["a:1"], [BASE], CONFIG), ([], [BASE, MORE], BOTH)]))
        assert await images.prune(dangling_only=True, in_use={BOTH_ID}) == ([], 0)
        removed, freed = await images.prune(dangling_only=True, in_use=())
        assert removed[0] == {"Deleted": BOTH_ID} and freed == 4000 and len(removed) == 2
        removed, freed = await images.prune(dangling_only=False, in_use=())
        assert removed == items(("Untagged", "a:1"), ("Deleted", ID), ("Deleted", digest(BASE))) and freed == 5005
        assert images.all() == []

    run(tmp_path, check)


def test_a_name_that_looks_like_the_beginning_of_an_id_is_a_name(tmp_path: Path) -> None:
    """Docker takes it for the id and refuses; the user meant the tag that `images` shows."""

    async def check(images: Images) -> None:
        await load(images, saved([(["a:1", f"{ID[7:13]}:latest"], [BASE], CONFIG)]))
        assert await images.remove(ID[7:13], force=False, holders={}) == items(("Untagged", f"{ID[7:13]}:latest"))
        assert (await images.remove(ID[7:13], force=False, holders={}))[-2] == {"Deleted": ID}

    run(tmp_path, check)
