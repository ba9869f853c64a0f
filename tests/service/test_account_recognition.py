"""Whose call would this be? The answer is the servers' answer, with reasons."""

from __future__ import annotations

import pytest

from astcredit.domain.accounts import IdentKind
from astcredit.domain.calls import Origin
from astcredit.domain.numbers import Numbering
from astcredit.service.account_ports import Account
from astcredit.service.account_recognition import recognise
from astcredit.service.errors import RefusedError

IP, ANI = IdentKind.IP, IdentKind.ANI
UK = Numbering("44")

ACCOUNTS = (
    Account("net", "acme", ("10.0.0.0/8",), id=1, ident_by=IP),
    Account("host", "acme", ("10.0.0.1",), id=2, ident_by=IP),
    Account("prefixed", "beta", ("10.0.0.1",), id=3, ident_by=IP, tech_prefix="77"),
    Account("london", "beta", ("44207*",), id=4, ident_by=ANI),
)


def origin(source: str = "", callerid: str = "", name: str = "") -> Origin:
    return Origin("default", accountcode=name, source=source, callerid=callerid)


def test_the_chosen_account_and_the_others_are_told() -> None:
    found = recognise(ACCOUNTS, origin("10.0.0.1"), "7744207", UK)
    assert found.found is not None
    assert (found.found.account.name, found.found.number) == ("prefixed", "44207")
    assert found.accounts[3].client == "beta"
    assert [(one.account.name, one.chosen) for one in found.considered] == [
        ("prefixed", True),
        ("host", False),
        ("net", False),
    ]
    assert all(one.why for one in found.considered)
    assert not found.normalised


@pytest.mark.parametrize(
    ("callerid", "compared", "normalised"),
    [
        ("+442071234567", "+442071234567", False),
        ("02071234567", "442071234567", True),
        ("0207 123 4567", "442071234567", True),
    ],
)
def test_a_callers_number_is_looked_for_internationally_too(
    callerid: str, compared: str, normalised: bool
) -> None:
    found = recognise(ACCOUNTS, origin(callerid=callerid), "1", UK)
    assert found.found is not None
    assert found.found.account.name == "london"
    assert (found.callerid, found.normalised) == (compared, normalised)


def test_a_number_as_it_was_told_comes_before_its_international_form() -> None:
    exact = Account("exact", "acme", ("02071234567",), id=5, ident_by=ANI)
    found = recognise((*ACCOUNTS, exact), origin(callerid="02071234567"), "1", UK)
    assert found.found is not None
    assert found.found.account.name == "exact"


@pytest.mark.parametrize("callerid", ["", "anonymous", "+1"])
def test_nobody_is_an_answer(callerid: str) -> None:
    found = recognise(ACCOUNTS, origin("192.0.2.1", callerid), "1", UK)
    assert found.found is None
    assert not any(one.chosen for one in found.considered)


@pytest.mark.parametrize(
    "nonsense",
    [Account("twin", "acme", ("10.0.0.1",), id=9, ident_by=IP), Account("x", "a", ("x;",), id=9)],
)
def test_accounts_that_no_server_would_take_are_refused(nonsense: Account) -> None:
    with pytest.raises(RefusedError, match="make no sense"):
        recognise((*ACCOUNTS, nonsense), origin("10.0.0.1"), "1", UK)
