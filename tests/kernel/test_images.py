"""Images as users handle them: load, find, tag, remove, prune, save, import; Docker's words; refusals leave nothing."""

# ruff: noqa: ASYNC221 (a test may block its own loop)

from __future__ import annotations

import asyncio
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zstandard
from stores import BASE, BOTH, BOTH_ID, CONFIG, ID, MORE, chunks, items, load, on_disk, opened, run, save

from tsunagu.model.errors import InvalidParameter, NotFound, Unavailable
from tsunagu.model.image import Image
from tsunagu.services.images import Images
from tsunagu.testing.archives import config, digest, files, layout, member, saved, tar

pytestmark = pytest.mark.root

NAME = "org.opencontainers.image.ref.name"

FORMS: dict[str, tuple[bytes, list[str]]] = {
    "docker": (saved([(["a:1"], [BASE], CONFIG)]), ["Loaded image: a:1\n"]),
    "docker-old": (saved([(["a:1"], [BASE], CONFIG)], is_old=True), ["Loaded image: a:1\n"]),
    "docker-gzip": (gzip.compress(saved([(["a:1"], [BASE], CONFIG)])), ["Loaded image: a:1\n"]),
    "docker-zstd": (zstandard.compress(saved([(["a:1"], [BASE], CONFIG)])), ["Loaded image: a:1\n"]),
    "docker-xz": (lzma.compress(saved([(["a:1"], [BASE], CONFIG)])), ["Loaded image: a:1\n"]),
    "oci": (layout([({NAME: "a:1"}, [BASE], CONFIG)]), ["Loaded image: a:1\n"]),
    "oci-gzip-layers": (layout([({NAME: "a:1"}, [BASE], CONFIG)], is_gzipped=True), ["Loaded image: a:1\n"]),
    "no-name": (layout([({}, [BASE], CONFIG)], is_gzipped=True, nested=True), [f"Loaded image ID: {ID}\n"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_load_find_mount(tmp_path: Path, form: str) -> None:
    data, lines = FORMS[form]

    async def check(images: Images) -> None:
        assert await load(images, data) == lines
        image = images.find(ID[7:19])
        assert image is images.find(ID) is images.find(ID[7:]) and images.all() == [image]
        assert image.size == 5005 and image.run["Cmd"] == ["sh"] and image.diff_ids == (digest(BASE),)
        assert image.tags == (("a:1",) if form != "no-name" else ()) and image.digests == ()
        root = Path(await images.storage.mount_rootfs("c1", image.diff_ids))
        assert (root / "etc/hello").read_bytes() == b"hello"

    run(tmp_path, check)


def test_everything_is_known_again_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as images:
            await load(images, saved([(["a:1", "b:2"], [BASE, MORE], BOTH), ([], [BASE], CONFIG)]))
            before = sorted(images.all(), key=lambda i: i.id)
        async with opened(tmp_path) as images:
            assert sorted(images.all(), key=lambda i: i.id) == before
            assert images.find("b:2").id == BOTH_ID

    asyncio.run(main())


def test_a_damaged_image_is_dropped_at_start_and_can_be_loaded_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as images:
            await load(images, saved([(["a:1"], [BASE], CONFIG), (["b:1"], [BASE, MORE], BOTH)]))
        (tmp_path / "root/blobs/sha256" / BOTH_ID[7:]).write_bytes(b"{}")
        async with opened(tmp_path) as images:
            assert [i.tags for i in images.all()] == [("a:1",)]
            await load(images, saved([(["b:1"], [BASE, MORE], BOTH)]))
            assert images.find("b:1").id == BOTH_ID

    asyncio.run(main())


@pytest.mark.parametrize(
    ("word", "error", "sentence"),
    [
        ("nosuchimage", NotFound, "No such image: nosuchimage:latest"),
        ("nosuch:x", NotFound, "No such image: nosuch:x"),
        ("reg.example/a/b", NotFound, "No such image: reg.example/a/b:latest"),
        ("sha256:abcdef", NotFound, "No such image: sha256:abcdef"),
        ("f" * 64, NotFound, "No such image: sha256:" + "f" * 64),
        ("deadbeef", NotFound, "No such image: deadbeef:latest"),
        ("UPPER", InvalidParameter, "invalid reference format: repository name (UPPER) must be lowercase"),
    ],
)
def test_what_cannot_be_found(tmp_path: Path, word: str, error: type[Exception], sentence: str) -> None:
    async def check(images: Images) -> None:
        with pytest.raises(error) as caught:
            images.find(word)
        assert str(caught.value) == sentence

    run(tmp_path, check)


EVIL = files({"../../evil": b"x"})
WRONG = {
    "lying layer": saved([(["a:1"], [BASE], CONFIG)], is_old=True).replace(
        b"hello" + bytes(507), b"hullo" + bytes(507)
    ),
    "lying blob": saved([(["a:1"], [BASE], CONFIG)]).replace(b"hello" + bytes(507), b"hullo" + bytes(507)),
    "escape": saved([(["a:1"], [EVIL], config([EVIL]))]),
    "second of two": saved([(["a:1"], [BASE], CONFIG), (["b:1"], [MORE], config([MORE], {"Env": 1}))]),
    "second layer no tar": saved([(["a:1"], [BASE, b"junk" * 300], config([BASE, b"junk" * 300]))]),
    "cut": saved([(["a:1"], [BASE], CONFIG)])[:4000],
    "cut gzip": gzip.compress(saved([(["a:1"], [os.urandom(9999)], CONFIG)]))[:5000],
    "empty": b"",
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_archive_leaves_nothing(tmp_path: Path, what: str) -> None:
    async def check(images: Images) -> None:
        before = on_disk(tmp_path)
        with pytest.raises(InvalidParameter):
            await load(images, WRONG[what])
        assert images.all() == []
        await images.close()  # what is thrown away goes in the background
        assert on_disk(tmp_path) == before == set()

    run(tmp_path, check)


def test_a_client_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    async def check(images: Images) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield saved([(["a:1"], [BASE], CONFIG)])[:3000]
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            async for _ in images.load(broken()):
                pass
        big = tar(*(member(f"f{i}", os.urandom(20_000)) for i in range(300)))
        task = asyncio.ensure_future(load(images, saved([(["a:1"], [big], config([big]))])))
        while not any(name.startswith("layer-") for name in os.listdir(tmp_path / "root/tmp")):
            await asyncio.sleep(0.001)
            assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await images.close()
        assert on_disk(tmp_path) == set() and images.all() == []

    run(tmp_path, check)


def test_layers_are_shared_and_loads_at_once_agree(tmp_path: Path) -> None:
    async def check(images: Images) -> None:
        one, two = saved([(["a:1"], [BASE, MORE], BOTH)]), layout([({NAME: "b:1"}, [BASE], CONFIG)], is_gzipped=True)
        await asyncio.gather(*(load(images, data) for data in (one, two) * 4))
        assert {i.id: i.tags for i in images.all()} == {ID: ("b:1",), BOTH_ID: ("a:1",)}
        assert len(os.listdir(tmp_path / "root/layers")) == 2
        await images.storage.close()
        assert os.listdir(tmp_path / "root/tmp") == []

    run(tmp_path, check)


def test_a_tag_that_moves_leaves_a_dangling_image(tmp_path: Path) -> None:
    async def check(images: Images) -> None:
        await load(images, saved([(["a:latest"], [BASE], CONFIG)]))
        assert await load(images, saved([(["a:latest"], [BASE, MORE], BOTH)])) == [
            f"The image a:latest already exists, renaming the old one with ID {ID} to empty string\n",
            "Loaded image: a:latest\n",
        ]
        assert {i.id: i.tags for i in images.all()} == {ID: (), BOTH_ID: ("a:latest",)}
        assert await load(images, saved([(["a:latest"], [BASE, MORE], BOTH)])) == ["Loaded image: a:latest\n"]
        await images.tag(ID, "a", "")
        assert images.find("a").id == ID and images.find(BOTH_ID).tags == ()
        await images.tag("a", "localhost:5000/team/a", "v1")
        assert images.find("localhost:5000/team/a:v1").tags == ("a:latest", "localhost:5000/team/a:v1")
        for repo, tag, sentence in (
            ("A", "", "invalid reference format: repository name (A) must be lowercase"),
            ("a", "b/c", "invalid reference format"),
            ("a@" + ID, "", "refusing to create a tag with a digest reference"),
        ):
            with pytest.raises(InvalidParameter) as caught:
                await images.tag("a", repo, tag)
            assert caught.value.message == sentence
        with pytest.raises(NotFound, match="No such image: nosuch:latest"):
            await images.tag("nosuch", "x", "")

    run(tmp_path, check)


def test_history(tmp_path: Path) -> None:
    steps = [
        {"created": "2024-01-01T00:00:00Z", "created_by": "ADD base"},
        {"created": "2024-01-02T00:00:00Z", "created_by": 'CMD ["x"]', "empty_layer": True},
        {"created": "2024-01-03T00:00:00.5+01:00", "created_by": "ADD more", "comment": "buildkit"},
    ]
    document = config([BASE, MORE], history=steps)

    async def check(images: Images) -> None:
        await load(images, saved([(["a:1"], [BASE, MORE], document)]))
        plain = {"Id": "<missing>", "Tags": None, "Size": 0, "Comment": ""}
        top = {"Id": digest(document), "Tags": ["a:1"], "Size": 4000, "Comment": "buildkit"}
        assert images.history("a:1") == [
            {**top, "Created": 1704236400, "CreatedBy": "ADD more"},
            {**plain, "Created": 1704153600, "CreatedBy": 'CMD ["x"]'},
            {**plain, "Created": 1704067200, "CreatedBy": "ADD base", "Size": 5005},
        ]

    run(tmp_path, check)


def test_save_and_load_again(tmp_path: Path) -> None:
    """Also layers that overwrite their own entries, and a layer that occurs twice."""
    odd = tar(member("f", b"1" * 999), member("f", b"2"), member("d/"), member("d/x", b"x"))
    document = config([BASE, odd, BASE])

    async def main() -> None:
        async with opened(tmp_path / "one") as images:
            await load(images, saved([(["a:1", "a:2", "b:1"], [BASE, odd, BASE], document), (["c:1"], [BASE], CONFIG)]))
            data = await save(images, "a", "c:1")
            assert data == await save(images, "a:1", "a:2", "c:1") != await save(images, digest(document))
            with pytest.raises(NotFound, match="No such image: nosuch:latest"):
                images.save(["nosuch"])
            await images.tag("c:1", "a", "3")
            both = await save(images, "a")
        async with opened(tmp_path / "two") as images:
            assert await load(images, data) == [f"Loaded image: {t}\n" for t in ("a:1", "a:2", "c:1")]
            assert images.find("a:1").id == digest(document) and images.find("c:1").id == ID
            assert await save(images, "a", "c:1") == data
            assert await load(images, both) == [f"Loaded image: a:{n}\n" for n in (1, 2, 3)]
            assert images.find("a:3").id == ID and len(images.all()) == 2
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert len(archive.getnames()) == len(set(archive.getnames()))
            index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
        names = [d["annotations"]["io.containerd.image.name"] for d in index["manifests"]]
        assert names == ["docker.io/library/a:1", "docker.io/library/a:2", "docker.io/library/c:1"]

    asyncio.run(main())


def test_damage_on_disk_is_noticed_by_save(tmp_path: Path) -> None:
    async def check(images: Images) -> None:
        await load(images, saved([(["a:1"], [BASE], CONFIG)]))
        (file,) = (tmp_path / "root/layers").glob("*/diff/etc/hello")
        file.write_bytes(b"hullo")
        with pytest.raises(Exception, match="is damaged on disk"):
            await save(images, "a:1")

    run(tmp_path, check)


def test_skopeo_reads_what_we_save_and_we_load_what_skopeo_writes(tmp_path: Path) -> None:
    def skopeo(*words: str) -> str:
        done = subprocess.run(["skopeo", "--insecure-policy", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def check(images: Images) -> None:
        await load(images, saved([(["a:1"], [BASE, MORE], BOTH), (["b:1"], [BASE], CONFIG)]))
        path = tmp_path / "saved.tar"
        path.write_bytes(await save(images, "a:1", "b:1"))
        seen = json.loads(skopeo("inspect", f"docker-archive:{path}:docker.io/library/a:1"))
        assert seen["Layers"] == [digest(BASE), digest(MORE)] and seen["Labels"] == {"who": "me"}
        for transport, name in (("docker-archive", "a:9"), ("oci-archive", "a:9")):
            copy = tmp_path / f"{transport}.tar"
            skopeo("copy", f"docker-archive:{path}:a:1", f"{transport}:{copy}:{name}")
            assert (await load(images, copy.read_bytes()))[-1] == "Loaded image: a:9\n"
            assert images.find("a:9").diff_ids == (digest(BASE), digest(MORE)) and images.find("a:9").run["Cmd"] == [
                "x"
            ]
        skopeo("copy", "--dest-compress-format", "zstd", f"docker-archive:{path}:a:1", f"oci:{tmp_path}/layout:a:zstd")
        packed = subprocess.run(["tar", "-C", str(tmp_path / "layout"), "-c", "."], capture_output=True, check=True)
        assert b"tar+zstd" in packed.stdout
        assert (await load(images, packed.stdout))[-1] == "Loaded image: a:zstd\n"
        assert images.find("a:zstd").diff_ids == (digest(BASE), digest(MORE))
        single = tmp_path / "single.tar"
        single.write_bytes(await save(images, "b:1"))
        assert json.loads(skopeo("inspect", f"docker-archive:{single}"))["Layers"] == [digest(BASE)]

    run(tmp_path, check)


def test_import(tmp_path: Path) -> None:
    async def check(images: Images) -> None:
        image = await images.import_rootfs(
            chunks(gzip.compress(BASE)), "mine", "", "from nowhere", ['CMD ["x"]', "ENV A=1", "EXPOSE 80"]
        )
        assert (
            image.tags == ("mine:latest",) and image.diff_ids == (digest(BASE),) and image.id == images.find("mine").id
        )
        assert image.run == {"Cmd": ["x"], "Env": ["A=1"], "ExposedPorts": {"80/tcp": {}}}
        assert image.config["comment"] == "from nowhere"
        nameless = await images.import_rootfs(chunks(BASE), "", "", "", [])
        assert nameless.tags == () and len(os.listdir(tmp_path / "root/layers")) == 1
        for data, changes, sentence in (
            (BASE, ["RUN x"], "RUN is not a valid change command"),
            (b"no tar" * 999, [], "invalid archive: the root file system"),
            (BASE[:3000], [], "the archive ends in the middle"),
        ):
            with pytest.raises(InvalidParameter, match=sentence):
                await images.import_rootfs(chunks(data), "bad", "", "", changes)
        with pytest.raises(NotFound):
            images.find("bad")

    run(tmp_path, check)


def test_tiny_is_made_when_asked_for_and_is_an_ordinary_image(tmp_path: Path) -> None:
    async def check(images: Images) -> None:
        assert images.all() == []
        with pytest.raises(NotFound):
            await images.ensure("alpine")
        made = await asyncio.gather(*(images.ensure(w) for w in ("tiny", "tiny:latest", "docker.io/library/tiny")))
        assert made[0] is made[1] is made[2] and images.all() == [made[0]]
        image: Image = made[0]
        root = await images.storage.mount_rootfs("c1", image.diff_ids)
        said = subprocess.run(
            ["chroot", root, "sh", "-c", "id -un; ls /bin/ls; stat -c %a /tmp"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout == "root\n/bin/ls\n1777\n" and image.run["Cmd"] == ["sh"]
        await images.storage.remove_rootfs("c1")
        removed = await images.remove("tiny", force=False, holders={})
        assert removed == items(("Untagged", "tiny:latest"), ("Deleted", image.id), ("Deleted", image.diff_ids[0]))
        with pytest.raises(NotFound):
            images.find("tiny")
        assert (await images.ensure("tiny")).id == image.id

    run(tmp_path, check)


def test_tiny_names_the_package_when_there_is_no_busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsunagu.services.builtin._BUSYBOX", ("/nonexistent/busybox",))

    async def check(images: Images) -> None:
        with pytest.raises(Unavailable, match="busybox-static"):
            await images.ensure("tiny")

    run(tmp_path, check)


def test_events_are_told(tmp_path: Path) -> None:
    async def check(images: Images) -> None:
        told: list[tuple[str, str]] = []
        images.on_event = lambda action, identifier, attributes: told.append((action, attributes.get("name", "")))
        await load(images, saved([(["a:1"], [BASE], CONFIG)]))
        await images.tag("a:1", "b", "")
        await images.remove("b", force=False, holders={})
        await images.remove("a:1", force=False, holders={})
        assert told == [("load", ID), ("tag", "b:latest"), ("untag", ID), ("untag", ID), ("delete", ID)]

    run(tmp_path, check)
