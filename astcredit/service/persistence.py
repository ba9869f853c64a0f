"""Trying again what a passing trouble of the database interrupted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from astcredit.service.errors import TransientError

T = TypeVar("T")

MOST_TRIES = 10
"""A deadlock is gone the second time. But a lock is given up after three seconds, and on a busy
disk dozens of programs can queue for SQLite's only one: half a minute is what a person waits."""


async def persistently(attempt: Callable[[], Awaitable[T]]) -> T:
    """The result of `attempt`, a whole transaction, repeated when it was rolled back.

    Raises TransientError when the last try meets one too; CommitUnknown at once.
    """
    for _ in range(MOST_TRIES - 1):
        try:
            return await attempt()
        except TransientError:
            continue
    return await attempt()
