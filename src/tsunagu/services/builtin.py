"""The built-in image `tiny:latest`: this machine's busybox with all its applets, so that `run tiny` works offline.

It becomes an ordinary image as soon as somebody asks for it and it is absent; nothing else about it is special. The
same busybox always gives the same image id. May import model and the standard library; must never touch the engine's
state.
"""

from __future__ import annotations

import datetime
import io
import os
import subprocess
import tarfile

import msgspec

from tsunagu.model.errors import Unavailable

from .images_archive import host_architecture

REFERENCE = "tiny:latest"
_BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")
_DIRECTORIES = (
    ("bin", 0o755), ("dev", 0o755), ("etc", 0o755), ("home", 0o755), ("proc", 0o555), ("root", 0o700), ("run", 0o755),
    ("sbin", 0o755), ("sys", 0o555), ("tmp", 0o1777), ("usr", 0o755), ("usr/bin", 0o755), ("usr/sbin", 0o755),
    ("var", 0o755), ("var/log", 0o755), ("var/tmp", 0o1777), ("var/www", 0o755),
)  # fmt: skip
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/os-release": 'ID=tiny\nNAME="tiny (busybox)"\nPRETTY_NAME="tiny: the built-in image of Tsunagu"\n',
}


def layer() -> tuple[bytes, str]:
    """Return the tar of the image's one layer and its date (RFC 3339). Blocks for some ten milliseconds.

    Raises Unavailable naming the Debian package when the machine has no usable busybox.
    """
    path = next((p for p in _BUSYBOX if os.access(p, os.X_OK)), "")
    hint = "apt-get install busybox-static, or bring an image in with load or import"
    if not path:
        raise Unavailable("the built-in image tiny needs /bin/busybox, which is missing", hint=hint)
    with open(path, "rb") as file:
        program = file.read()
        changed = int(os.fstat(file.fileno()).st_mtime)
    if b"/ld-linux" in program or b"/ld-musl" in program:
        raise Unavailable(f"the built-in image tiny needs a static busybox, {path} is not", hint=hint)
    listed = subprocess.run([path, "--list-full"], capture_output=True, text=True, check=True, timeout=30).stdout
    applets = sorted({line.strip("/") for line in listed.split()} - {"bin/busybox"})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, mode in _DIRECTORIES:
            tar.addfile(_member(name, changed, tarfile.DIRTYPE, mode))
        _add_file(tar, "bin/busybox", program, changed, 0o755)
        for name, text in _FILES.items():
            _add_file(tar, name, text.encode(), changed, 0o644)
        for name in applets:
            member = _member(name, changed, tarfile.SYMTYPE, 0o777)
            member.linkname = "/bin/busybox"
            tar.addfile(member)
    created = datetime.datetime.fromtimestamp(changed, datetime.UTC)
    return out.getvalue(), created.strftime("%Y-%m-%dT%H:%M:%SZ")


def config(diff_id: str, created: str) -> bytes:
    """Return the image configuration for the layer `diff_id`."""
    return msgspec.json.encode(
        {
            "architecture": host_architecture(),
            "config": {
                "Cmd": ["sh"],
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "WorkingDir": "/",
            },
            "created": created,
            "history": [{"created": created, "created_by": "tsunagu: busybox of this machine and its applets"}],
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    )


def _member(name: str, changed: int, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, changed
    return member


def _add_file(tar: tarfile.TarFile, name: str, data: bytes, changed: int, mode: int) -> None:
    member = _member(name, changed, tarfile.REGTYPE, mode)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
