"""Idents: the texts by which accounts are recognised, parsed and brought into one form.

A name is kept as it is. An address is `10.0.0.5` or `2001:db8::1`, a network `10.0.0.0/24` or
`2001:db8::/32`; with a port `10.0.0.5:5061`, `10.0.0.0/24:5061`, `[2001:db8::1]:5060`. A caller's
number is its digits, `442071234567`, or the first of them and a star, `44207*`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final, Literal, TypeAlias

from astcredit.domain.accounts import IdentKind
from astcredit.domain.numbers import MOST_DIGITS
from astcredit.domain.records import record
from astcredit.domain.text import printable

Family: TypeAlias = Literal["name", "ipv4", "ipv6", "ani"]
"""Idents that can be compared with one another."""

Key: TypeAlias = int | str

Source: TypeAlias = tuple[int, int, int | None]
"""Where a call comes from: how many bits its address has (32 or 128), these bits, and the port."""

MOST_NAME: Final = 80
"""Characters of a name: Asterisk's accountcode has room for as many."""

MOST_SOURCE: Final = 128
"""Characters of a source: an IPv6 address has 45, its scope (an interface's name) seldom 16."""

MOST_REMEMBERED: Final = 4_096
"""Sources of which the address is remembered: gateways call again and again from the same one."""

MOST_PORT: Final = 65_535

_EXACT: Final = MOST_DIGITS + 1
"""The specificity of a whole number: above that of each of its prefixes."""

_IPV4: Final = 32
_IPV6: Final = 128

_MAPPED_BITS: Final = 96
"""Bits before the IPv4 address in an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2)."""

_MAPPED: Final = 0xFFFF
"""What stands in these bits."""

_HEXTETS: Final = 8
"""Groups of an IPv6 address."""

_OCTETS: Final = {str(number): number for number in range(256)}
_HEXTETS_TEXT: Final = re.compile(r"[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4})*")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_LENGTH: Final = re.compile(r"[0-9]{1,3}")
_ANI: Final = re.compile(rf"\+?([0-9]{{1,{MOST_DIGITS}}})(\*?)")
_CALLERID: Final = re.compile(rf"\+?([0-9]{{1,{MOST_DIGITS}}})")

_NAME_EXPECTED: Final = (
    f"a name of 1 to {MOST_NAME} printable characters, without a semicolon, and without a space"
    " at the beginning or end"
)
_IP_EXPECTED: Final = (
    "an address or a network, with or without a port, as 10.0.0.5, 10.0.0.0/24, 10.0.0.5:5060,"
    " 2001:db8::/32 or [2001:db8::1]:5060"
)
_ANI_EXPECTED: Final = (
    f"a caller's number of 1 to {MOST_DIGITS} digits, or the first of them and a *, as 44207*"
)


@record
class Ident:
    """One parsed ident; `text` is its canonical form, the only one in which it is kept.

    `specificity` is the length of a network in bits, or of a caller's number in digits (a whole
    number counts for one more than the longest prefix). `key` is what there is to compare: the
    name, the network's bits, the digits. `port` None is any port.
    """

    kind: IdentKind
    text: str
    family: Family
    specificity: int
    key: Key
    port: int | None = None

    @property
    def whole(self) -> bool:
        """Whether it is a name, one address or one number, and not a network or a prefix."""
        return self.specificity == {"name": 0, "ipv4": 32, "ipv6": 128, "ani": _EXACT}[self.family]


def parse_ident(kind: IdentKind, text: str) -> Ident:
    """The ident that `text` is, as one of its kind.

    An IPv4-mapped IPv6 address is its IPv4 address; a leading + of a caller's number is dropped.
    Raises ValueError: one line with the value and what was expected; for a network with host bits
    the network that was probably meant.
    """
    return _PARSERS[kind](text)


def _parse_name(text: str) -> Ident:
    plain = text.isprintable() and text == text.strip() and ";" not in text
    if not plain or not 1 <= len(text) <= MOST_NAME:
        raise _no_ident(text, _NAME_EXPECTED)
    return Ident(IdentKind.NAME, text, "name", 0, text)


def _parse_network(text: str) -> Ident:
    try:
        if "%" in text:  # a scope means nothing on another machine
            raise ValueError
        host, port = _split_port(text)
        base, slash, length_text = host.partition("/")
        width, bits = _parse_address(base)
        length = _parse_length(length_text, base, width) if slash else width
    except ValueError:
        raise _no_ident(text, _IP_EXPECTED) from None
    shift = width - length
    key = bits >> shift
    if key << shift != bits:
        network = _network_text(_address_text(width, key << shift), length, width, port)
        raise _no_ident(text, f"no host bits, as in {network}")
    # An IPv4 address that was accepted is in the one form that there is.
    canonical = base if ":" not in base else _address_text(width, bits)
    return Ident(
        IdentKind.IP,
        _network_text(canonical, length, width, port),
        "ipv4" if width == _IPV4 else "ipv6",
        length,
        key,
        port,
    )


