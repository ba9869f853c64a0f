"""One batch is one transaction.

While a transaction is under way, the operations that arrive wait; then all of them go
together. With one call at a time a batch holds one and costs nothing extra; under load it
grows, and the price of a commit is shared.

A dialplan waits for the answer to its request; nobody waits for what the listener hears. So events
wait for one another for a moment (`event_delay`), and requests go ahead of them; but what was
decided ahead stands only if the events could not have made it better, and no operation of another
kind goes ahead of anything.

An operation is lost only with its process: an ending waits here until the database takes it.
A request waits no longer than whoever asked: when that one has gone (its future is cancelled)
it is dropped, and if it was committed all the same it is given back through `on_orphan`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Protocol, TypeAlias

from astcredit.domain.calls import CallRequest, ChannelEnded, LegAnswered, RouteRequest
from astcredit.domain.decisions import Decision
from astcredit.service.errors import CommitUnknown, PoisonError, StorageError
from astcredit.service.ledger import Carried
from astcredit.service.operations import NodeHeard, Operation, Outcome, Postponed

log = logging.getLogger(__name__)

# The first retry comes at once because a deadlock is over as soon as it is reported; the pause
# then doubles, so that a database that is down is asked once or twice a second.
FIRST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.5

NOTHING_CARRIED: Carried = MappingProxyType({})

Question = CallRequest | RouteRequest
"""Operations whose outcome somebody waits for, and that need not be done when nobody does."""

Event = LegAnswered | ChannelEnded | NodeHeard
"""Operations that can wait a moment: what the listener of a server heard."""


Apply: TypeAlias = Callable[[Sequence[Operation], Carried, list[Outcome], bool], Awaitable[None]]
"""Applies operations in one transaction, as `Ledger.apply` does."""


class BatchObserver(Protocol):
    """Told what goes on, for metrics."""

    def batch_done(self, operations: int, seconds: float) -> None: ...

    def batch_failed(self, error: Exception) -> None: ...

    def queue_length(self, operations: int) -> None: ...


@dataclass(slots=True, eq=False)
class _Item:
    operation: Operation
    future: asyncio.Future[Outcome]
    serial: int
    arrived: float
    postponed: bool = False

    @property
    def wanted(self) -> bool:
        """Whether it must still be done: a request only while somebody waits for its answer."""
        return not (self.future.cancelled() and isinstance(self.operation, Question))

    @property
    def may_overtake(self) -> bool:
        """Whether it may be done before events that arrived before it."""
        return isinstance(self.operation, CallRequest) and not self.postponed


class Batcher:
    """Collects operations and applies them in batches, one transaction at a time.

    `most_operations` is the most of a batch, `event_delay` for how many seconds an event waits for
    others while requests go ahead of it.
    """

    def __init__(
        self,
        apply: Apply,
        on_orphan: Callable[[CallRequest, Decision], None],
        observer: BatchObserver,
        *,
        most_operations: int,
        event_delay: float = 0.0,
    ) -> None:
        self._apply = apply
        self._on_orphan = on_orphan
        self._observer = observer
        self._most = most_operations
        self._event_delay = event_delay
        self._serials = itertools.count()
        self._queue: deque[_Item] = deque()
        self._events: deque[_Item] = deque()
        self._arrived = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to apply what is submitted."""
        self._task = asyncio.create_task(self._run(), name="batcher")

    async def stop(self, grace_seconds: float) -> int:
        """Apply what is waiting, for at most so long; the number of operations left undone."""
        self._stopping = True
        self._arrived.set()
        if self._task is not None:
            done, _ = await asyncio.wait({self._task}, timeout=grace_seconds)
            if not done:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
        return sum(not item.future.done() for item in (*self._queue, *self._events))

    def submit(self, operation: Operation) -> asyncio.Future[Outcome]:
        """Queue an operation; the future brings its outcome after commit, or a StorageError.

        Cancel the future of a request that nobody waits for any more.
        """
        loop = asyncio.get_running_loop()
        item = _Item(operation, loop.create_future(), next(self._serials), loop.time())
        waits = self._event_delay and isinstance(operation, Event)
        if waits and self._events:
            self._events.append(item)  # the first one set the alarm
        else:
            (self._events if waits else self._queue).append(item)
            self._arrived.set()
        self._observer.queue_length(self._waiting)
        return item.future

    @property
    def _waiting(self) -> int:
        return len(self._queue) + len(self._events)

    async def _run(self) -> None:
        while True:
            batch, ahead = self._next()
            if not batch:
                if self._stopping:
                    return
                await self._wait()
                continue
            self._observer.queue_length(self._waiting)
            try:
                await self._carry_out(batch, ahead)
            except asyncio.CancelledError:
                self._put_back(batch)
                raise

    def _next(self) -> tuple[list[_Item], bool]:
        """What goes together now, and whether it goes ahead of events that came before."""
        if not self._events or self._events_wait():
            ahead = bool(self._events)
            return [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))], ahead
        in_order = sorted((*self._queue, *self._events), key=attrgetter("serial"))
        self._queue.clear()
        self._events.clear()
        self._put_back(in_order[self._most :])
        return in_order[: self._most], False

    def _events_wait(self) -> bool:
        due = self._stopping or self._due_at() <= asyncio.get_running_loop().time()
        return not due and all(item.may_overtake for item in self._queue)

    def _due_at(self) -> float:
        return self._events[0].arrived + self._event_delay

    async def _wait(self) -> None:
        """Until something must be done."""
        self._arrived.clear()
        loop = asyncio.get_running_loop()
        alarm = loop.call_at(self._due_at(), self._arrived.set) if self._events else None
        try:
            await self._arrived.wait()
        finally:
            if alarm is not None:
                alarm.cancel()

    def _put_back(self, items: Sequence[_Item]) -> None:
        """Queue again, before those that came later."""
        for item in reversed(items):
            waits = self._event_delay and isinstance(item.operation, Event)
            (self._events if waits else self._queue).appendleft(item)

    async def _carry_out(
        self, batch: list[_Item], ahead: bool, carried: Carried = NOTHING_CARRIED
    ) -> None:
        """Apply a batch until it is done, splitting off what the database refuses."""
        pause = 0.0
        while True:
            # What a lost COMMIT may have booked must be asked about even if nobody waits.
            batch = [i for i in batch if i.wanted or _id(i.operation) in carried]
            if not batch:
                return
            outcomes: list[Outcome] = []
            began = asyncio.get_running_loop().time()
            try:
                operations = [item.operation for item in batch]
                await self._apply(operations, carried, outcomes, ahead)
            except CommitUnknown as error:
                self._failed(error, len(batch))
                carried = {**carried, **_answers(batch, outcomes)}
            except PoisonError as error:
                self._failed(error, len(batch))
                await self._isolate(batch, error, ahead, carried)
                return
            except StorageError as error:
                self._failed(error, len(batch))
            except Exception as error:
                # A fault of our own: one operation brings it to light, the others need not.
                self._failed(error, len(batch))
                await self._isolate(batch, error, ahead, carried)
                return
            else:
                took = asyncio.get_running_loop().time() - began
                self._observer.batch_done(len(batch), took)
                self._deliver(batch, outcomes)
                return
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2 or FIRST_PAUSE_SECONDS)

    async def _isolate(
        self, batch: list[_Item], error: Exception, ahead: bool, carried: Carried
    ) -> None:
        """Halve the batch until the operation that cannot be done is alone; only it fails."""
        if len(batch) == 1:
            _fail(batch[0], error)
            return
        middle = len(batch) // 2
        await self._carry_out(batch[:middle], ahead, carried)
        await self._carry_out(batch[middle:], ahead, carried)

    def _deliver(self, batch: Sequence[_Item], outcomes: Sequence[Outcome]) -> None:
        postponed = []
        for item, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Postponed):
                item.postponed = True
                postponed.append(item)
            elif not item.future.done():
                item.future.set_result(outcome)
            elif isinstance(item.operation, CallRequest) and isinstance(outcome, Decision):
                self._on_orphan(item.operation, outcome)
        self._put_back(postponed)

    def _failed(self, error: Exception, operations: int) -> None:
        self._observer.batch_failed(error)
        log.warning(
            "batch failed",
            extra={"action": "batch_failed", "error": repr(error), "operations": operations},
        )


def _fail(item: _Item, error: Exception) -> None:
    log.error(
        "operation refused",
        extra={
            "action": "operation_refused",
            "operation": repr(item.operation),
            "error": repr(error),
        },
        exc_info=error,
    )
    if not item.future.done():
        item.future.set_exception(error)


def _id(operation: Operation) -> str:
    """Under what the answer to a question is carried to the next attempt."""
    match operation:
        case CallRequest(call_id=id) | RouteRequest(ask_id=id):
            return id
    return ""


def _answers(batch: Sequence[_Item], outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
    pairs = zip(batch, outcomes, strict=True)
    return {
        _id(item.operation): outcome
        for item, outcome in pairs
        if isinstance(item.operation, Question)
    }
