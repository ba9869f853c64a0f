"""Text that others wrote is shown on one line, escaped and cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "''"),
        ("44", "'44'"),
        ("4\n\x1b[0m", r"'4\n\x1b[0m'"),
        ("it's", '"it\'s"'),
        ("\u202e44", r"'\u202e44'"),
        ("1" * 40, f"'{'1' * 40}'"),
        ("1" * 41, f"'{'1' * 40}…'"),
    ],
)
def test_foreign_text_is_shown_in_quotes_escaped_and_cut(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(), st.integers(1, 50))
def test_foreign_text_is_never_shown_longer_than_asked(text: str, most: int) -> None:
    assert len(printable(text, most)) <= most + 3
    assert printable(text, most).isprintable()