def _parse_length(text: str, base: str, width: int) -> int:
    """The length of a network that was written `base`/`text`. Raises ValueError."""
    mapped = width == _IPV4 and ":" in base
    length = int(text) - mapped * _MAPPED_BITS if _LENGTH.fullmatch(text) else -1
    if not 0 <= length <= width:
        raise ValueError(text)
    return length


def _network_text(address: str, length: int, width: int, port: int | None) -> str:
    text = address if length == width else f"{address}/{length}"
    if port is None:
        return text
    return f"{text}:{port}" if width == _IPV4 else f"[{text}]:{port}"


def _parse_ani(text: str) -> Ident:
    match = _ANI.fullmatch(text)
    if match is None:
        raise _no_ident(text, _ANI_EXPECTED)
    digits, star = match.groups()
    return Ident(IdentKind.ANI, digits + star, "ani", len(digits) if star else _EXACT, digits)


_PARSERS: Final = {
    IdentKind.NAME: _parse_name,
    IdentKind.IP: _parse_network,
    IdentKind.ANI: _parse_ani,
}


def _no_ident(text: str, expected: str) -> ValueError:
    return ValueError(f"ident {printable(text, MOST_NAME)}: expected {expected}")


def parse_source(text: str) -> Source | None:
    """What an `Origin.source` says; None if the text is none, whatever it is.

    An IPv4-mapped IPv6 address is its IPv4 address; the scope of an IPv6 address is dropped.
    """
    return _remembered_source(text) if 0 < len(text) <= MOST_SOURCE else None


@lru_cache(MOST_REMEMBERED)
def _remembered_source(text: str) -> Source | None:
    try:
        host, port = _split_port(text)
        return *_parse_address(host), port
    except ValueError:
        return None


def parse_callerid(text: str) -> str:
    """The digits of a caller's number, a leading + dropped; empty if it is anything else."""
    match = _CALLERID.fullmatch(text)
    return match[1] if match else ""


def _split_port(text: str) -> tuple[str, int | None]:
    """HOST[:PORT] or [IPV6][:PORT] in two. Raises ValueError; the host can still be anything."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or rest[:1] not in ("", ":"):
            raise ValueError(text)
        return host, _parse_port(rest[1:]) if rest else None
    host, colon, rest = text.partition(":")
    if not colon or ":" in rest:
        return text, None
    return host, _parse_port(rest)


def _parse_port(text: str) -> int:
    port = int(text) if _PORT.fullmatch(text) else 0
    if not 1 <= port <= MOST_PORT:
        raise ValueError(text)
    return port


def _parse_address(text: str) -> tuple[int, int]:
    """The width and the bits of an address. Raises ValueError.

    The same texts are addresses to `ipaddress`, which takes twice as long.
    """
    if ":" not in text:
        return _IPV4, _parse_ipv4(text)
    if "%" in text:
        text, _, scope = text.partition("%")
        if not scope or "%" in scope or "/" in scope:
            raise ValueError(text)
    bits = _parse_ipv6(text)
    if bits >> _IPV4 == _MAPPED:
        return _IPV4, bits & 0xFFFF_FFFF
    return _IPV6, bits


def _parse_ipv4(text: str) -> int:
    a, b, c, d = text.split(".")  # ValueError unless there are four
    try:
        return _OCTETS[a] << 24 | _OCTETS[b] << 16 | _OCTETS[c] << 8 | _OCTETS[d]
    except KeyError:
        raise ValueError(text) from None


def _parse_ipv6(text: str) -> int:
    if "." in text:
        before, _, dotted = text.rpartition(":")
        last = _parse_ipv4(dotted)
        text = f"{before}:{last >> 16:x}:{last & 0xFFFF:x}"
    before, gap, behind = text.partition("::")
    groups, others = _hextets(before), _hextets(behind)
    missing = _HEXTETS - len(groups) - len(others)
    if missing < 1 if gap else missing:
        raise ValueError(text)
    return int("".join([*groups, "0000" * missing, *others]), 16)


def _hextets(text: str) -> list[str]:
    """Groups of four digits; there may be none. Raises ValueError."""
    if not text:
        return []
    if not _HEXTETS_TEXT.fullmatch(text):
        raise ValueError(text)
    return [group.rjust(4, "0") for group in text.split(":")]


def _address_text(width: int, bits: int) -> str:
    """The canonical text of an address."""
    if width == _IPV4:
        return f"{bits >> 24}.{bits >> 16 & 255}.{bits >> 8 & 255}.{bits & 255}"
    return str(IPv6Address(bits))
