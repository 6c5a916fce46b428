"""The DNS codec against dnspython, and against arbitrary bytes."""

from __future__ import annotations

import string

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsunagu.wire import dns as wire

LABEL = st.text(string.ascii_letters + string.digits + "-_é", min_size=1, max_size=12)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(".".join)


def query(name: str = "web", kind: str = "A", **options: object) -> dns.message.QueryMessage:
    return dns.message.make_query(name, kind, **options)  # type: ignore[arg-type]


# ---- names


@given(st.text(max_size=300))
def test_any_text_is_encoded_or_refused(text: str) -> None:
    encoded = wire.encode_name(text)
    if encoded is None:
        return
    assert len(encoded) <= 255
    assert encoded == encoded.lower()
    parsed, used = dns.name.from_wire(encoded, 0)
    assert used == len(encoded)
    assert all(1 <= len(label) <= 63 for label in parsed.labels[:-1])


@given(st.lists(st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=20), min_size=1, max_size=6))
def test_encoding_agrees_with_dnspython(labels: list[str]) -> None:
    text = ".".join(labels)
    assert wire.encode_name(text) == dns.name.from_text(text).to_wire().lower()


@pytest.mark.parametrize(
    "bad",
    ["", ".", "a..b", ".a", "a.", "a b", "a\tb", "a\nb", "a\x7f", "a" * 64, ".".join(["a" * 63] * 4), "\ud800 x"],
)
def test_bad_names_have_no_wire_form(bad: str) -> None:
    assert wire.encode_name(bad) is None


def test_longest_names_are_encoded() -> None:
    assert wire.encode_name("a" * 63) == b"\x3f" + b"a" * 63 + b"\0"
    assert len(wire.encode_name(".".join(["a" * 63] * 3 + ["a" * 61])) or b"") == 255


@given(NAME)
def test_names_come_back(name: str) -> None:
    encoded = wire.encode_name(name)
    assert encoded is not None
    assert wire.decode_name(encoded).lower() == name.encode().lower().decode()


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda a: a.ipv4_mapped is None)))
def test_reverse_names_agree_with_dnspython(address: object) -> None:
    packed = address.packed  # type: ignore[attr-defined]
    name = wire.reverse_name(packed)
    assert name == dns.reversename.from_address(str(address)).to_wire()
    assert wire.parse_reverse_name(name) == packed


@given(st.one_of(NAME, NAME.map(lambda n: n + ".in-addr.arpa"), NAME.map(lambda n: n + ".ip6.arpa")))
def test_other_names_are_no_addresses(name: str) -> None:
    encoded = wire.encode_name(name)
    found = wire.parse_reverse_name(encoded) if encoded else None
    assert found is None or wire.decode_name(wire.reverse_name(found)) == name.lower() or name.startswith("0")


@pytest.mark.parametrize(
    "text", ["256.1.1.1.in-addr.arpa", "1.1.1.in-addr.arpa", "x.1.1.1.in-addr.arpa", "in-addr.arpa"]
)
def test_half_an_address_is_none(text: str) -> None:
    assert wire.parse_reverse_name(wire.encode_name(text) or b"") is None


# ---- queries


@given(
    name=NAME.filter(str.isascii),
    kind=st.sampled_from(["A", "AAAA", "PTR", "MX", "TXT", "ANY", "HTTPS"]),
    payload=st.none() | st.integers(0, 65535),
    recursion=st.booleans(),
)
def test_queries_of_dnspython_are_understood(name: str, kind: str, payload: int | None, recursion: bool) -> None:
    message = query(name, kind)
    if payload is not None:
        message.use_edns(0, payload=payload, options=[dns.edns.GenericOption(10, b"12345678")])
    if not recursion:
        message.flags &= ~dns.flags.RD
    data = message.to_wire()
    parsed = wire.Query(data)
    assert parsed.id == data[:2]
    assert parsed.name == message.question[0].name.to_wire().lower()
    assert parsed.qtype == message.question[0].rdtype
    assert parsed.key == wire.question(parsed.name, parsed.qtype)
    assert parsed.asked == data[12 : 12 + len(parsed.asked)]
    assert parsed.has_edns == (payload is not None)
    assert parsed.udp_size == max(512, payload or 0)
    assert parsed.limit <= 1232
    assert parsed.is_single_label == (len(message.question[0].name) == 2)
    assert bool(parsed.flags & wire.RD) == recursion


