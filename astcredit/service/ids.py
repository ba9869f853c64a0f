"""Ids of calls: made before the transaction, so that a repeated request can be recognised."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from random import Random

# Crockford's base 32: no letter that reads like a digit.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
TIME_DIGITS = 9  # 45 bits of milliseconds: until the year 3084
RANDOM_DIGITS = 11  # 55 bits: two of a thousand processes never meet within a millisecond
LENGTH = TIME_DIGITS + RANDOM_DIGITS
_RANDOM_BITS = 5 * RANDOM_DIGITS
# Two digits at a time: an id is made for every call.
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_PLACES = range(5 * (LENGTH - 2), -1, -10)


class CallIds:
    """Makes ids of 20 characters that sort by time; within one process strictly. Each process has
    to make its own object: a copy would make the same ids."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        # Unlike by chance, not secret: the system is asked once and not for every call.
        self._random_bits = Random(secrets.randbits(256)).getrandbits
        self._last = 0

    def __call__(self) -> str:
        """A new id."""
        value = (self._now_ms() << _RANDOM_BITS) | self._random_bits(_RANDOM_BITS)
        self._last = value = max(value, self._last + 1)
        return "".join([_PAIRS[(value >> place) & 1023] for place in _PLACES])
