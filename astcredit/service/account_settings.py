"""What each setting of an account may be, by itself.

Every check returns the value in the form in which it is kept, or raises `SettingError`. What the
settings of one account demand of each other: account_rules.py; what others' do: account_checks.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from astcredit.domain.accounts import IdentKind
from astcredit.domain.dialing import MOST_PORT, check_address, check_host, check_proxy
from astcredit.domain.identification import parse_ident
from astcredit.domain.numbers import MOST_DIGITS
from astcredit.domain.text import printable
from astcredit.service.catalog_rules import parse_capacity
from astcredit.service.errors import RefusedError
from astcredit.service.naming import MOST_NAME

T = TypeVar("T")

SEPARATOR: Final = ";"
"""Between the idents, DIDs and gateways of an account, wherever they are one text."""

MOST_TECH_PREFIX: Final = 20
"""Digits: what the column holds. Carriers' tech prefixes have three to eight."""

MOST_LIST: Final = 65_535
"""Bytes of a list of idents or DIDs: what MariaDB's TEXT holds."""

MOST_GATEWAYS: Final = 400
"""Characters of a list of gateways: what the column holds."""

IDENTS_EXPECTED: Final = "at least one, by which its calls are recognised"
PORT_EXPECTED: Final = f"a port from 1 to {MOST_PORT}"
TECH_PREFIX_EXPECTED: Final = f"at most {MOST_TECH_PREFIX} digits"
DID_EXPECTED: Final = f"a telephone number of 1 to {MOST_DIGITS} digits, with the country code"
GATEWAY_EXPECTED: Final = (
    "the name of an Asterisk server: 1 to 64 letters, digits, '.', '_', ':' or '-'"
)

_TECH_PREFIX: Final = re.compile(rf"[0-9]{{0,{MOST_TECH_PREFIX}}}")
_DID: Final = re.compile(rf"\+?([0-9]{{1,{MOST_DIGITS}}})")
# What the scripts take for a node.
_GATEWAY: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_PORT: Final = re.compile(r"[0-9]{1,5}")

_LABELS: Final = {
    "src_policy": "source policy",
    "dids": "DID",
    "gateways": "gateway",
    "routing_ip": "routing IP",
    "term_enabled": "terminator",
}


class SettingError(RefusedError):
    """A setting of an account that cannot be: which column, the value, what was expected."""

    def __init__(self, column: str, value: str, expected: str) -> None:
        self.column: Final = column
        self.value: Final = value
        self.expected: Final = expected
        label = _LABELS.get(column, column.replace("_", " "))
        super().__init__(f"{label} {printable(value, MOST_NAME)}: expected {expected}")


def checked_idents(kind: IdentKind, idents: Sequence[str]) -> tuple[str, ...]:
    """The idents in canonical form; each once, at least one."""
    if not idents:
        raise SettingError("ident", "", IDENTS_EXPECTED)
    # What is no name is not kept as it was written anyhow.
    texts = idents if kind is IdentKind.NAME else [text.strip() for text in idents]
    found = tuple(
        _asked("ident", text, lambda text: parse_ident(kind, text).text) for text in texts
    )
    return _listed("ident", found)


def checked_dids(dids: Iterable[str]) -> tuple[str, ...]:
    """The numbers that an account may present, as digits; each once."""
    found = []
    for did in dids:
        match = _DID.fullmatch(did)
        if match is None:
            raise SettingError("dids", did, DID_EXPECTED)
        found.append(match[1])
    return _listed("dids", tuple(found))


def checked_gateways(gateways: Iterable[str]) -> tuple[str, ...]:
    """The Asterisk servers for which an account counts; each once."""
    found = tuple(gateways)
    for gateway in found:
        if _GATEWAY.fullmatch(gateway) is None:
            raise SettingError("gateways", gateway, GATEWAY_EXPECTED)
    return _listed("gateways", found, MOST_GATEWAYS)


def checked_tech_prefix(text: str) -> str:
    """The digits before the number that tell accounts apart; empty for none."""
    if _TECH_PREFIX.fullmatch(text) is None:
        raise SettingError("tech_prefix", text, TECH_PREFIX_EXPECTED)
    return text


def checked_text(column: str, text: str, most: int) -> str:
    """A tag or notes: empty, or printable and short enough.

    Outer spaces would not come back from a file, where they do not matter.
    """
    if len(text) > most or not text.isprintable() or text != text.strip():
        expected = f"at most {most} printable characters, without a space at the beginning or end"
        raise SettingError(column, text, expected)
    return text


def checked_host(text: str) -> str:
    """A terminator's host; empty for none."""
    return text and _asked("host", text, check_host)


def checked_proxy(text: str) -> str:
    """Asterisk's name for a terminator; empty for none."""
    return text and _asked("proxy", text, check_proxy)


def checked_routing_ip(text: str) -> str:
    """The address to use in place of the host; empty for none."""
    return text and _asked("routing_ip", text, check_address)


def read_port(text: str) -> int | None:
    """The port that a text is; empty for none."""
    if text == "":
        return None
    if _PORT.fullmatch(text) is None or not 1 <= int(text) <= MOST_PORT:
        raise SettingError("port", text, PORT_EXPECTED)
    return int(text)


def read_capacity(column: str, text: str) -> int | None:
    """The capacity that a text is; empty for no limit."""
    return _asked(column, text, parse_capacity)


def checked_port(port: int | None) -> int | None:
    """A port; None for the protocol's own."""
    return None if port is None else read_port(str(port))


def checked_capacity(column: str, calls: int | None) -> int | None:
    """A capacity; None for no limit."""
    return None if calls is None else read_capacity(column, str(calls))


def split_list(text: str) -> tuple[str, ...]:
    """The items of a list that is written as one text; none for an empty one."""
    return tuple(text.split(SEPARATOR)) if text else ()


def _asked(column: str, text: str, check: Callable[[str], T]) -> T:
    """What a check of the domain says; its error is "VALUE: expected EXPECTATION"."""
    try:
        return check(text)
    except ValueError as error:
        raise SettingError(column, text, str(error).rpartition(": expected ")[2]) from None


def _listed(column: str, texts: tuple[str, ...], most: int = MOST_LIST) -> tuple[str, ...]:
    """The texts, if each is there once and all fit into the column."""
    if len(set(texts)) < len(texts):
        double = next(text for index, text in enumerate(texts) if text in texts[:index])
        raise SettingError(column, double, "each of them once")
    joined = SEPARATOR.join(texts)
    if len(joined.encode("utf-8", "replace")) > most:
        raise SettingError(column, joined, f"at most {most} bytes together")
    return texts
