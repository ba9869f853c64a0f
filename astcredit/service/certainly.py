"""Transactions that change calls, until it is known what each of them did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from astcredit.service.errors import CommitUnknown
from astcredit.service.persistence import persistently

T = TypeVar("T")

MOST_UNKNOWN = 3
"""How often a COMMIT may get no answer, before a person has to look."""


async def certainly(attempt: Callable[[dict[str, T]], Awaitable[None]]) -> dict[str, T]:
    """What `attempt`, a whole transaction, did with calls: by their ids, noted before its COMMIT.

    It is tried again when it was rolled back, and when its COMMIT got no answer: what is found
    undone then was not done, and what is not there to be done any more had been. Raises
    CommitUnknown, TransientError.
    """
    lost: dict[str, T] = {}
    done: dict[str, T] = {}

    async def once() -> None:
        done.clear()
        await attempt(done)

    for _ in range(MOST_UNKNOWN):
        try:
            await persistently(once)
        except CommitUnknown:
            lost.update(done)
        else:
            return {**lost, **done}
    raise CommitUnknown("the database takes changes and does not answer; reconcile again")
