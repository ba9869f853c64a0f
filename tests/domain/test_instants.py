"""Instants have one meaning on every machine, and what could have two is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.instants import instant_text, parse_instant
from astcredit.domain.rating import MOST_INSTANT_MS

INSTANT_MS = 1_700_000_000_000
"""2023-11-14 22:13:20 UTC."""


@pytest.mark.parametrize(
    ("text", "instant_ms"),
    [
        ("1970-01-01", 0),
        ("2023-11-14T22:13:20Z", INSTANT_MS),
        ("2023-11-14 22:13:20", INSTANT_MS),
        ("2023-11-14 22:13:20.000", INSTANT_MS),
        ("2023-11-14T22:13:20.999999Z", INSTANT_MS + 999),
        ("2023-11-14T23:13:20+01:00", INSTANT_MS),
        ("2023-11-14T17:13:20-0500", INSTANT_MS),
        ("2023-11-14 22:13", INSTANT_MS - 20_000),
        ("2023-11-15T00:00+05:30", INSTANT_MS - 3 * 3600_000 - 43 * 60_000 - 20_000),
        ("9999-12-31T23:59:59.999", MOST_INSTANT_MS),
    ],
)
def test_an_instant_is_read(text: str, instant_ms: int) -> None:
    assert parse_instant(text) == instant_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026",
        "20261121",
        "2026-W01-1",
        "2026-13-01",
        "2026-02-30",
        "2026-11-21T25:00",
        "2026-11-21 ",
        "2026-11-21T20",
        "2026-11-21Z",
        "2026-11-21T20:00+99:00",
        "21/11/2026",
        "1969-12-31T23:59:59.999",
        "1970-01-01T00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "\u0662\u0660\u0662\u0666-11-21",
        "0000-00-00",
    ],
)
def test_an_instant_that_is_not_clear_is_refused_and_named(text: str) -> None:
    with pytest.raises(ValueError, match="expected a date or a date and time") as caught:
        parse_instant(text)
    assert repr(text) in str(caught.value)


@given(st.integers(0, MOST_INSTANT_MS))
def test_an_instant_is_read_back_from_its_text(instant_ms: int) -> None:
    assert parse_instant(instant_text(instant_ms)) == instant_ms


def test_the_text_of_an_instant_is_that_of_the_tables() -> None:
    assert instant_text(1_795_291_200_000) == "2026-11-21 20:00:00.000"
    assert instant_text(1) == "1970-01-01 00:00:00.001"
