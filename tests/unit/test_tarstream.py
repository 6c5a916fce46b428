"""The tar reader agrees with tarfile on what tarfile writes, rebuilds every byte, and bounds what it believes."""

from __future__ import annotations

import io
import subprocess
import tarfile
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsunagu.kernel import tarstream
from tsunagu.kernel.tarstream import Entry, TarStream
from tsunagu.model.errors import InvalidParameter
from tsunagu.testing.archives import member, symlink, tar


def entries(data: bytes) -> list[tuple[Entry, bytes]]:
    stream = TarStream(io.BytesIO(data).read, what="test")
    found = []
    while (entry := stream.next()) is not None:
        found.append((entry, b"".join(stream.content())))
    return found


NAMES = st.text(st.characters(blacklist_characters="\0/", blacklist_categories=("Cs",)), min_size=1, max_size=180)
FORMS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


@settings(max_examples=60, deadline=None)
@given(
    form=FORMS,
    names=st.lists(NAMES, min_size=1, max_size=5),
    content=st.binary(max_size=1500),
    uid=st.sampled_from([0, 1000, 0o7777777, 0o7777777 + 1, 4_000_000_000]),
    mtime=st.sampled_from([0, 1, 1_700_000_000, 1 << 33, 1_700_000_000.25, -5]),
)
def test_it_reads_what_tarfile_writes(form: int, names: list[str], content: bytes, uid: int, mtime: float) -> None:
    when = mtime if form == tarfile.PAX_FORMAT else int(mtime)
    made = [member(name, content, uid=uid, gid=uid, mtime=when, mode=0o6750) for name in names]
    made.append(symlink("dir/" * 40 + "l", "../" * 60 + "etc"))
    found = entries(tar(*made, form=form))
    assert [e.name.decode() for e, _ in found[:-1]] == names
    for entry, data in found[:-1]:
        assert (entry.mode, entry.uid, entry.gid, data) == (0o6750, uid, uid, content)
        assert entry.mtime_ns == int(Fraction(when) * 1_000_000_000)
    assert found[-1][0].kind == tarstream.SYMLINK and found[-1][0].link == b"../" * 60 + b"etc"


@settings(max_examples=60, deadline=None)
@given(form=FORMS, sizes=st.lists(st.integers(0, 3000), max_size=6), tail=st.binary(max_size=700))
def test_tap_and_content_together_are_the_archive(form: int, sizes: list[int], tail: bytes) -> None:
    data = tar(*(member(f"{'n' * 90}/{i}", bytes([i]) * size) for i, size in enumerate(sizes)), form=form) + tail
    rebuilt = bytearray()
    stream = TarStream(io.BytesIO(data).read, what="test", tap=rebuilt.extend)
    while stream.next() is not None:
        # the padding is tapped when the piece after the last is asked for: by then this one is in place
        for piece in stream.content():
            rebuilt += piece
    assert bytes(rebuilt) == data


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=4000), flips=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=8))
def test_damage_is_an_invalid_parameter_and_nothing_else(data: bytes, flips: list[tuple[int, int]]) -> None:
    sound = bytearray(tar(member("a" * 200, b"x" * 700, pax_headers={"comment": "y" * 50}), symlink("b", "c")))
    for at, value in flips:
        sound[at % len(sound)] = value
        block = at % len(sound) // 512 * 512
        if value & 1:  # mend the checksum so that the damage gets further in
            field = sound[block : block + 512]
            field[148:156] = b" " * 8
            sound[block + 148 : block + 156] = f"{sum(field):06o}\0 ".encode()
    for archive in (data, bytes(sound), bytes(sound[: len(data)])):
        try:
            entries(archive)
        except InvalidParameter as error:
            assert error.message.startswith("invalid archive: test")


@pytest.mark.parametrize("form", ["gnu", "pax-0.0", "pax-0.1", "pax-1.0"])
def test_sparse_files_of_gnu_tar(form: str, tmp_path: Path) -> None:
    with open(tmp_path / "holes", "wb") as file:
        for i in range(40):  # more fragments than one header holds
            file.seek(i * 200_000 + 4096)
            file.write(b"%06d" % i * 100)
        file.truncate(40 * 200_000)
    kind = ["--format=gnu"] if form == "gnu" else ["--format=pax", f"--sparse-version={form[4:]}"]
    subprocess.run(["tar", "-S", *kind, "-cf", "t.tar", "holes"], cwd=tmp_path, check=True)
    ((entry, stored),) = entries((tmp_path / "t.tar").read_bytes())
    assert entry.name == b"holes" and entry.fragments is not None and len(stored) == entry.stored < 400_000
    rebuilt, at = bytearray(entry.size), 0
    for offset, length in entry.fragments:
        rebuilt[offset : offset + length] = stored[at : at + length]
        at += length
    assert bytes(rebuilt) == (tmp_path / "holes").read_bytes()


def _header(**fields: bytes) -> bytes:
    block = bytearray(512)
    places = {"name": 0, "mode": 100, "size": 124, "kind": 156, "magic": 257}
    for key, value in {"magic": b"ustar\x0000", "size": b"00000000000", **fields}.items():
        block[places[key] : places[key] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


@pytest.mark.parametrize(
    ("archive", "sentence"),
    [
        (_header(name=b"x", kind=b"x", size=b"77777777777"), "an extended header of 8589934591 bytes"),
        (_header(name=b"x", kind=b"L", size=b"00010000000"), "an extended header of 2097152 bytes"),
        (_header(name=b"x", size=b"\xff" * 12), "negative size"),
        (_header(name=b"x", size=b"\x80" + b"\x7f" * 11), "size too large"),
        (_header(name=b"x", size=b"zzz"), "size is no number"),
        (_header(name=b"x", size=b"00000001000"), "entry x: the archive ends in the middle"),
        (_header(name=b"x", kind=b"M"), "type b'M' is not supported"),
        (_header(name=b""), "an entry has no name"),
        (_header(name=b"x")[:300], "in the middle of a header"),
        (_header(name=b"x").replace(b"x", b"y", 1), "checksum is wrong"),
        (_header(name=b"x", kind=b"x", size=b"00000000005") + b"9 a=b".ljust(512, b"\0"), "malformed PAX header"),
        (
            _header(name=b"x", kind=b"x", size=b"00000000012") + b"10 path=y\n".ljust(512, b"\0"),
            "after an extended header",
        ),
    ],
)
def test_what_is_refused(archive: bytes, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        entries(archive)
    assert sentence in caught.value.message


def test_a_size_on_a_link_is_no_content() -> None:
    odd = bytearray(_header(name=b"l", kind=b"1", size=b"00000001130"))
    odd[157:158] = b"a"
    odd[148:156] = b" " * 8
    odd[148:156] = f"{sum(odd):06o}\0 ".encode()
    data = tar(member("a", b"x" * 600))
    data = data[: 512 + 1024] + bytes(odd) + tar(member("after"))
    assert [e.name for e, _ in entries(data)] == [b"a", b"l", b"after"]


def test_entry_names_in_errors_are_printable() -> None:
    assert tarstream.printable(b"a\x1b[31m\xff\n") == "a\\x1b[31m\\xff\\n"
    assert len(tarstream.printable(b"x" * 5000)) == 200
