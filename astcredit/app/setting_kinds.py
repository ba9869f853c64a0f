"""Kinds of settings: how a value is read, and how the expectation is put in words.

A parser takes what TOML or the environment gives (`Raw`) and returns the typed value, or raises
ValueError without a text: what a person is told is the kind's `expects`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from astcredit.domain import notices

T = TypeVar("T")

Raw: TypeAlias = object
"""A value as it came: text from the environment or the command line, any TOML type from a file."""

Network: TypeAlias = IPv4Network | IPv6Network

_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+)):([0-9]{1,5})", re.ASCII)
_DATABASE = re.compile(r"sqlite:///.+|mysql://[^/]+/[^/?]+(?:\?.*)?", re.ASCII | re.DOTALL)
_HIGHEST_PORT = 65_535

HIDDEN = "***"
"""What is shown in place of a secret."""


class HostPort(NamedTuple):
    """A TCP address to listen on. Port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of value: `parse` reads one, `expects` says what a person should have written.

    `hidden`: the whole value is a secret, and not only a password within an address.
    """

    expects: str
    parse: Callable[[Raw], T]
    hidden: bool = False


def whole(low: int, high: int) -> Kind[int]:
    """A whole number from `low` to `high`."""

    def parse(raw: Raw) -> int:
        if isinstance(raw, str) and re.fullmatch(r"[0-9]{1,18}", raw.strip(), re.ASCII):
            raw = int(raw)
        if not isinstance(raw, int) or isinstance(raw, bool) or not low <= raw <= high:
            raise ValueError
        return raw

    return Kind(f"a whole number from {low} to {high}", parse)


def flag() -> Kind[bool]:
    """True or false."""

    def parse(raw: Raw) -> bool:
        if isinstance(raw, bool):
            return raw
        if (text := _text(raw).lower()) not in _FLAGS:
            raise ValueError
        return _FLAGS[text]

    return Kind("true or false", parse)


def word(*words: str) -> Kind[str]:
    """One of a few words, in any case."""

    def parse(raw: Raw) -> str:
        if (text := _text(raw).lower()) not in words:
            raise ValueError
        return text

    return Kind(f"one of {', '.join(words)}", parse)


def digits(most: int) -> Kind[str]:
    """Up to `most` digits, perhaps none. Text, because of a zero in front."""

    def parse(raw: Raw) -> str:
        if not re.fullmatch(rf"[0-9]{{0,{most}}}", text := _text(raw)):
            raise ValueError
        return text

    return Kind(f'up to {most} digits in quotes, "" for none', parse)


def digits_list(most: int) -> Kind[tuple[str, ...]]:
    """Numbers or prefixes of one to `most` digits, perhaps none."""

    def parse(raw: Raw) -> tuple[str, ...]:
        values = _texts(raw)
        if not all(re.fullmatch(rf"[0-9]{{1,{most}}}", value) for value in values):
            raise ValueError
        return values

    return Kind(f"numbers of 1 to {most} digits, separated by commas", parse)


def percents() -> Kind[tuple[int, ...]]:
    """Percentages, perhaps none, in rising order."""

    def parse(raw: Raw) -> tuple[int, ...]:
        values = [str(value) for value in raw] if isinstance(raw, list) else list(_texts(raw))
        if not all(re.fullmatch(r"[0-9]{1,3}", value, re.ASCII) for value in values):
            raise ValueError
        percents = tuple(map(int, values))
        if list(percents) != sorted(set(percents)) or not all(1 <= p <= 100 for p in percents):
            raise ValueError
        return percents

    return Kind('percentages from 1 to 100, rising, separated by commas, "" for none', parse)


def asterisk_name() -> Kind[str]:
    """A name that Asterisk has for something: of an endpoint, a peer, a section."""

    def parse(raw: Raw) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", text := _text(raw), re.ASCII):
            raise ValueError
        return text

    return Kind("1 to 80 letters, digits and _ . -", parse)


def line(most: int) -> Kind[str]:
    """One line of text, perhaps empty."""

    def parse(raw: Raw) -> str:
        if len(text := _text(raw)) > most or not text.isprintable():
            raise ValueError
        return text

    return Kind(f'up to {most} printable characters, "" for none', parse)


def password() -> Kind[str]:
    """A password, perhaps none; shown nowhere, and spaces around it count."""

    def parse(raw: Raw) -> str:
        if not isinstance(raw, str) or not raw.isprintable():
            raise ValueError
        return raw

    return Kind("printable characters", parse, hidden=True)


def mail_address() -> Kind[str]:
    """An address of a mailbox, perhaps none."""

    def parse(raw: Raw) -> str:
        return notices.mail_address(text) if (text := _text(raw)) else ""

    return Kind('an address as anna@example.com, "" for none', parse)


def mail_addresses() -> Kind[tuple[str, ...]]:
    """Addresses of mailboxes, perhaps none."""

    def parse(raw: Raw) -> tuple[str, ...]:
        return tuple(map(notices.mail_address, _texts(raw)))

    return Kind("addresses as anna@example.com, separated by commas", parse)


def address() -> Kind[HostPort]:
    """A TCP address to listen on."""
    return Kind("HOST:PORT or [IPV6]:PORT", _address)


def optional_address() -> Kind[HostPort | None]:
    """A TCP address to listen on, or nothing."""

    def parse(raw: Raw) -> HostPort | None:
        return _address(raw) if _text(raw) else None

    return Kind('HOST:PORT or [IPV6]:PORT, "" to switch it off', parse)


def networks() -> Kind[tuple[Network, ...]]:
    """IP networks or single addresses. An address with bits beyond its mask is a typing error."""

    def parse(raw: Raw) -> tuple[Network, ...]:
        return tuple(ip_network(text) for text in _texts(raw))

    return Kind("networks as 10.1.0.0/16 or ::1, separated by commas", parse)


def ami_urls() -> Kind[tuple[str, ...]]:
    """Addresses of Asterisk's manager interface; taken apart by the layer that connects."""

    def parse(raw: Raw) -> tuple[str, ...]:
        urls = _texts(raw)
        if not all(url.startswith("ami://") for url in urls):
            raise ValueError
        return urls

    return Kind("ami://USER:SECRET@HOST:PORT/NODE, separated by commas", parse)


