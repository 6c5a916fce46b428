"""Which images an archive holds: docker save old and new, OCI layouts, platforms, names; and every way to be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsunagu.model.errors import EngineError, InvalidParameter, NotSupported
from tsunagu.services.images_archive import Archive, Found, host_architecture, read_images
from tsunagu.testing.archives import config, digest, files, hard_link, layout, member, saved, symlink, tar

LAYER = files({"hello": b"hello"})
OTHER = files({"other": b"other"})
CONFIG = config([LAYER])
HERE = {"os": "linux", "architecture": host_architecture()}
ELSEWHERE = {"os": "linux", "architecture": "mips64le"}
NAME = "org.opencontainers.image.ref.name"
FULL = "io.containerd.image.name"


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], list[Found]]:
    def read(data: bytes) -> list[Found]:
        (tmp_path / "upload").write_bytes(data)
        archive = Archive(str(tmp_path / "upload"))
        try:
            found = read_images(archive)
            for image in found:
                for layer in image.layers:
                    assert archive.source(layer.member).read(1)
            return found
        finally:
            archive.close()

    return read


Read = Callable[[bytes], list[Found]]


@pytest.mark.parametrize("is_old", [True, False])
def test_docker_save(read: Read, is_old: bool) -> None:
    both = config([LAYER, OTHER])
    one, two = read(
        saved([(["a:1", "docker.io/library/b:2"], [LAYER], CONFIG), ([], [LAYER, OTHER], both)], is_old=is_old)
    )
    assert one.tags == ["a:1", "b:2"] and one.config == CONFIG and one.diff_ids == (digest(LAYER),)
    assert two.tags == [] and two.diff_ids == (digest(LAYER), digest(OTHER))
    assert all(bool(blob.digest) != is_old for blob in two.layers)


def test_layers_may_be_links_to_each_other(read: Read) -> None:
    listing = [
        {"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["one/layer.tar", "two/layer.tar", "three/layer.tar"]}
    ]
    data = tar(
        member("one/layer.tar", LAYER),
        symlink("two/layer.tar", "../one/layer.tar"),
        hard_link("three/layer.tar", "one/layer.tar"),
        member("./c.json", config([LAYER] * 3)),
        member("manifest.json", json.dumps(listing).encode()),
    )
    assert read(data)[0].diff_ids == (digest(LAYER),) * 3


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("annotations", "tags"),
    [
        ({FULL: "docker.io/library/alpine:3", NAME: "3"}, ["alpine:3"]),
        ({NAME: "registry.example:5000/team/app:v1"}, ["registry.example:5000/team/app:v1"]),
        ({NAME: "team/app"}, ["team/app:latest"]),
        ({NAME: "latest"}, []),
        ({}, []),
    ],
)
def test_oci_layout_and_its_names(read: Read, annotations: dict[str, str], tags: list[str], nested: bool) -> None:
    (image,) = read(layout([(annotations, [LAYER], CONFIG)], is_gzipped=True, nested=nested))
    assert image.tags == tags and image.config == CONFIG and image.layers[0].digest


def test_the_machines_own_platform_is_chosen(read: Read) -> None:
    other = config([OTHER])
    for nested in (False, True):
        images: list[Any] = [({NAME: "a:1"}, [OTHER], other), ({NAME: "a:1"}, [LAYER], CONFIG)]
        (image,) = read(layout(images, platforms=[ELSEWHERE, HERE], nested=nested))
        assert image.config == CONFIG and image.tags == ["a:1"]
        attested = layout(images, platforms=[{"os": "unknown", "architecture": "unknown"}, HERE], nested=nested)
        assert read(attested)[0].config == CONFIG
        with pytest.raises(
            InvalidParameter, match=f"no image for linux/{host_architecture()}.*it holds linux/mips64le"
        ):
            read(layout(images, platforms=[ELSEWHERE, ELSEWHERE], nested=nested))


def test_one_manifest_with_two_names_is_one_image(read: Read) -> None:
    (image,) = read(layout([({NAME: "a:1"}, [LAYER], CONFIG), ({NAME: "a:2"}, [LAYER], CONFIG)]))
    assert image.tags == ["a:1", "a:2"]


def _with(name: str, data: bytes | None) -> bytes:
    """A sound archive in which one member is replaced or left out."""
    names = {
        "manifest.json": json.dumps(
            [{"Config": "blobs/sha256/" + digest(CONFIG)[7:], "RepoTags": ["a:1"], "Layers": ["layer.tar"]}]
        ).encode(),
        "blobs/sha256/" + digest(CONFIG)[7:]: CONFIG,
        "layer.tar": LAYER,
    }
    if data is None:
        del names[name]
    else:
        names[name] = data
    return files(names)


def _config_with(**more: Any) -> bytes:
    document = json.dumps({**json.loads(CONFIG), **more}).encode()
    return saved([(["a:1"], [LAYER], document)])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "holds neither manifest.json"),
        (b"no tar at all" * 100, "invalid archive: upload"),
        (files({"etc/passwd": b"root"}), "holds neither manifest.json"),
        (files({"index.json": b"{}"}), "index.json without oci-layout"),
        (_with("manifest.json", b"[]"), "manifest.json lists no image"),
        (_with("manifest.json", b'{"a":1}'), "invalid archive: manifest.json: Expected `array`"),
        (_with("manifest.json", b"[" * 100_000), "invalid archive: manifest.json"),
        (_with("manifest.json", b'[{"Config":"x","RepoTags":["A B"],"Layers":[]}]'), "x is missing"),
        (_with("layer.tar", None), "layer.tar is missing"),
        (_with("blobs/sha256/" + digest(CONFIG)[7:], CONFIG + b" "), "its digest is sha256:"),
        (saved([(["UPPER:x"], [LAYER], CONFIG)]), "must be lowercase"),
        (saved([(["a:1"], [LAYER, OTHER], CONFIG)]), "it has 1 layers, the manifest lists 2"),
        (saved([(["a:1"], [LAYER] * 128, config([LAYER] * 128))]), "max depth exceeded"),
        (_config_with(os="windows"), "cannot load windows image on linux"),
        (_config_with(config={"Env": "A=1"}), "Expected `array | null`, got `str` - at `$.config.Env`"),
        (_config_with(config={"Labels": {"a": 1}}), "$.config.Labels"),
        (_config_with(rootfs={"diff_ids": ["md5:1"]}), "'md5:1' is no sha256 digest"),
        (saved([(["a:1"], [LAYER], b"[]")]), "Expected `object`"),
        (tar(symlink("manifest.json", "loop"), symlink("loop", "manifest.json")), "holds neither"),
        (tar(symlink("manifest.json", "../../../../etc/passwd")), "holds neither"),
        (layout([({}, [LAYER], CONFIG)])[:1700], "the archive ends in the middle"),
    ],
)
def test_what_is_refused(read: Read, data: bytes, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read(data)
    assert sentence in caught.value.message


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"digest": "sha256:" + "a" * 64}, "is missing"),
        ({"digest": "sha512:" + "a" * 128}, "is not supported"),
        ({"digest": "../../../etc/passwd"}, "is not supported"),
        ({"size": 5}, "bytes, not 5"),
    ],
)
def test_descriptors_must_be_true(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    data = CONFIG
    index = {"manifests": [{"mediaType": "x", "digest": digest(data), "size": len(data), **change}]}
    path = tmp_path / "upload"
    members = {"oci-layout": b"{}", "index.json": json.dumps(index).encode(), f"blobs/sha256/{digest(data)[7:]}": data}
    path.write_bytes(files(members))
    with pytest.raises(InvalidParameter, match=sentence):
        read_images(Archive(str(path)))


def test_other_artifacts_are_refused_by_name(tmp_path: Path) -> None:
    for config_type, layer_type, kind in (
        ("application/vnd.cncf.helm.config.v1+json", "x", InvalidParameter),
        ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+encrypted", NotSupported),
    ):
        manifest = json.dumps(
            {
                "config": {"mediaType": config_type, "digest": digest(CONFIG), "size": len(CONFIG)},
                "layers": [{"mediaType": layer_type, "digest": digest(LAYER), "size": len(LAYER)}],
            }
        ).encode()
        index = {"manifests": [{"digest": digest(manifest), "size": len(manifest)}]}
        path = tmp_path / "upload"
        path.write_bytes(
            files(
                {
                    "oci-layout": b"{}",
                    "index.json": json.dumps(index).encode(),
                    **{f"blobs/sha256/{digest(d)[7:]}": d for d in (manifest, CONFIG, LAYER)},
                }
            )
        )
        with pytest.raises(EngineError) as caught:
            read_images(Archive(str(path)))
        assert type(caught.value) is kind
