"""Trees of this machine as tar streams and back, for `cp`, with Docker's rules of what is copied under which name.

The archive that comes out of a container is not trusted: its members are written relative to open directories, links
are never followed on the way, and nothing is written outside the destination. May import the standard library.
"""

from __future__ import annotations

import os
import stat
import tarfile

from tsunagu.cli.output import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import NamedTuple
else:
    from collections import namedtuple

_PIECE = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

if TYPE_CHECKING:

    class Place(NamedTuple):
        """One end of a copy. `rebase` is the name that what is copied gets instead of its own, "" for its own."""

        path: str
        exists: bool = True
        is_directory: bool = False
        rebase: str = ""

else:
    Place = namedtuple("Place", "path exists is_directory rebase", defaults=(True, False, ""))


def split_entry(path: str) -> tuple[str, str]:
    """Directory and last name of a path; a path that ends in "/." keeps that as its name."""
    clean = os.path.normpath(path)
    if names_content(path):
        return clean, "."
    above, name = os.path.split(clean)
    return above or ".", name or "/"


def names_content(path: str) -> bool:
    """Whether a path means what is in a directory: it is "." or ends in "/."."""
    return os.path.basename(path) == "."


def means_directory(path: str) -> bool:
    return path.endswith("/") or names_content(path)


def rebase_name(path: str, resolved: str) -> tuple[str, str]:
    """The path that a link was resolved to, and the name that its content gets: the link's."""
    if names_content(path):
        if not names_content(resolved):
            resolved += "/."
        return resolved, ""
    if path.endswith("/") and not resolved.endswith("/"):
        resolved += "/"
    name = os.path.basename(path.rstrip("/"))
    return resolved, name if name != os.path.basename(resolved.rstrip("/")) else ""


def source_place(path: str, *, follows: bool) -> Place:
    """Look at a local source. Raises Failure in the words of Go."""
    try:
        if follows:
            resolved, name = rebase_name(path, os.path.realpath(path, strict=True))
        else:
            above, base = os.path.split(path)
            resolved, name = os.path.join(os.path.realpath(above or ".", strict=True), base), ""
            if names_content(path):
                resolved = os.path.join(os.path.realpath(above or ".", strict=True), ".")
        found = os.lstat(resolved)
    except OSError as error:
        raise Failure(f"lstat {error.filename}: {(error.strerror or '').lower()}") from None
    if means_directory(path) and not stat.S_ISDIR(found.st_mode):
        raise Failure("not a directory")
    return Place(resolved, True, stat.S_ISDIR(found.st_mode), name)


def destination_place(path: str) -> Place:
    """Look at a local destination; links are followed, also one that leads to nothing yet. Raises Failure."""
    for _ in range(10):
        try:
            found = os.lstat(path.rstrip("/") or "/")
        except FileNotFoundError:
            break
        except OSError as error:
            raise Failure(f"lstat {path}: {(error.strerror or '').lower()}") from None
        if not stat.S_ISLNK(found.st_mode):
            return Place(path, True, stat.S_ISDIR(found.st_mode))
        path = os.path.join(split_entry(path)[0], os.readlink(path.rstrip("/")))
    else:
        raise Failure(f"too many symlinks: {path}")
    if not os.path.isdir(split_entry(path)[0]):
        raise Failure("not a directory")
    return Place(path, False)


def plan(source: Place, destination: Place) -> tuple[str, Callable[[str], str]]:
    """Return the directory to extract into and how members are renamed (archive.PrepareArchiveCopy's table)."""
    above, name = split_entry(destination.path)
    own = split_entry(source.path)[1]
    if destination.exists and destination.is_directory:
        return destination.path, _renaming(own, source.rebase or own)
    if destination.exists and source.is_directory:
        raise Failure("cannot copy directory")
    if destination.exists:
        if means_directory(destination.path):
            raise Failure("not a directory")
        return above, _renaming(own, name)
    if source.is_directory:
        return above, _renaming(own, name)
    if means_directory(destination.path):
        raise Failure("no such directory")
    return above, _renaming(own, name)


def _renaming(old: str, new: str) -> Callable[[str], str]:
    """Names in the archive begin with `old`; they are to begin with `new`. The root's begin with nothing."""
    if old == "/":
        old = ""
    if old == new:
        return lambda name: name

    def rename(name: str) -> str:
        bare = name.removeprefix("./") if old == "." and name != "." else name
        if old == ".":
            return new if bare in (".", "") else f"{new}/{bare}"
        return new + name[len(old) :] if name.startswith(old) else name

    return rename


# ---- out of this machine


def pack(source: Place, rename: Callable[[str], str]) -> Iterator[bytes]:
    """Yield the tar of a local file or tree."""
    linked: dict[tuple[int, int], str] = {}
    own = split_entry(source.path)[1]
    top = source.path.removesuffix("/.") if names_content(source.path) else source.path
    top = top.rstrip("/") or "/"
    yield from _pack_one(top, rename("." if own == "." else own), linked)
    if source.is_directory:
        for above, directories, files in os.walk(top, onerror=_fail):
            inside = os.path.relpath(above, top)
            directories.sort()
            for name in sorted([*directories, *files]):
                member = os.path.normpath(os.path.join("." if own == "." else own, inside, name))
                yield from _pack_one(os.path.join(above, name), rename(member), linked)
    yield bytes(1024)


def _fail(error: OSError) -> None:
    raise Failure(f"open {error.filename}: {(error.strerror or '').lower()}")