def database_url() -> Kind[str]:
    """The address of a database; taken apart by the layer that connects."""

    def parse(raw: Raw) -> str:
        if not _DATABASE.fullmatch(url := _text(raw)):
            raise ValueError
        return url

    return Kind("sqlite:///PATH or mysql://USER:PASSWORD@HOST[:PORT]/NAME", parse)


def hide_secrets(text: str) -> str:
    """A URL without what stands between its user and its host."""
    scheme, separator, rest = text.partition("://")
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}{separator}{user}{f':{HIDDEN}' if colon else ''}{at}{place}"


def secret_of(text: str) -> str:
    """What `hide_secrets` takes out of a URL; empty if there is nothing."""
    login, at, _ = text.partition("://")[2].rpartition("@")
    return login.partition(":")[2] if at else ""


def has_secret(text: str) -> bool:
    """Whether a URL carries a password."""
    return hide_secrets(text) != text


def _text(raw: Raw) -> str:
    if not isinstance(raw, str):
        raise ValueError
    return raw.strip()


def _texts(raw: Raw) -> tuple[str, ...]:
    """A TOML list of texts, or one text with commas; empty parts do not count."""
    parts = [_text(part) for part in (raw if isinstance(raw, list) else _text(raw).split(","))]
    return tuple(part for part in parts if part)


def _address(raw: Raw) -> HostPort:
    match = _ADDRESS.fullmatch(_text(raw))
    if match is None or int(match[3]) > _HIGHEST_PORT:
        raise ValueError
    return HostPort(match[1] or match[2], int(match[3]))
