"""Dialled numbers become E.164 digits, and what is not a number is refused without an echo."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.numbers import InvalidNumber, Numbering, default_international_prefixes

NOWHERE = Numbering()
BRITAIN = Numbering("44")
AMERICA = Numbering("1", trunk_prefix="1")
RUSSIA = Numbering("7", trunk_prefix="8", international_prefixes=("810",))
ITALY = Numbering("39", trunk_prefix="")
AUSTRALIA = Numbering("61", international_prefixes=("001", "0011", "0014"))


def outcome_of(numbering: Numbering, raw: str) -> str:
    """The number, or the text of the refusal."""
    try:
        return numbering.normalise(raw)
    except InvalidNumber as error:
        return str(error)


@pytest.mark.parametrize(
    ("numbering", "raw", "number"),
    [
        (NOWHERE, "442071234567", "442071234567"),
        (NOWHERE, "+442071234567", "442071234567"),
        (NOWHERE, "00442071234567", "442071234567"),
        (NOWHERE, "011442071234567", "442071234567"),
        (NOWHERE, "02071234567", "02071234567"),
        (NOWHERE, "+44 (20) 7123-45.67", "442071234567"),
        (NOWHERE, "44/20/7123", "44207123"),
        (NOWHERE, "112", "112"),
        (BRITAIN, "02071234567", "442071234567"),
        (BRITAIN, "01132345678", "441132345678"),
        (BRITAIN, "(0113) 234 5678", "441132345678"),
        (BRITAIN, "0033142345678", "33142345678"),
        (BRITAIN, "+33142345678", "33142345678"),
        (BRITAIN, "33142345678", "33142345678"),
        (BRITAIN, "999", "999"),
        (AMERICA, "12125551234", "12125551234"),
        (AMERICA, "011442071234567", "442071234567"),
        (AMERICA, "+442071234567", "442071234567"),
        (AMERICA, "911", "911"),
        (RUSSIA, "84951234567", "74951234567"),
        (RUSSIA, "810442071234567", "442071234567"),
        (RUSSIA, "+81312345678", "81312345678"),
        (ITALY, "0612345678", "0612345678"),
        (ITALY, "00442071234567", "442071234567"),
        (AUSTRALIA, "0011442071234567", "442071234567"),
        (AUSTRALIA, "0014442071234567", "442071234567"),
        (AUSTRALIA, "0212345678", "61212345678"),
        (NOWHERE, "1" * 32, "1" * 32),
    ],
)
def test_normalisation_table(numbering: Numbering, raw: str, number: str) -> None:
    assert numbering.normalise(raw) == number


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "+",
        "00",
        "()",
        " - ",
        "++44",
        "4+4",
        "44a",
        "anonymous",
        "1" * 33,
        "44,1",
        "44&PJSIP/x",
        "44;DROP TABLE",
        "44\r\n",
        "44\x00",
        "44\t1",
        "\u0664\u0664",
        "\uff14\uff14",
        "44\u00b2",
        "*43",
        "44#",
        "${EXTEN}",
    ],
)
@pytest.mark.parametrize("numbering", [NOWHERE, BRITAIN])
def test_what_is_not_a_number_is_refused(numbering: Numbering, raw: str) -> None:
    with pytest.raises(InvalidNumber, match="expected a telephone number of 1 to 32 digits"):
        numbering.normalise(raw)


def test_the_limit_counts_the_digits_of_the_result() -> None:
    assert BRITAIN.normalise("0" + "2" * 30) == "44" + "2" * 30
    with pytest.raises(InvalidNumber):
        BRITAIN.normalise("0" + "2" * 31)


@given(st.text() | st.text("+0123456789 -./()", max_size=40), st.sampled_from([NOWHERE, BRITAIN]))
def test_whatever_comes_is_a_number_or_one_harmless_line(raw: str, numbering: Numbering) -> None:
    outcome = outcome_of(numbering, raw)
    refusal = outcome.removesuffix(": expected a telephone number of 1 to 32 digits")
    assert outcome.isprintable()
    assert len(refusal) <= 43
    assert refusal != outcome or re.fullmatch("[0-9]{1,32}", outcome)


@given(st.text("123456789", min_size=4, max_size=15))
def test_all_ways_to_dial_a_foreign_number_give_the_same(number: str) -> None:
    for numbering in (NOWHERE, BRITAIN, ITALY):
        ways = (f"+{number}", f"00{number}", number, f"+{number[:2]} ({number[2:3]}) {number[3:]}")
        assert {numbering.normalise(way) for way in ways} == {number}


@pytest.mark.parametrize(
    ("country_code", "prefixes"), [("", ("00", "011")), ("1", ("011",)), ("44", ("00",))]
)
def test_default_international_prefixes(country_code: str, prefixes: tuple[str, ...]) -> None:
    assert default_international_prefixes(country_code) == prefixes


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("country_code", {"country_code": "+44"}),
        ("country_code", {"country_code": "044"}),
        ("country_code", {"country_code": "4444"}),
        ("trunk_prefix", {"trunk_prefix": "x"}),
        ("trunk_prefix", {"trunk_prefix": "123456789"}),
        ("international_prefixes", {"international_prefixes": ("00", "")}),
        ("international_prefixes", {"international_prefixes": ("+",)}),
    ],
)
def test_a_bad_setting_names_itself(field: str, arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: '.*': expected"):
        Numbering(**arguments)  # type: ignore[arg-type]