def _pack_one(path: str, name: str, linked: dict[tuple[int, int], str]) -> Iterator[bytes]:
    found = os.lstat(path)
    member = tarfile.TarInfo(name)
    member.mode = stat.S_IMODE(found.st_mode)
    member.uid, member.gid, member.mtime = found.st_uid, found.st_gid, int(found.st_mtime)
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFREG:
        key = found.st_dev, found.st_ino
        if found.st_nlink > 1 and linked.setdefault(key, name) != name:
            member.type, member.linkname = tarfile.LNKTYPE, linked[key]
            yield member.tobuf(tarfile.PAX_FORMAT)
            return
        yield from _pack_file(path, member)
        return
    if kind == stat.S_IFDIR:
        member.type = tarfile.DIRTYPE
    elif kind == stat.S_IFLNK:
        member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif kind == stat.S_IFIFO:
        member.type = tarfile.FIFOTYPE
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        member.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
        member.devmajor, member.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    else:
        return  # a socket: tar has no form for it
    yield member.tobuf(tarfile.PAX_FORMAT)


def _pack_file(path: str, member: tarfile.TarInfo) -> Iterator[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"open {path}: {(error.strerror or '').lower()}") from None
    try:
        left = member.size = os.fstat(descriptor).st_size
        yield member.tobuf(tarfile.PAX_FORMAT)
        while left:
            piece = os.read(descriptor, min(left, _PIECE)) or bytes(min(left, _PIECE))  # zeros for what was cut off
            left -= len(piece)
            yield piece
        yield bytes(-member.size % 512)
    finally:
        os.close(descriptor)


# ---- onto this machine


class _Pieces:
    """Pieces of bytes as a file to read from."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int) -> bytes:
        found = [self._rest]
        have = len(self._rest)
        while have < size and (piece := next(self._pieces, b"")):
            found.append(piece)
            have += len(piece)
        data = b"".join(found)
        self._rest = data[size:]
        return data[:size]


def extract(pieces: Iterable[bytes], directory: str, rename: Callable[[str], str]) -> None:
    """Write the members of an archive below `directory`. Owners stay this user's. Raises Failure."""
    source = _Pieces(pieces)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    late: list[tuple[list[str], tarfile.TarInfo]] = []
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=_PIECE) as archive:  # type: ignore[call-overload]
            for member in archive:
                parts = [p for p in rename(member.name.lstrip("/") or ".").split("/") if p not in ("", ".")]
                if ".." in parts:
                    raise Failure(f"invalid archive: {member.name} leads out of the destination")
                if parts:
                    _write(root, parts, member, archive, rename)
                if member.isdir():
                    late.append((parts, member))
        for parts, member in reversed(late):
            if parts:
                with _Opened(root, parts) as place:
                    os.fchmod(place, member.mode & 0o7777)
                    os.utime(place, (member.mtime, member.mtime))
        while source.read(_PIECE):
            pass
    except tarfile.TarError as error:
        raise Failure(f"invalid archive: {error}") from None
    except OSError as error:
        raise Failure(f"cannot write below {directory}: {(error.strerror or str(error)).lower()}") from None
    finally:
        os.close(root)


class _Opened:
    """A directory below an open one, reached without following a link; for a with statement."""

    def __init__(self, root: int, parts: list[str]) -> None:
        self.descriptor = os.dup(root)
        try:
            for part in parts:
                inner = os.open(part, _DIRECTORY, dir_fd=self.descriptor)
                os.close(self.descriptor)
                self.descriptor = inner
        except BaseException:
            os.close(self.descriptor)
            raise

    def __enter__(self) -> int:
        return self.descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def _write(
    root: int, parts: list[str], member: tarfile.TarInfo, archive: tarfile.TarFile, rename: Callable[[str], str]
) -> None:
    name = parts[-1]
    with _Opened(root, parts[:-1]) as parent:
        try:
            was_directory: bool | None = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            was_directory = None
        if was_directory is not None and was_directory != member.isdir():
            old, new = ("directory", "non-directory") if was_directory else ("non-directory", "directory")
            raise Failure(f'cannot overwrite {old} "{"/".join(parts)}" with {new} "{member.name}"')
        if was_directory is False:
            os.unlink(name, dir_fd=parent)
        if member.isdir():
            if was_directory is None:
                os.mkdir(name, 0o700, dir_fd=parent)
        elif member.isreg():
            _write_file(parent, name, member, archive)
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.islnk():
            target = [p for p in rename(member.linkname.lstrip("/")).split("/") if p not in ("", ".")]
            if ".." in target or not target:
                raise Failure(f"invalid archive: {member.name} is a link out of the destination")
            with _Opened(root, target[:-1]) as above:
                os.link(target[-1], name, src_dir_fd=above, dst_dir_fd=parent, follow_symlinks=False)
        elif member.isfifo():
            os.mkfifo(name, member.mode & 0o777, dir_fd=parent)
        elif member.isdev():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(name, kind | member.mode & 0o777, os.makedev(member.devmajor, member.devminor), dir_fd=parent)


def _write_file(parent: int, name: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
    try:
        content = archive.extractfile(member)
        while content is not None and (piece := content.read(_PIECE)):
            view = memoryview(piece)
            while view:
                view = view[os.write(descriptor, view) :]
        os.fchmod(descriptor, member.mode & 0o7777)
        os.utime(descriptor, (member.mtime, member.mtime))
    finally:
        os.close(descriptor)
