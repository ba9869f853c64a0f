"""What people may name things, and what they are told when a name is not there.

A name is kept exactly as it was given or refused: one that was trimmed or cleaned in silence is
not found again by the script that made it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from astcredit.domain.notices import mail_address
from astcredit.domain.text import printable
from astcredit.service.errors import RefusedError

T = TypeVar("T")

MOST_NAME = 80
"""Characters: what the columns hold. Asterisk's accountcode has room for as many."""

MOST_NOTE = 200
"""Characters of a note beside a ledger row: what the column holds."""

MOST_NOTES = 1_000
"""Characters of an account's notes: a paragraph, not a document."""

MOST_REFERENCE = 120
"""Characters of a booking's reference: what the column holds."""

_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


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
    if email:
        try:
            mail_address(email)
        except ValueError:
            expected = "expected an address as anna@example.com"
            raise RefusedError(f"email {shown_name(email)}: {expected}") from None
    return email


async def known(
    kind: str, name: str, found: T | None, names: Callable[[str], Awaitable[Sequence[str]]]
) -> T:
    """`found`, or RefusedError with the nearest of the names that are known."""
    if found is not None:
        return found
    close = difflib.get_close_matches(name, await names(kind), n=1)
    nearest = f"; the nearest is {shown_name(close[0])}" if close else ""
    raise RefusedError(f"there is no {kind} {shown_name(name)}{nearest}")


def appear(words: Iterable[str], texts: Sequence[str]) -> bool:
    """Whether every word is in one of the texts at least, in capitals or not: a quick search."""
    folded = [text.casefold() for text in texts]
    return all(any(word.casefold() in text for text in folded) for word in words)


def already_there(kind: str, name: str) -> RefusedError:
    """The error for a name that is taken."""
    return RefusedError(f"{kind} {shown_name(name)} exists already")


def shown_name(text: str) -> str:
    """A name, or what was to be one, in quotes and safe for a terminal."""
    return printable(text, MOST_NAME)
