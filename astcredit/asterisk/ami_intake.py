"""What one connection to Asterisk has sent and nobody has handled yet: handled in slices, in order.

After a freeze of this process, or when calls come faster than they are handled, megabytes of events
arrive at once. They are handled a slice at a time, so that others have their turn in between, and
none is dropped: what waits is kept, and from MOST_WAITING_BYTES on nothing more is read until half
of it is done. The network then holds Asterisk back.

What Asterisk 22 does when it is held back: the kernels' buffers take some megabytes (3 MB over the
loopback, seen with a peer that read nothing), then a write has to wait. When one message could not
be written for `writetimeout` (manager.conf, 100 ms unless set) it is left cut in the middle, the
session ends and the socket is closed; whatever else waited for that session is gone. There are no
gaps before that: the end of the connection is what tells of a loss, and recovery finds out what it
was. So it is better to read and keep, and MOST_WAITING_BYTES is large.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

SLICE_SECONDS: Final = 0.01
"""Some thousand events. What else the event loop has to do waits for so long, or for twice that
where it began by waiting for a timer: a question of a dialplan is still answered in its time."""

MOST_WAITING_BYTES: Final = 32 * 1024 * 1024
"""50,000 events, three seconds of what the busiest Asterisk sends and about one of work."""

BEHIND_SECONDS: Final = 1.0
"""Older than this, an event that waits is worth a line in the log: calls end late in the books, and
capacity stays taken."""

_log = logging.getLogger(__name__)


class _Piece(NamedTuple):
    """What one read brought, and when."""

    arrived: float
    data: bytes


class Intake:
    """Hands the messages that `cut` finds in what a connection brings to `take`, in their order.

    `node` is for the log, `clock` tells seconds that only go forward. All methods belong to the
    event loop; the two properties may be read from any thread.
    """

    def __init__(
        self,
        node: str,
        transport: asyncio.Transport,
        cut: Callable[[bytes], list[bytes]],
        take: Callable[[bytes], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._transport = transport
        self._cut = cut
        self._take = take
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[_Piece] = deque()
        self._messages: Iterator[bytes] | None = None
        self._scheduled = False
        self._paused = False
        self._warned = False
        self._oldest: float | None = None
        self._then: Callable[[], None] | None = None
        self._waiting_bytes = 0

    @property
    def behind_seconds(self) -> float:
        """For how long the oldest message that is not handled has waited here; 0 if none does."""
        oldest = self._oldest
        return 0.0 if oldest is None else max(0.0, self._clock() - oldest)

    @property
    def waiting_bytes(self) -> int:
        """The size of what has arrived and is not handled, in whole pieces."""
        return self._waiting_bytes

    def put(self, data: bytes) -> None:
        """A piece of the stream arrived. It is handled soon, not at once: who calls may have more,
        and all of it together is not to hold up others."""
        self._pieces.append(_Piece(self._clock(), data))
        self._waiting_bytes += len(data)
        self._oldest = self._pieces[0].arrived
        if self._waiting_bytes > MOST_WAITING_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._schedule()

    def finish(self, then: Callable[[], None]) -> None:
        """Nothing more will come: call `then` as soon as nothing waits; only the first `then`."""
        self._then = self._then or then
        if not self._pieces:
            self._end()

    def drain(self) -> None:
        """Handle all that waits now, however long it takes."""
        while self._pieces:
            self._handle(until=float("inf"))
        self._caught_up()

    def drop(self) -> None:
        """Forget what waits: it follows something that could not be understood."""
        self._pieces.clear()
        self._messages, self._waiting_bytes, self._oldest = None, 0, None

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._slice)

    def _slice(self) -> None:
        self._scheduled = False
        self._warn()
        self._handle(until=self._clock() + SLICE_SECONDS)
        self._resume()
        if self._pieces:
            self._schedule()
        else:
            self._caught_up()

    def _handle(self, until: float) -> None:
        """Handle messages until some instant, or until none waits."""
        take, clock = self._take, self._clock
        while self._pieces:
            if self._messages is None:
                self._messages = iter(self._cut(self._pieces[0].data))
            for message in self._messages:
                take(message)
                if clock() > until or not self._pieces:  # time is up, or all was dropped
                    return
            self._messages = None
            self._waiting_bytes -= len(self._pieces.popleft().data)
            self._oldest = self._pieces[0].arrived if self._pieces else None

    def _resume(self) -> None:
        if self._paused and self._waiting_bytes <= MOST_WAITING_BYTES // 2:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _warn(self) -> None:
        behind = self.behind_seconds
        if behind > BEHIND_SECONDS and not self._warned:
            self._warned = True
            extra = {"seconds": round(behind, 3), "bytes": self._waiting_bytes}
            _log.warning("AMI listener is behind", extra=self._extra("ami_behind") | extra)

    def _caught_up(self) -> None:
        if self._warned:
            self._warned = False
            _log.warning("AMI listener has caught up", extra=self._extra("ami_caught_up"))
        self._end()

    def _end(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            then()

    def _extra(self, action: str) -> dict[str, object]:
        return {"action": action, "node": self._node}
