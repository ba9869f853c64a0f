"""Idents and sources: every text is one canonical thing, or is refused in one line."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from astcredit.domain import idents
from astcredit.domain.accounts import IdentKind
from astcredit.domain.idents import Ident, parse_callerid, parse_ident, parse_source

NAME, IP, ANI = IdentKind.NAME, IdentKind.IP, IdentKind.ANI


@pytest.mark.parametrize(
    ("kind", "text", "canonical"),
    [
        (NAME, "alice", "alice"),
        (NAME, "Alice 2", "Alice 2"),
        (NAME, "10.0.0.5/24", "10.0.0.5/24"),
        (NAME, "x" * 80, "x" * 80),
        (IP, "10.0.0.5", "10.0.0.5"),
        (IP, "10.0.0.5/32", "10.0.0.5"),
        (IP, "10.0.0.0/24", "10.0.0.0/24"),
        (IP, "0.0.0.0/0", "0.0.0.0/0"),
        (IP, "10.0.0.5:5061", "10.0.0.5:5061"),
        (IP, "10.0.0.5:05061", "10.0.0.5:5061"),
        (IP, "10.0.0.5/32:1", "10.0.0.5:1"),
        (IP, "10.0.0.0/24:65535", "10.0.0.0/24:65535"),
        (IP, "2001:db8::1", "2001:db8::1"),
        (IP, "2001:DB8:0:0::1", "2001:db8::1"),
        (IP, "[2001:db8::1]", "2001:db8::1"),
        (IP, "2001:db8::1/128", "2001:db8::1"),
        (IP, "2001:db8::/32", "2001:db8::/32"),
        (IP, "::/0", "::/0"),
        (IP, "[2001:db8::1]:5060", "[2001:db8::1]:5060"),
        (IP, "[2001:db8::/32]:5060", "[2001:db8::/32]:5060"),
        (IP, "::ffff:10.0.0.5", "10.0.0.5"),
        (IP, "::ffff:a00:5/128", "10.0.0.5"),
        (IP, "::ffff:10.0.0.0/120", "10.0.0.0/24"),
        (IP, "::ffff:0:0/96", "0.0.0.0/0"),
        (IP, "[::ffff:10.0.0.5]:5060", "10.0.0.5:5060"),
        (ANI, "442071234567", "442071234567"),
        (ANI, "+442071234567", "442071234567"),
        (ANI, "44207*", "44207*"),
        (ANI, "+44*", "44*"),
        (ANI, "0", "0"),
        (ANI, "1" * 32 + "*", "1" * 32 + "*"),
    ],
)
def test_each_ident_has_one_canonical_form(kind: IdentKind, text: str, canonical: str) -> None:
    ident = parse_ident(kind, text)
    assert (ident.kind, ident.text) == (kind, canonical)
    assert parse_ident(kind, canonical) == ident


NO_NAMES = ["", " ", " alice", "alice ", "a;b", ";", "a\nb", "a\x00", "a\u202eb", "x" * 81]
NO_ADDRESSES = [
    "",
    "alice",
    "10.0.0",
    "10.0.0.256",
    "010.0.0.5",
    "10.0.0.5 ",
    "10.0.0.5;10.0.0.6",
    "10.0.0.0/33",
    "10.0.0.0/",
    "10.0.0.0/-1",
    "10.0.0.0/255.255.255.0",
    "10.0.0.0/24/24",
    "10.0.0.5:",
    "10.0.0.5:0",
    "10.0.0.5:65536",
    "10.0.0.5:+5060",
    "10.0.0.5:5060/24",
    "[10.0.0.5]:5060",
    "[2001:db8::1",
    "[2001:db8::1]5060",
    "[2001:db8::1]:",
    "[2001:db8::1]:0",
    "[]:5060",
    "2001:db8::/129",
    "2001:db8::g",
    "fe80::1%eth0",
    "::ffff:0:0/95",
    "10.0.0.\u0665",
    "10.0.0.5:\u0665",
    "carrier.example",
]
NO_NUMBERS = [
    "",
    "+",
    "*",
    "+*",
    "44**",
    "*44",
    "++44",
    "44 207",
    "4a",
    "1" * 33,
    "\u0664\u0664",
    "44\u00b2",
    "44\n",
]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((NAME, text) for text in NO_NAMES),
        *((IP, text) for text in NO_ADDRESSES),
        *((ANI, text) for text in NO_NUMBERS),
    ],
)
def test_what_is_no_ident_is_refused_in_one_harmless_line(kind: IdentKind, text: str) -> None:
    with pytest.raises(ValueError, match=r"^ident .*: expected an? ") as caught:
        parse_ident(kind, text)
    assert repr(text)[:40].rstrip("'") in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10.0.0.5/24", "10.0.0.0/24"),
        ("10.0.0.5/31", "10.0.0.4/31"),
        ("10.0.0.5/0", "0.0.0.0/0"),
        ("10.0.0.5/24:5061", "10.0.0.0/24:5061"),
        ("2001:db8::1/32", "2001:db8::/32"),
        ("[2001:db8::1/64]:5060", "[2001:db8::/64]:5060"),
        ("::ffff:10.0.0.5/120", "10.0.0.0/24"),
    ],
)
def test_host_bits_are_refused_with_the_network_that_was_meant(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match="host bits") as caught:
        parse_ident(IP, text)
    assert str(caught.value) == f"ident {text!r}: expected no host bits, as in {meant}"
    assert parse_ident(IP, meant).text == meant


@pytest.mark.parametrize(
    ("kind", "text", "whole"),
    [
        (NAME, "alice", True),
        (IP, "10.0.0.5:5061", True),
        (IP, "10.0.0.4/31", False),
        (IP, "::1", True),
        (IP, "::/127", False),
        (IP, "::/32", False),
        (ANI, "44207", True),
        (ANI, "44207*", False),
        (ANI, "1" * 32 + "*", False),
    ],
)
def test_one_of_a_kind_is_told_from_a_range(kind: IdentKind, text: str, whole: bool) -> None:
    assert parse_ident(kind, text).whole is whole


def outcome_of(kind: IdentKind, text: str) -> Ident | str:
    """The ident, or the text of the refusal."""
    try:
        return parse_ident(kind, text)
    except ValueError as error:
        return str(error)


def bits_of(address: IPv4Address | IPv6Address) -> tuple[int, int]:
    """How many bits an address has, and these bits."""
    return address.max_prefixlen, int(address)


PORTS = st.none() | st.integers(1, 65_535)
WIDTHS = {4: 32, 6: 128}


@given(st.ip_addresses(), st.integers(0, 128), PORTS)
def test_a_network_is_read_as_the_standard_library_means_it(
    address: IPv4Address | IPv6Address, length: int, port: int | None
) -> None:
    """The key and the text must mean the same: one is compared, the other is kept."""
    width = WIDTHS[address.version]
    length = min(length, width)
    start = int(address) >> (width - length) << (width - length)
    text = f"{type(address)(start)}/{length}"
    if port is not None:
        text = f"{text}:{port}" if width == 32 else f"[{text}]:{port}"
    ident = parse_ident(IP, text)
    if ident.family == "ipv6" or address.version == 4:
        assert (ident.specificity, ident.port) == (length, port)
        assert ident.key == start >> (width - length)
    assert parse_ident(IP, ident.text) == ident


@given(
    st.sampled_from(IdentKind),
    st.text(max_size=90) | st.text("0123456789abcdef.:/[]*+%; ", max_size=45),
)
@example(IP, "::ffff:10.0.0.5/128")
@example(IP, "1" * 5000 + ":1")
def test_any_text_is_a_stable_ident_or_is_refused_in_one_line(kind: IdentKind, text: str) -> None:
    outcome = outcome_of(kind, text)
    if isinstance(outcome, Ident):
        assert parse_ident(kind, outcome.text) == outcome
        assert ";" not in outcome.text
    else:
        assert outcome.isprintable()
        assert len(outcome) < 300


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("127.0.0.1:5060", "127.0.0.1", 5060),
        ("10.0.0.1", "10.0.0.1", None),
        ("[::1]:5060", "::1", 5060),
        ("[::1]", "::1", None),
        ("::1", "::1", None),
        ("[fe80::1%eth0]:5060", "fe80::1", 5060),
        ("fe80::1%eth0", "fe80::1", None),
        ("::ffff:10.0.0.5", "10.0.0.5", None),
        ("[::ffff:10.0.0.5]:5060", "10.0.0.5", 5060),
        ("[::ffff:10.0.0.5%eth0]:5060", "10.0.0.5", 5060),
    ],
)
def test_sources(text: str, address: str, port: int | None) -> None:
    assert parse_source(text) == (*bits_of(ip_address(address)), port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown",
        "alice@10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:5060:1",
        "10.0.0.1%eth0",
        "10.0.0.1%a:b",
        "10.0.0.0/24",
        "[10.0.0.1]:5060",
        "[::1]x",
        "[::1]:x",
        "[::1",
        "::1]",
        "fe80::1%",
        "(null)",
        "10.0.0.1:\u0665",
        "10.0.0.1\x00",
        "1" * 10_000,
        "fe80::1%" + "x" * 200,
        "\udc80",
    ],
)
def test_what_is_no_source(text: str) -> None:
    assert parse_source(text) is None


@given(st.text() | st.text("0123456789abcdef.:/[]%", max_size=60))
def test_no_text_can_make_a_source_fail(text: str) -> None:
    found = parse_source(text)
    assert found is None or found[2] is None or 1 <= found[2] <= 65_535


@given(st.ip_addresses(), PORTS)
def test_every_address_is_a_source(address: IPv4Address | IPv6Address, port: int | None) -> None:
    shown = f"[{address}]" if address.version == 6 else str(address)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    text = shown if port is None else f"{shown}:{port}"
    assert parse_source(text) == (*bits_of(mapped or address), port)


ALMOST = (
    st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,4}){2,4}", fullmatch=True)
    | st.from_regex(
        r"(::)?([0-9a-fA-F]{0,5}:){0,9}[0-9a-f]{0,5}(::)?(%[a-z0/%]{0,2})?", fullmatch=True
    )
    | st.from_regex(r"([0-9a-f]{0,4}:){1,7}[0-9]{1,3}(\.[0-9]{1,3}){3}(%e)?", fullmatch=True)
    | st.ip_addresses().map(lambda address: address.exploded)
    | st.builds("{}{}".format, st.ip_addresses(v=6), st.text("%/: 0a\x00é", max_size=3))
    | st.text("0123456789abcdefF.:% \x00\u0665\udc80", max_size=50)
)


@settings(max_examples=3_000)
@given(ALMOST)
@example("1:2:3:4:5:6:7::")
@example("::2:3:4:5:6:7:8")
@example("1:2:3:4:5:6:7:8::")
@example("1::2:3:4:5:6:7:8")
@example("1:2:3:4:5:6:1.2.3.4")
@example("1:2:3:4:5:6:7:1.2.3.4")
@example("::1.2.3.4:5")
@example("1.2.3.4::")
@example("::01.2.3.4")
@example("::ffff:1.2.3.4%e")
@example("::ffff:0:1.2.3.4")
@example(":::")
@example("0x1.2.3.4")
@example("1.2.3")
@example("fe80::1%a/b")
@example("fe80::1%a\x00")
def test_an_address_is_what_the_standard_library_takes_for_one(text: str) -> None:
    """It is parsed by other means, which take less time: letter by letter the same."""
    try:
        address = IPv6Address(text) if ":" in text else IPv4Address(text)
    except ValueError:
        expected = None
    else:
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        expected = bits_of(mapped or address)
    try:
        parsed = idents._parse_address(text)
    except ValueError:
        parsed = None
    assert parsed == expected


@settings(max_examples=1_000)
@given(
    st.ip_addresses()
    | st.integers(0, 2**48 - 1).map(IPv6Address)
    | st.lists(st.sampled_from([0, 0, 0, 1, 0xFFFF]), min_size=8, max_size=8).map(
        lambda groups: IPv6Address(":".join(f"{group:x}" for group in groups))
    )
)
def test_an_address_is_written_as_the_standard_library_writes_it(
    address: IPv4Address | IPv6Address,
) -> None:
    assert idents._address_text(*bits_of(address)) == str(address)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("442071234567", "442071234567"),
        ("+442071234567", "442071234567"),
        ("0", "0"),
        ("1" * 32, "1" * 32),
        ("1" * 33, ""),
        ("", ""),
        ("+", ""),
        ("++44", ""),
        ("44*", ""),
        ("anonymous", ""),
        ("44 207", ""),
        ("44\n", ""),
        ("\u0664\u0664", ""),
    ],
)
def test_the_digits_of_a_callers_number(text: str, digits: str) -> None:
    assert parse_callerid(text) == digits
