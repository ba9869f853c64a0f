"""What people may name things: refused or kept as given, never changed in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from astcredit.domain.notices import MOST_ADDRESS
from astcredit.service.errors import RefusedError
from astcredit.service.naming import (
    MOST_NAME,
    check_currency,
    check_email,
    check_name,
    check_text,
    known,
)

HOSTILE = ("", " ", " a", "a ", "a\n", "a\x00b", "\x1b[2J", "a\u202eb", "a\u200b", "\udc80")


@pytest.mark.parametrize("name", ["a", "Ärzte & Söhne", "x" * MOST_NAME, "'; DROP TABLE", "名前"])
def test_a_name_is_kept_as_it_was_given(name: str) -> None:
    assert check_name("client", name) == name


@pytest.mark.parametrize("name", [*HOSTILE, "x" * (MOST_NAME + 1)])
def test_a_name_that_could_not_be_read_is_refused_in_one_printable_line(name: str) -> None:
    with pytest.raises(RefusedError) as refused:
        check_name("client", name)
    assert str(refused.value).isprintable()
    assert "client" in str(refused.value)


@pytest.mark.parametrize("text", ["", "two words ", "x" * 5])
def test_a_text_may_be_empty(text: str) -> None:
    assert check_text("tag", text, 11) == text


@pytest.mark.parametrize("text", ["a\tb", "x" * 12])
def test_a_text_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match="tag"):
        check_text("tag", text, 11)


def test_a_currency_is_three_capital_letters() -> None:
    assert check_currency("EUR") == "EUR"
    for wrong in ("eur", "EURO", "EU", "E1R", "ÄÖÜ", "", "EUR\n"):
        with pytest.raises(RefusedError, match="currency"):
            check_currency(wrong)


def test_an_email_is_empty_or_an_address() -> None:
    for right in ("", "anna@example.com", "a+b@localhost"):
        assert check_email(right) == right
    for wrong in ("anna", "@", "a b@c", "a@b@c", "a@b\n", f"{'a' * MOST_ADDRESS}@b"):
        with pytest.raises(RefusedError, match="email"):
            check_email(wrong)


def test_an_unknown_name_is_answered_with_the_nearest_known_one() -> None:
    async def names(kind: str) -> Sequence[str]:
        return ["acme", "beta"] if kind == "client" else []

    assert asyncio.run(known("client", "acme", "found", names)) == "found"
    with pytest.raises(RefusedError, match="no client 'acmee'; the nearest is 'acme'"):
        asyncio.run(known("client", "acmee", None, names))
    with pytest.raises(RefusedError, match=r"^there is no account 'zzz'$"):
        asyncio.run(known("account", "zzz", None, names))
