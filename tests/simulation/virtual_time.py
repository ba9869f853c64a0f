"""An asyncio loop in which time passes only when everybody waits: an hour takes a moment.

There is no I/O in it, so nothing but the code and the seed decides what happens when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class StuckError(RuntimeError):
    """Everybody waits for somebody else: nothing will ever happen again."""


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop whose `select` moves the clock to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self  # BaseEventLoop asks it for events and lets it wait

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    def select(self, timeout: float | None) -> tuple[()]:
        """Wait for the next timer: be there."""
        if timeout is None:
            raise StuckError("every task waits and no timer is set")
        if timeout > 0:
            self._now += timeout
        return ()

    def _process_events(self, _events: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """No other thread has to wake this one."""


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in virtual time; tasks that are left are cancelled at the end."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        _cancel_all(loop)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _cancel_all(loop: VirtualLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