@given(st.binary(max_size=80))
def test_any_bytes_are_a_query_or_malformed(data: bytes) -> None:
    try:
        parsed = wire.Query(data)
    except wire.Malformed as error:
        if error.rcode is not None:
            reply = wire.failure(data, error.rcode)
            assert dns.message.from_wire(reply, ignore_trailing=True).rcode() == error.rcode
        return
    dns.message.from_wire(wire.reply(parsed, wire.NXDOMAIN, (), 512))


@given(st.data())
def test_damaged_queries_never_escape(data: st.DataObject) -> None:
    raw = bytearray(query("web.app-network", "A", use_edns=0).to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        wire.Query(cut)
    except wire.Malformed:
        return


def rcode_of(data: bytes) -> int | None:
    with pytest.raises(wire.Malformed) as caught:
        wire.Query(data)
    return caught.value.rcode


def test_malformed_queries_are_answered_or_dropped() -> None:
    good = query().to_wire()
    assert rcode_of(b"") is None
    assert rcode_of(good[:11]) is None
    assert rcode_of(good[:2] + b"\x80" + good[3:]) is None, "answering replies, two servers would play ping-pong"
    assert rcode_of(good[:2] + b"\x28" + good[3:]) == wire.NOTIMP
    assert rcode_of(good[:4] + b"\0\2" + good[6:]) == wire.FORMERR
    assert rcode_of(good[:4] + b"\0\0" + good[6:]) == wire.FORMERR
    assert rcode_of(good[:6] + b"\0\1" + good[8:]) == wire.FORMERR
    assert rcode_of(good[:12] + b"\xc0\x0c" + good[14:]) == wire.FORMERR, "a question is never compressed"
    assert rcode_of(good[:-1]) == wire.FORMERR
    assert rcode_of(good[:12] + b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 3 + b"\0\0\1\0\1") == wire.FORMERR
    two = query(use_edns=0).to_wire()
    assert rcode_of(two[:10] + b"\0\2" + two[12:] + two[-11:]) == wire.FORMERR
    assert rcode_of(two[:-3]) == wire.FORMERR


# ---- replies


def test_replies_read_as_dnspython_reads_them() -> None:
    asked = query("wEb.App", "A")
    records = [wire.address_record(bytes([10, 0, 0, i]), 5) for i in (2, 3)]
    reply = dns.message.from_wire(wire.reply(wire.Query(asked.to_wire()), wire.NOERROR, records, 512))
    assert asked.is_response(reply)
    assert reply.question[0].name.to_text() == "wEb.App.", "the spelling of the question is kept (0x20)"
    assert [str(r) for r in reply.answer[0]] == ["10.0.0.2", "10.0.0.3"]
    assert reply.answer[0].ttl == 5
    assert reply.flags & (dns.flags.RD | dns.flags.RA) == dns.flags.RD | dns.flags.RA
    assert reply.edns == -1, "no OPT where none was asked for"


def test_pointer_and_ipv6_records() -> None:
    asked = wire.Query(query("2.0.0.10.in-addr.arpa", "PTR").to_wire())
    target = wire.encode_name("web.app")
    assert target is not None
    reply = dns.message.from_wire(wire.reply(asked, 0, [wire.pointer_record(target, 600)], 512))
    assert reply.answer[0].to_text() == "2.0.0.10.in-addr.arpa. 600 IN PTR web.app."
    asked = wire.Query(query("web", "AAAA").to_wire())
    reply = dns.message.from_wire(wire.reply(asked, 0, [wire.address_record(bytes(15) + b"\7", 0)], 512))
    assert reply.answer[0].to_text() == "web. 0 IN AAAA ::7"


@given(st.integers(0, 200), st.none() | st.integers(0, 4096))
def test_replies_fit_and_say_when_cut(count: int, payload: int | None) -> None:
    asked = query("backend", "A")
    if payload is not None:
        asked.use_edns(0, payload=payload)
    parsed = wire.Query(asked.to_wire())
    records = [wire.address_record(bytes([10, 0, i // 256, i % 256]), 5) for i in range(count)]
    data = wire.reply(parsed, 0, records, parsed.limit)
    assert len(data) <= min(max(512, payload or 0), 1232)
    reply = dns.message.from_wire(data)
    found = len(reply.answer[0]) if reply.answer else 0
    assert bool(reply.flags & dns.flags.TC) == (found < count)
    assert len(data) > parsed.limit - 16 or found == count, "as many as fit"
    if payload is not None:
        assert (reply.edns, reply.payload) == (0, 1232)
    assert len(dns.message.from_wire(wire.reply(parsed, 0, records, wire.TCP_LIMIT)).answer or [()]) == 1


def test_unknown_edns_version_is_badvers() -> None:
    parsed = wire.Query(query(use_edns=3).to_wire())
    reply = dns.message.from_wire(wire.reply(parsed, 0, [wire.address_record(bytes(4), 5)], 512))
    assert reply.rcode() == dns.rcode.BADVERS
    assert not reply.answer


def test_checking_disabled_is_copied() -> None:
    asked = query()
    asked.flags |= dns.flags.CD
    reply = dns.message.from_wire(wire.reply(wire.Query(asked.to_wire()), 0, (), 512))
    assert reply.flags & dns.flags.CD


# ---- what an upstream says


def response(asked: dns.message.QueryMessage, *sections: str, rcode: int = 0) -> bytes:
    made = dns.message.make_response(asked)
    made.set_rcode(dns.rcode.Rcode(rcode))
    for i, text in enumerate(sections):
        if text:
            owner, ttl, _, kind, value = text.split(" ", 4)
            made.sections[i + 1].append(dns.rrset.from_text(owner, int(ttl), "IN", kind, value))
    return made.to_wire()


SOA = "example.com. 300 IN SOA ns.example.com. root.example.com. 1 2 3 4 20"


def test_lifetimes() -> None:
    asked = query("www.example.com")
    scan = wire.Scan(response(asked, "www.example.com. 30 IN A 192.0.2.1", "example.com. 10 IN NS ns.example.com."))
    assert (scan.rcode, scan.lifetime, len(scan.ttls), scan.is_truncated) == (0, 10, 2, False)
    assert wire.Scan(response(asked, "", SOA, rcode=3)).lifetime == 20, "RFC 2308: the lesser of TTL and minimum"
    assert wire.Scan(response(asked, "", SOA)).lifetime == 20
    assert wire.Scan(response(asked, rcode=3)).lifetime == 0
    assert wire.Scan(response(asked, "www.example.com. 30 IN A 192.0.2.1", rcode=2)).lifetime == 0
    cut = bytearray(response(asked, "www.example.com. 30 IN A 192.0.2.1"))
    cut[2] |= 2
    assert wire.Scan(bytes(cut)).is_truncated
    assert wire.Scan(bytes(cut)).lifetime == 0


def test_aged_replies() -> None:
    data = response(query("www.example.com"), "www.example.com. 30 IN A 192.0.2.1", "", SOA.replace("300", "7"))
    aged = dns.message.from_wire(wire.aged(data, wire.Scan(data).ttls, 10))
    assert aged.answer[0].ttl == 20
    assert aged.additional[0].ttl == 0


@given(st.binary(max_size=120))
def test_any_reply_is_scanned_or_malformed(tail: bytes) -> None:
    head = query().to_wire()
    try:
        wire.Scan(head[:2] + b"\x81\x80\0\1\0\3\0\1\0\1" + head[12:] + tail)
    except wire.Malformed:
        return


def test_only_our_question_is_answered() -> None:
    asked = query("www.example.com")
    sent, data = asked.to_wire(), response(asked, "www.example.com. 30 IN A 192.0.2.1")
    mine = (sent[:2], sent[12:])
    assert wire.answers_question(data, *mine)
    assert wire.answers_question(data[:12] + data[12:].replace(b"www", b"WwW"), *mine)
    other = bytes([data[0] ^ 1]) + data[1:]
    assert not wire.answers_question(other, *mine)
    assert not wire.answers_question(sent, *mine), "an echo is no answer"
    assert not wire.answers_question(data[:12] + data[12:].replace(b"www", b"wwx"), *mine)
    assert not wire.answers_question(data[:20], *mine)
    assert not wire.answers_question(data[:4] + b"\0\0" + data[6:], *mine)
    assert not wire.answers_question(b"", *mine)
