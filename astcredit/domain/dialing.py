"""What Asterisk's Dial is told: whom to call, and how long the call may last.

A dial string is a small language with signs of its own (`/ @ : & , ^ | ( )`), and what stands in
ours comes from settings and from a caller's telephone. So each part is held against what it may
consist of, here, at the last moment, whatever was checked before: a row that somebody wrote into
the database by hand cannot make Dial do anything else either.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from astcredit.domain.accounts import Protocol, Termination
from astcredit.domain.numbers import MOST_DIGITS, NUMBER_EXPECTED
from astcredit.domain.text import printable

MOST_HOST: Final = 253
"""Characters of a host name: RFC 1035's 255 octets less the length octets at both ends."""

MOST_PROXY: Final = 64
"""Asterisk names a leg's channel after it, PJSIP/NAME-0000001a, and keeps 79 characters of that."""

MOST_PREPEND: Final = 20
"""Digits: as many as a rate's prefix has. Carriers' routing prefixes have four to eight."""

MOST_PORT: Final = 65_535

_HOSTS_KEPT: Final = 1024
"""Verdicts on hosts: those of the carriers in use are asked for on every call."""

HOST_EXPECTED: Final = "a host name like sip.example.com or an IP address, without port or brackets"
ADDRESS_EXPECTED: Final = "an IP address, without port or brackets"
PROXY_EXPECTED: Final = f"1 to {MOST_PROXY} letters, digits, '.', '_' or '-'"
PREPEND_EXPECTED: Final = f"at most {MOST_PREPEND} digits, '*' or '#'"

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME: Final = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}", re.ASCII)
"""RFC 1123, 2.1. A last label of digits alone is an address with a slip of the pen."""

_PROXY: Final = re.compile(rf"[A-Za-z0-9_.-]{{1,{MOST_PROXY}}}", re.ASCII)
_PREPEND: Final = re.compile(rf"[0-9*#]{{0,{MOST_PREPEND}}}", re.ASCII)
_NUMBER: Final = re.compile(rf"[0-9]{{1,{MOST_DIGITS}}}", re.ASCII)
_DIALLED: Final = re.compile(rf"[0-9*#]{{0,{MOST_PREPEND}}}[0-9]{{1,{MOST_DIGITS}}}", re.ASCII)


class NoDialString(ValueError):  # noqa: N818 - it names an outcome, not a fault
    """No call can be handed to a terminator so. The text is one line and safe to show."""


def limit_option(seconds: int, warn_seconds: int, repeat_seconds: int) -> str:
    """The option of Dial that ends the call after so many seconds: `L(x[:y[:z]])`.

    The caller is warned `warn_seconds` before the end and then every `repeat_seconds`; 0 turns
    either off. A call that is no longer than the warning time is not warned. Milliseconds, as
    the documentation of Asterisk's Dial says.
    """
    limit = f"{seconds * 1000}"
    if 0 < warn_seconds < seconds:
        limit += f":{warn_seconds * 1000}"
        if repeat_seconds > 0:
            limit += f":{repeat_seconds * 1000}"
    return f"L({limit})"


def check_host(text: str) -> str:
    """`text` if it is a host name (RFC 1123) or an IP address.

    Raises ValueError naming value and expectation. An IPv6 address stands without brackets and
    without a zone.
    """
    if not _is_host_name(text) and not _is_address(text):
        raise ValueError(f"{printable(text)}: expected {HOST_EXPECTED}")
    return text


def check_address(text: str) -> str:
    """`text` if it is an IP address, written as `check_host` wants it.

    Raises ValueError naming value and expectation.
    """
    if not _is_address(text):
        raise ValueError(f"{printable(text)}: expected {ADDRESS_EXPECTED}")
    return text


def check_proxy(text: str) -> str:
    """`text` if it can be the name of an endpoint or peer that Asterisk knows.

    Raises ValueError naming value and expectation.
    """
    if _PROXY.fullmatch(text) is None:
        raise ValueError(f"{printable(text)}: expected {PROXY_EXPECTED}")
    return text


