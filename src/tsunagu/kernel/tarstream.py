"""Reads a tar stream once, front to back, in bounded memory: ustar, GNU (long names, sparse) and PAX.

Own code instead of `tarfile`, because three things are needed that it does not give: every byte that is not file
content goes to a `tap` (so that the archive can be rebuilt exactly), sizes of headers are bounded, names stay bytes.
Formats: POSIX.1-2017 pax, GNU tar manual "Basic Tar Format" and "Storing Sparse Files". May import `model.errors` only;
must never touch the file system.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

import msgspec

from tsunagu.model.errors import InvalidParameter

BLOCK = 512
MAX_HEADER = 1 << 20  # bytes of one PAX or long-name header, as Go's archive/tar allows
MAX_SPARSE = 1 << 20  # fragments of one sparse file
MAX_NAME = 4096  # PATH_MAX
CHUNK = 1 << 20

FILE, HARD_LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_NORMALISED = {b"\0": FILE, b"7": FILE, b"S": FILE}
_KNOWN = {FILE, HARD_LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO}
_WITHOUT_CONTENT = {HARD_LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO}
_NOTHING = bytes(BLOCK)
_XATTR = b"SCHILY.xattr."
_PAX_RECORD = re.compile(rb"([0-9]{1,8}) ")


class Fragment(NamedTuple):
    """A piece of a sparse file that has content; the rest are holes."""

    offset: int
    length: int


class Entry(msgspec.Struct):
    """One member. `size` is the file's length, `stored` the bytes that follow in the stream."""

    name: bytes
    kind: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    stored: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = msgspec.field(default_factory=dict)
    fragments: list[Fragment] | None = None


