"""Builds the test images that are missing from the cache and says where each archive is.

    python tests/images/build.py [--cache DIR] [NAME...]

Each archive is `<name>-<key of its recipe>.tar`, with a stable link `<name>.tar` beside it. Needs root (mmdebstrap,
overlayfs). May import the standard library and its neighbours. It must never name a package mirror: the machine's own
apt settings are used.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from images import archive, recipes, rootfs

DEFAULT_CACHE = "/var/cache/tsunagu-images"


def cache_directory() -> Path:
    """Where archives are kept; TSUNAGU_IMAGES overrides it."""
    return Path(os.environ.get("TSUNAGU_IMAGES") or DEFAULT_CACHE)


def ensure(names: tuple[str, ...] = (), *, cache: Path | None = None, verbose: bool = False) -> dict[str, Path]:
    """Archives of the named images, built where missing; keys are archive names (`mysql_8`).

    Without names: every image, and `all`, one archive of everything in which shared layers are written once.
    Raises rootfs.BuildFailed, PermissionError without root when something has to be built, KeyError for an unknown
    name.
    """
    cache = cache or cache_directory()
    release = rootfs.codename()
    groups: dict[str, tuple[recipes.Image, ...]] = {image.file_name: (image,) for image in recipes.IMAGES}
    groups["all"] = recipes.IMAGES
    chosen = {name: groups[name] for name in names} if names else groups
    paths = {name: cache / f"{name}-{recipes.archive_key(images, release)}.tar" for name, images in chosen.items()}
    if all(path.exists() for path in paths.values()):
        return paths
    if os.geteuid() != 0:
        raise PermissionError("building the test images needs root (mmdebstrap and overlayfs mount file systems)")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, images in chosen.items():
            if not paths[name].exists():
                started = time.monotonic()
                temporary = paths[name].with_suffix(".partial")
                archive.write(temporary, [_content(image, cache, release) for image in images])
                temporary.rename(paths[name])
                if verbose:
                    megabytes = paths[name].stat().st_size / 1e6
                    print(f"built {name}: {megabytes:.0f} MB, {time.monotonic() - started:.1f} s", flush=True)
            _link(paths[name], cache / f"{name}.tar")
        _forget_old(cache, release, set(paths.values()))
    return paths


def _content(image: recipes.Image, cache: Path, release: str) -> archive.Content:
    chain = recipes.layer_chain(image.layer)
    layers = tuple((archive.layer_blob(_ensure_layer(layer, cache, release)[1]), _sentence(layer)) for layer in chain)
    config: dict[str, object] = {"Env": list(image.env), "WorkingDir": "/"}
    if image.version_variable:
        tree = _ensure_layer(chain[-1], cache, release)[0]
        version = (tree / "etc/image-version").read_text().strip()
        config["Env"] = [*image.env, f"{image.version_variable}={version}"]
    if image.entrypoint:
        config["Entrypoint"] = list(image.entrypoint)
    if image.cmd:
        config["Cmd"] = list(image.cmd)
    if image.ports:
        config["ExposedPorts"] = {port: {} for port in image.ports}
    if image.stop_signal:
        config["StopSignal"] = image.stop_signal
    architecture = rootfs.run("dpkg", "--print-architecture").strip()
    return archive.Content(image.references, layers, config, architecture)


def _forget_old(cache: Path, release: str, fresh: set[Path]) -> None:
    """Drop archives and layers of recipes that are no more, so that the cache does not grow with every change."""
    layers = {f"{name}-{recipes.layer_key(name, release)}" for name in recipes.LAYERS}
    current = {path.name.rsplit("-", 1)[0] for path in fresh}
    for path in cache.glob("*.tar"):
        if not path.is_symlink() and path not in fresh and path.name.rsplit("-", 1)[0] in current:
            path.unlink()
    for path in (cache / "layers").iterdir():
        if path.name.removesuffix(".tar") not in layers:
            rootfs.remove(path)


def _ensure_layer(layer: recipes.Layer, cache: Path, release: str) -> tuple[Path, Path]:
    """The tree and the tar of one layer, built when missing; parents first."""
    key = recipes.layer_key(layer.name, release)
    tree, tar = cache / "layers" / f"{layer.name}-{key}", cache / "layers" / f"{layer.name}-{key}.tar"
    if tar.exists():
        return tree, tar
    parents = [_ensure_layer(parent, cache, release)[0] for parent in recipes.layer_chain(layer.name)[:-1]]
    tree.parent.mkdir(exist_ok=True)
    # built under a short temporary name first: a build that was interrupted is never mistaken for a layer
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix="new-") as temporary:
        fresh = Path(temporary) / "tree"
        if parents:
            rootfs.build_over(layer, parents, fresh)
        else:
            fresh.mkdir()
            fresh.chmod(0o755)
            {"busybox": rootfs.build_busybox, "debian": rootfs.build_debian}[layer.name](fresh)
        rootfs.write_layer(fresh, Path(temporary) / "tar")
        rootfs.remove(tree)
        fresh.rename(tree)
        (Path(temporary) / "tar").rename(tar)
    return tree, tar


def _sentence(layer: recipes.Layer) -> str:
    packages = f" with {' '.join(layer.packages)}" if layer.packages else ""
    return f"tests/images: layer {layer.name}{packages}"


def _link(archive_path: Path, link: Path) -> None:
    fresh = link.with_suffix(".link")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(archive_path.name)
    fresh.rename(link)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="archive names, for example nginx or mysql_8; default: all")
    parser.add_argument("--cache", type=Path, default=cache_directory())
    parser.add_argument("--json", action="store_true", help="print the paths as JSON")
    arguments = parser.parse_args()
    try:
        paths = ensure(tuple(arguments.names), cache=arguments.cache, verbose=not arguments.json)
    except (rootfs.BuildFailed, PermissionError, subprocess.SubprocessError) as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    except KeyError as error:
        known = ", ".join(image.file_name for image in recipes.IMAGES)
        print(f"build.py: no recipe {error}; there are: {known}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps({name: str(path) for name, path in paths.items()}))
    else:
        for name, path in paths.items():
            print(f"{name}\t{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