def check_prepend(text: str) -> str:
    """`text` if it can be put before a number; empty is nothing to put there.

    Raises ValueError naming value and expectation.
    """
    if _PREPEND.fullmatch(text) is None:
        raise ValueError(f"{printable(text)}: expected {PREPEND_EXPECTED}")
    return text


def rewritten(number: str, strip: int, prepend: str) -> str:
    """A number (E.164 digits) as a terminator wants it: `strip` digits off, then `prepend` on.

    Raises NoDialString when no digit is left, or a part is not what it should be.
    """
    if _NUMBER.fullmatch(number) is None:
        raise NoDialString(f"{printable(number)}: expected {NUMBER_EXPECTED}")
    if not 0 <= strip < len(number):
        raise NoDialString(f"{number} less {strip} digits: expected at least one to be left")
    try:
        return check_prepend(prepend) + number[strip:]
    except ValueError as error:
        raise NoDialString(f"prepend: {error}") from None


def dial_string(termination: Termination, number: str, pjsip_endpoint: str) -> str:
    """What Dial calls to reach `number` at a terminator.

    `number` is as `rewritten` gives it; `pjsip_endpoint` names the endpoint that speaks for
    carriers known by address alone, empty if there is none. Raises NoDialString when the
    terminator's settings do not suffice, or any part is not what it should be.

    PJSIP takes an endpoint and an address together. SIP and IAX2 take one of them: the proxy
    where it is set.
    """
    if _DIALLED.fullmatch(number) is None:
        raise NoDialString(f"{printable(number)}: expected {NUMBER_EXPECTED}")
    try:
        proxy = check_proxy(termination.proxy) if termination.proxy else ""
        address = _address(termination)
        if not proxy and not address:
            raise ValueError("neither proxy nor host is set")
        match termination.protocol:
            case Protocol.PJSIP:
                return _pjsip(number, proxy or pjsip_endpoint, address)
            case Protocol.SIP:
                return f"SIP/{number}@{proxy or address}"
            case Protocol.IAX2:
                return _iax2(number, proxy or address)
    except ValueError as error:
        raise NoDialString(str(error)) from None


def _pjsip(number: str, endpoint: str, address: str) -> str:
    """`#` needs no escape: chan_pjsip writes it as %23 into the INVITE itself (seen)."""
    if not endpoint:
        raise ValueError("PJSIP reaches a host through an endpoint, and none is set")
    name = check_proxy(endpoint)
    return f"PJSIP/{name}/sip:{number}@{address}" if address else f"PJSIP/{number}@{name}"


def _iax2(number: str, place: str) -> str:
    """chan_iax2 ends the host at the first colon, in brackets or not (seen in Asterisk 22)."""
    if place.startswith("["):
        raise ValueError(f"IAX2 cannot dial the IPv6 address {place}: expected a proxy or a name")
    return f"IAX2/{place}/{number}"


def _address(termination: Termination) -> str:
    """HOST[:PORT], an IPv6 address in brackets; empty if there is none. Raises ValueError."""
    if termination.routing_ip:
        host = check_address(termination.routing_ip)
    elif termination.host:
        host = check_host(termination.host)
    else:
        return ""
    place = f"[{host}]" if ":" in host else host
    port = termination.port
    if port is None:
        return place
    if not 1 <= port <= MOST_PORT:
        raise ValueError(f"port {port}: expected 1 to {MOST_PORT}")
    return f"{place}:{port}"


@lru_cache(maxsize=_HOSTS_KEPT)
def _is_host_name(text: str) -> bool:
    return len(text) <= MOST_HOST and _HOST_NAME.fullmatch(text) is not None


@lru_cache(maxsize=_HOSTS_KEPT)
def _is_address(text: str) -> bool:
    address = IPv6Address if ":" in text else IPv4Address
    try:
        return "%" not in text and bool(address(text).packed)
    except AddressValueError:
        return False