class TarStream:
    """Iterate with `next()`; the content of the last entry is read with `content()` or skipped by the next `next()`.

    `read(n)` returns exactly n bytes unless the stream ends. `what` names the archive in errors. `advance(n)`, if
    given, moves on without reading. Every problem of the archive is an InvalidParameter.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        *,
        what: str,
        tap: Callable[[bytes], object] | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> None:
        self._read = read
        self._what = what
        self._tap = tap
        self._advance = advance
        self._left = 0  # content bytes of the current entry not yet read
        self._padding = 0
        self._defaults: dict[bytes, bytes] = {}
        self._name = b""

    def fail(self, problem: str) -> InvalidParameter:
        """Return the error to raise for `problem`, naming the archive and the entry."""
        entry = f", entry {printable(self._name)}" if self._name else ""
        return InvalidParameter(f"invalid archive: {self._what}{entry}: {problem}")

    def next(self) -> Entry | None:
        """Return the next entry, None at the end of the archive."""
        self.skip()
        long_name = long_link = None
        pax: dict[bytes, bytes] = {}
        while True:
            block = self._header()
            if block is None:
                if long_name is not None or long_link is not None or pax:
                    raise self.fail("it ends after an extended header")
                self._name = b""
                if self._advance is None:
                    self._drain()
                return None
            kind = block[156:157]
            size = self._number(block[124:136], "size")
            if kind in (b"x", b"g", b"L", b"K"):
                body = self._special(size)
                if kind == b"L":
                    long_name = body.partition(b"\0")[0]
                elif kind == b"K":
                    long_link = body.partition(b"\0")[0]
                elif kind == b"g":
                    self._defaults.update(self._pax(body))
                else:
                    pax.update(self._pax(body))
                continue
            return self._entry(block, kind, size, long_name, long_link, pax)

    def content(self, *, is_tapped: bool = False) -> Iterator[bytes]:
        """Yield what is left of the current entry's content, in pieces of at most a MiB."""
        while self._left:
            piece = self._read(min(self._left, CHUNK))
            if not piece:
                raise self.fail("the archive ends in the middle of it (unexpected EOF)")
            self._left -= len(piece)
            if is_tapped and self._tap:
                self._tap(piece)
            yield piece
        if self._padding:
            padding, self._padding = self._padding, 0
            self._take(padding)

    def skip(self) -> None:
        """Read past the current entry's content; it goes to the tap."""
        if self._advance is not None:
            self._advance(self._left + self._padding)
            self._left = self._padding = 0
        for _ in self.content(is_tapped=True):
            pass

    # ---- pieces of the stream

    def _take(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) != size:
            raise self.fail("the archive ends in the middle of it (unexpected EOF)")
        if self._tap:
            self._tap(data)
        return data

    def _header(self) -> bytes | None:
        """Return the next header block; None at two zero blocks, or at the end (some writers leave them out)."""
        block = self._read(BLOCK)
        if block and self._tap:
            self._tap(block)
        if not block or block == _NOTHING:
            return None
        if len(block) != BLOCK:
            raise self.fail("the archive ends in the middle of a header (unexpected EOF)")
        stated = self._number(block[148:156], "checksum")
        if stated != sum(block) - sum(block[148:156]) + 256:
            signed = sum(b - 256 if b > 127 else b for b in block[:148] + block[156:]) + 256
            if stated != signed:  # old Sun writers summed signed characters
                raise self.fail("the header's checksum is wrong")
        return block

    def _drain(self) -> None:
        """Read what follows the end: it is part of the archive's digest."""
        while piece := self._read(CHUNK):
            if self._tap:
                self._tap(piece)

    def _special(self, size: int) -> bytes:
        if size > MAX_HEADER:
            raise self.fail(f"an extended header of {size} bytes is larger than {MAX_HEADER}")
        return self._take(-(-size // BLOCK) * BLOCK)[:size]

    # ---- values

    def _entry(
        self,
        block: bytes,
        kind: bytes,
        size: int,
        long_name: bytes | None,
        long_link: bytes | None,
        own: dict[bytes, bytes],
    ) -> Entry:
        name = block[:100].partition(b"\0")[0]
        is_gnu = block[257:265] == b"ustar  \0"
        if not is_gnu and block[257:262] == b"ustar" and block[345] != 0:
            name = block[345:500].partition(b"\0")[0] + b"/" + name
        pax = {**self._defaults, **own} if self._defaults else own
        name = pax.get(b"path") or long_name or name
        self._name = name = pax.get(b"GNU.sparse.name") or name
        if not name:
            raise self.fail("an entry has no name")
        if len(name) > MAX_NAME or b"\0" in name:
            raise self.fail(f"a name of {len(name)} bytes" if len(name) > MAX_NAME else "the name holds a NUL")
        if kind == b"\0" and name.endswith(b"/"):
            kind = DIRECTORY  # before ustar there was no type for directories
        link = pax.get(b"linkpath") or long_link or block[157:257].partition(b"\0")[0]
        if len(link) > MAX_NAME or b"\0" in link:
            raise self.fail("its link target is too long or holds a NUL")
        if b"size" in pax:
            size = self._decimal(pax[b"size"], "size")
        normalised = _NORMALISED.get(kind, kind)
        if normalised not in _KNOWN:
            raise self.fail(f"type {kind!r} is not supported")
        entry = Entry(
            name,
            normalised,
            mode=self._number(block[100:108], "mode") & 0o7777,
            uid=self._owner(pax.get(b"uid"), block[108:116], "uid"),
            gid=self._owner(pax.get(b"gid"), block[116:124], "gid"),
            size=size,
            stored=size,
            mtime_ns=self._time(pax.get(b"mtime"), block[136:148]),
            link=link,
        )
        if normalised in (CHAR, BLOCK_DEVICE):
            entry.major = self._number(block[329:337], "device number")
            entry.minor = self._number(block[337:345], "device number")
        for key, value in pax.items():
            if key.startswith(_XATTR):
                entry.xattrs[key[len(_XATTR) :]] = value
        if normalised in _WITHOUT_CONTENT:
            # A size on these is no content: GNU tar gives hard links the size of their target (Go's rule too).
            entry.size = entry.stored = size = 0
        self._left, self._padding = size, -size % BLOCK
        if kind == b"S":
            self._gnu_sparse(entry, block)
        elif b"GNU.sparse.major" in pax or b"GNU.sparse.map" in pax or b"GNU.sparse.numblocks" in pax:
            self._pax_sparse(entry, pax)
        return entry

    def _number(self, field: bytes, what: str) -> int:
        """Octal text, or GNU's base-256 when the first bit is set."""
        if field[0] & 0x80:
            value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
            if field[0] & 0x40:
                raise self.fail(f"negative {what}")
            if value >= 1 << 63:
                raise self.fail(f"{what} too large")
            return value
        text = field.strip(b" \0")
        text = text.partition(b"\0")[0].strip()
        if not text:
            return 0
        try:
            value = int(text, 8)
        except ValueError:
            raise self.fail(f"{what} is no number") from None
        if value < 0:
            raise self.fail(f"negative {what}")
        return value

    def _decimal(self, text: bytes, what: str) -> int:
        if not text.isdigit() or len(text) > 19:
            raise self.fail(f"{what} is no number")
        return int(text)

    def _owner(self, pax: bytes | None, field: bytes, what: str) -> int:
        value = self._number(field, what) if pax is None else self._decimal(pax, what)
        if value >= 0xFFFFFFFF:  # (uid_t)-1 means "leave it"
            raise self.fail(f"{what} {value} is too large")
        return value

    def _time(self, pax: bytes | None, field: bytes) -> int:
        """Nanoseconds since the epoch, kept within what file systems can hold."""
        if pax is None:
            is_negative = field[0] == 0xFF
            seconds = int.from_bytes(field, "big", signed=True) if is_negative else self._number(field, "time")
            nanoseconds = seconds * 1_000_000_000
        else:
            try:
                value = Decimal(pax.decode("ascii"))
                nanoseconds = int(value * 1_000_000_000) if abs(value) < 1 << 40 else 0
            except (InvalidOperation, UnicodeDecodeError, ValueError, OverflowError):
                raise self.fail("time is no number") from None
        return max(-(1 << 31) * 1_000_000_000, min(nanoseconds, ((1 << 34) - 1) * 1_000_000_000))

    def _pax(self, body: bytes) -> dict[bytes, bytes]:
        """Records `LENGTH KEY=VALUE\\n`; the length counts itself."""
        found: dict[bytes, bytes] = {}
        at = 0
        while at < len(body):
            match = _PAX_RECORD.match(body, at)
            if match is None:
                if not body[at:].strip(b"\0"):
                    break
                raise self.fail("malformed PAX header")
            end = at + int(match[1])
            key, equals, value = body[match.end() : end].partition(b"=")
            if end > len(body) or not equals or not key or not value.endswith(b"\n"):
                raise self.fail("malformed PAX header")
            value = value[:-1]
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                # format 0.0 repeats its keys: joined into the map of 0.1
                found[b"GNU.sparse.map"] = found.get(b"GNU.sparse.map", b"") + value + b","
            else:
                found[key] = value
            at = end
        return found

    # ---- sparse files

    def _gnu_sparse(self, entry: Entry, block: bytes) -> None:
        """Old GNU form: four fragments in the header, 21 in each block that follows while the flag says so."""
        fragments: list[Fragment] = []
        is_continued = self._old_fragments(block, 386, 4, fragments) and bool(block[482])
        while is_continued:
            more = self._take(BLOCK)
            is_continued = self._old_fragments(more, 0, 21, fragments) and bool(more[504])
        self._finish_sparse(entry, fragments, self._number(block[483:495], "size"))

    def _old_fragments(self, block: bytes, at: int, count: int, into: list[Fragment]) -> bool:
        for _ in range(count):
            if not block[at] and not block[at + 12]:
                return False
            into.append(
                Fragment(self._number(block[at : at + 12], "offset"), self._number(block[at + 12 : at + 24], "length"))
            )
            at += 24
        if len(into) > MAX_SPARSE:
            raise self.fail("too many fragments")
        return True

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes]) -> None:
        real = self._decimal(pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size") or b"", "size")
        if pax.get(b"GNU.sparse.major") == b"1":
            numbers = self._map_in_content()
        elif b"GNU.sparse.map" in pax:
            numbers = [self._decimal(n, "offset") for n in pax[b"GNU.sparse.map"].strip(b",").split(b",") if n]
        else:
            raise self.fail("its sparse format is not supported")
        if len(numbers) % 2:
            raise self.fail("its sparse map is malformed")
        fragments = [Fragment(numbers[i], numbers[i + 1]) for i in range(0, len(numbers), 2)]
        self._finish_sparse(entry, fragments, real)

    def _map_in_content(self) -> list[int]:
        """Format 1.0: the map stands before the content, decimal numbers each on a line, padded to a block."""
        text, needed = b"", 1
        numbers: list[int] = []
        while len(numbers) < needed:
            if self._left < BLOCK:
                raise self.fail("its sparse map is malformed")
            text += self._take(BLOCK)
            self._left -= BLOCK
            *lines, text = text.split(b"\n")
            numbers += [
                self._decimal(line, "offset") for line in lines[: needed - len(numbers) if needed > 1 else None]
            ]
            if numbers:
                if numbers[0] > MAX_SPARSE:
                    raise self.fail("too many fragments")
                needed = 1 + 2 * numbers[0]
        return numbers[1:needed]

    def _finish_sparse(self, entry: Entry, fragments: list[Fragment], real: int) -> None:
        end = 0
        for offset, length in fragments:
            if offset < end or offset + length > real:
                raise self.fail("its sparse map is malformed")
            end = offset + length
        entry.stored = self._left
        if sum(f.length for f in fragments) != entry.stored:
            raise self.fail("its sparse map does not match its content")
        entry.size, entry.fragments = real, fragments


def printable(name: bytes) -> str:
    """A name for an error message: control characters escaped, at most 200 characters."""
    text = name.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= 200 else text[:197] + "..."
