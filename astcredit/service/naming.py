"""What people may name things, and what they are told when a name is not there.

A name is kept exactly as it was given or refused: one that was trimmed or cleaned in silence is
not found again by the script that made it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from astcredit.domain.text import printable
from astcredit.service.errors import RefusedError

T = TypeVar("T")

MOST_NAME = 80
"""Characters: what the columns hold. Asterisk's accountcode has room for as many."""

MOST_NOTE = 200
"""Characters of a note beside a ledger row: what the column holds."""

MOST_NOTES = 1_000
"""Characters of an account's notes: a paragraph, not a document."""

MOST_EMAIL = 254
"""Characters of an address that SMTP can carry (RFC 5321, errata 1690)."""

MOST_REFERENCE = 120
"""Characters of a booking's reference: what the column holds."""

_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def check_name(what: str, name: str, most: int = MOST_NAME) -> str:
    """`name`, if it can be one. Raises RefusedError that says what `what` may look like."""
    if not 1 <= len(name) <= most or not name.isprintable() or name != name.strip():
        raise RefusedError(
            f"{what} {shown_name(name)}: expected 1 to {most} printable characters,"
            " without a space at the beginning or end"
        )
    return name


def check_text(what: str, text: str, most: int) -> str:
    """`text`, empty or printable and short enough. Raises RefusedError."""
    if len(text) > most or not text.isprintable():
        raise RefusedError(
            f"{what} {shown_name(text)}: expected at most {most} printable characters"
        )
    return text


def check_currency(currency: str) -> str:
    """`currency`, if it looks like an ISO 4217 code. Raises RefusedError."""
    if _CURRENCY.fullmatch(currency) is None:
        raise RefusedError(
            f"currency {shown_name(currency)}: expected three capital letters, as EUR"
        )
    return currency


def check_email(email: str) -> str:
    """`email`, empty or an address. Raises RefusedError."""
    if email and (
        len(email) > MOST_EMAIL or not email.isprintable() or _EMAIL.fullmatch(email) is None
    ):
        raise RefusedError(f"email {shown_name(email)}: expected an address as anna@example.com")
    return email


def check_idents(idents: Sequence[str]) -> tuple[str, ...]:
    """The idents of an account, if they can be. Raises RefusedError."""
    if not idents:
        raise RefusedError("ident: expected at least one name that identifies the account")
    for ident in idents:
        check_name("ident", ident)
        if idents.count(ident) > 1:
            raise RefusedError(f"ident {shown_name(ident)}: expected each name once")
    return tuple(idents)


async def known(
    kind: str, name: str, found: T | None, names: Callable[[str], Awaitable[Sequence[str]]]
) -> T:
    """`found`, or RefusedError with the nearest of the names that are known."""
    if found is not None:
        return found
    close = difflib.get_close_matches(name, await names(kind), n=1)
    nearest = f"; the nearest is {shown_name(close[0])}" if close else ""
    raise RefusedError(f"there is no {kind} {shown_name(name)}{nearest}")


def already_there(kind: str, name: str) -> RefusedError:
    """The error for a name that is taken."""
    return RefusedError(f"{kind} {shown_name(name)} exists already")


def shown_name(text: str) -> str:
    """A name, or what was to be one, in quotes and safe for a terminal."""
    return printable(text, MOST_NAME)
