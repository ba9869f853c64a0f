"""The options by which Asterisk ends a call in time."""

from __future__ import annotations

import pytest

from astcredit.domain.dialing import limit_option


@pytest.mark.parametrize(
    ("seconds", "warn", "repeat", "option"),
    [
        (754, 60, 30, "L(754000:60000:30000)"),
        (754, 60, 0, "L(754000:60000)"),
        (754, 0, 30, "L(754000)"),  # nothing to repeat
        (754, 0, 0, "L(754000)"),
        (61, 60, 30, "L(61000:60000:30000)"),
        (60, 60, 30, "L(60000)"),  # not longer than the warning time: no warning
        (2, 60, 30, "L(2000)"),
        (1, 1, 1, "L(1000)"),
    ],
)
def test_limit_option(seconds: int, warn: int, repeat: int, option: str) -> None:
    assert limit_option(seconds, warn, repeat) == option
