"""The number that a call presents, by the account's policy and the numbers that it owns."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from astcredit.domain.accounts import SourcePolicy
from astcredit.domain.draws import draw
from astcredit.domain.numbers import Numbering
from astcredit.domain.source_policy import presented
from support.core import account

DIDS = ("442071234567", "442079999999", "18005550199")
UK = Numbering("44")

OWN_FORMS = [
    "442071234567",
    "+442071234567",
    "00442071234567",
    "02071234567",  # as it is dialled at home
    "020 7123-4567",
    "+44 (20) 7123-4567",
    "+1 800 555 0199",
    "0018005550199",
]
FOREIGN_FORMS = [
    "442071234568",
    "2071234567",  # without its trunk prefix nothing is guessed
    "44207123456",
    "4420712345678",
    "+02071234567",
    "anonymous",
    "",
    "442071234567;442079999999",
    "sip:442071234567@example.com",
    "٤٤٢٠٧١٢٣٤٥٦٧",
]


def ask(policy: SourcePolicy, callerid: str, key: str = "c", dids: tuple[str, ...] = DIDS) -> str:
    """What is presented; "-" for a rejected call."""
    owner = replace(account("a"), source_policy=policy, dids=dids)
    found = presented(owner, callerid, UK, key)
    return "-" if found is None else found


@pytest.mark.parametrize("callerid", OWN_FORMS)
@pytest.mark.parametrize("policy", SourcePolicy)
def test_one_of_its_numbers_is_presented_as_it_came(policy: SourcePolicy, callerid: str) -> None:
    assert ask(policy, callerid) == callerid


@pytest.mark.parametrize("callerid", FOREIGN_FORMS)
def test_a_number_that_is_not_the_accounts(callerid: str) -> None:
    assert ask(SourcePolicy.ALLOW_ANY, callerid) == callerid
    assert ask(SourcePolicy.REJECT, callerid) == "-"
    assert ask(SourcePolicy.OVERWRITE, callerid) in DIDS


@pytest.mark.parametrize("policy", [SourcePolicy.REJECT, SourcePolicy.OVERWRITE])
def test_who_has_no_number_can_present_none(policy: SourcePolicy) -> None:
    """Nothing is put in the place of a number by guessing."""
    assert ask(policy, "442071234567", dids=()) == "-"
    assert ask(policy, "", dids=()) == "-"


def test_each_number_is_drawn_as_often_as_the_others() -> None:
    """3,000 calls: four standard deviations either way."""
    drawn = Counter(ask(SourcePolicy.OVERWRITE, "x", f"call-{n}") for n in range(3_000))
    assert set(drawn) == set(DIDS)
    assert all(abs(times - 1_000) < 104 for times in drawn.values())


def test_the_same_call_presents_the_same_number_when_it_is_decided_again() -> None:
    for key in ("a", "b", "c"):
        assert len({ask(SourcePolicy.OVERWRITE, "x", key) for _ in range(5)}) == 1


def test_the_draw_says_nothing_about_the_draw_of_a_route() -> None:
    """Both begin with the call's id: were they one draw, each number had its own carrier."""
    pairs = {
        (ask(SourcePolicy.OVERWRITE, "x", f"call-{n}"), draw(f"call-{n}:21:3", 3))
        for n in range(200)
    }
    assert len(pairs) == 9
