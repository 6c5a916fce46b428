"""Builds the layers of the test images: busybox by hand, Debian by mmdebstrap, the others as overlays on their parents.

May import the standard library and `recipes`. It works in the cache directory only: all mounts are made in a private
mount namespace, so that nothing is left on the host whatever happens.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from images.recipes import EXCLUDED_PATHS, Layer

# Layers are the same bytes for the same content: one date for every file.
EPOCH = 1735689600

# What building leaves behind and no image needs. Paths are relative to the layer.
NOT_IN_LAYER = (
    "./dev/*",
    "./proc/*",
    "./sys/*",
    "./tmp/*",
    "./run/*",
    "./etc/resolv.conf",
    "./etc/hostname",
    "./var/lib/apt/lists/*",
    "./var/cache/*",
    "./var/log/*.log",
    "./var/log/apt/*",
    "./var/lib/dpkg/*-old",
)


class BuildFailed(Exception):
    """A build step failed; the message holds the command's last lines."""


def run(*command: str, stdin: str | None = None) -> str:
    """Run a command and return its standard output; a failure raises BuildFailed with what it printed."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    done = subprocess.run(
        command,
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
        raise BuildFailed(f"{shlex.join(command[:6])} … ended with {done.returncode}:\n{tail}")
    return done.stdout


def codename() -> str:
    """The Debian release of this machine, for example bookworm."""
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise BuildFailed("no VERSION_CODENAME in /etc/os-release: the images are built on Debian")


def debian_sources() -> list[str]:
    """The machine's own Debian sources as one-line entries; whatever mirror it uses, the images use too."""
    template = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    for is_second in (False, True):
        if is_second:
            run("apt-get", "update", "-qq")
        out = run("apt-get", "indextargets", "--format", template, "Created-By: Packages")
        rows = [line.split("|") for line in out.splitlines()]
        sources = [f"deb {uri} {release} {part}" for origin, uri, release, part in rows if origin == "Debian"]
        if sources:
            return sorted(set(sources))
    raise BuildFailed("apt knows no Debian archive on this machine (apt-get indextargets names none)")


def build_busybox(directory: Path) -> None:
    """A root file system of busybox and its applets, as small as the image it stands in for."""
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        raise BuildFailed("busybox is missing: apt-get install busybox-static")
    for name in ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "etc", "root", "var/log", "home", "mnt"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    for name in ("proc", "sys", "dev", "run", "tmp"):
        (directory / name).mkdir()
    (directory / "tmp").chmod(0o1777)
    (directory / "root").chmod(0o700)
    shutil.copyfile(busybox, directory / "bin/busybox")
    (directory / "bin/busybox").chmod(0o755)
    for applet in run(str(busybox), "--list-full").split():
        link = directory / applet
        if link.name != "busybox":
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/bin/busybox")
    (directory / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    )
    (directory / "etc/group").write_text(
        "root:x:0:root\ndaemon:x:1:\ntty:x:5:\nwheel:x:10:root\nusers:x:100:\nnogroup:x:65534:\n"
    )
    (directory / "etc/os-release").write_text('ID=busybox\nNAME="busybox test image"\n')


def build_debian(directory: Path) -> None:
    """A minimal Debian of the machine's own release; its package lists stay, so that layers over it need no update."""
    run(
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--skip=cleanup/apt/lists,cleanup/apt/cache",
        # usr-is-merged instead of usrmerge, which would bring all of perl
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        "--include=usr-is-merged",
        *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED_PATHS),
        "--dpkgopt=force-unsafe-io",
        '--aptopt=APT::Install-Recommends "false"',
        codename(),
        str(directory),
        "-",
        stdin="\n".join(debian_sources()) + "\n",
    )
    for name in os.listdir(directory / "dev"):
        remove(directory / "dev" / name)


def build_over(layer: Layer, parents: list[Path], directory: Path) -> None:
    """Install packages, write files and run the set-up of `layer` over its parents; `directory` gets the difference."""
    work, merged = directory.with_name(directory.name + ".work"), directory.with_name(directory.name + ".merged")
    for path in (directory, work, merged):
        path.mkdir(parents=True)
    lower = ":".join(str(path) for path in reversed(parents))
    try:
        script = _install_script(layer, lower, directory, work, merged)
        run("unshare", "--mount", "--propagation", "private", "sh", "-eu", "-c", script)
    finally:
        remove(work)
        remove(merged)
    _overlay_to_layer(directory)


def _install_script(layer: Layer, lower: str, upper: Path, work: Path, merged: Path) -> str:
    quoted = shlex.quote(str(merged))
    lines = [
        f"mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} {quoted}",
        f"cd {quoted}",
    ]
    for path, mode, text in layer.files:
        target = "." + path
        lines += [
            f"mkdir -p {shlex.quote(os.path.dirname(target))}",
            f"printf %s {shlex.quote(text)} > {shlex.quote(target)}",
            f"chmod {mode:o} {shlex.quote(target)}",
        ]
    if layer.packages or layer.setup:
        install = shlex.join(("apt-get", "install", "-y", "-qq", "--no-install-recommends", *layer.packages))
        inside = "set -eu\nexport DEBIAN_FRONTEND=noninteractive LC_ALL=C\n"
        if layer.packages:
            inside += f"{install} || {{ apt-get update -qq; {install}; }}\n"
        inside += layer.setup
        lines += [
            "mount -t proc proc ./proc",
            "mount --rbind /dev ./dev",
            "touch ./etc/resolv.conf",
            "mount --bind /etc/resolv.conf ./etc/resolv.conf",
            # no service may start while packages are being configured
            "printf '#!/bin/sh\\nexit 101\\n' > ./usr/sbin/policy-rc.d",
            "chmod 755 ./usr/sbin/policy-rc.d",
            f"chroot . sh -c {shlex.quote(inside)}",
            "rm -f ./usr/sbin/policy-rc.d",
        ]
    return "\n".join(lines)


def _overlay_to_layer(directory: Path) -> None:
    """Turn overlayfs's marks of deletion into the image format's (a 0:0 device becomes `.wh.name`)."""
    for parent, directories, files in os.walk(directory):
        here = Path(parent)
        for name in files:
            status = os.lstat(here / name)
            if (status.st_mode & 0o170000) == 0o020000 and status.st_rdev == 0:
                (here / name).unlink()
                (here / f".wh.{name}").touch()
        for name in directories:
            path = here / name
            if not path.is_symlink() and "trusted.overlay.opaque" in os.listxattr(path, follow_symlinks=False):
                (path / ".wh..wh..opq").touch()


def write_layer(directory: Path, target: Path) -> None:
    """Write a layer's tar: sorted, numeric owners, file capabilities kept, one date."""
    run(
        "tar",
        "--create",
        f"--file={target}",
        f"--directory={directory}",
        "--sort=name",
        "--numeric-owner",
        "--format=posix",
        "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
        f"--mtime=@{EPOCH}",
        "--xattrs",
        "--xattrs-include=security.capability",
        *(f"--exclude={pattern}" for pattern in NOT_IN_LAYER),
        ".",
    )


def remove(path: Path) -> None:
    """Remove a file or a tree; no error when it is gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
