"""A controller on books in memory and its recovery, for tests of both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from astcredit.domain.decisions import Decision
from astcredit.service.batcher import Batcher
from astcredit.service.controller import AnswerPolicy, Controller
from astcredit.service.ledger import Ledger
from astcredit.service.operations import NodeHeard, Operation, Outcome
from astcredit.service.recovery import LIMIT_SLACK_SECONDS, Recovered, Recovery
from support.core import (
    LONGEST_SECONDS,
    NODE,
    NOW_MS,
    BatchLog,
    Clock,
    FixedCatalog,
    answered,
    call_id,
    no_orphan,
    policy,
    prepaid,
    request,
)
from support.memory_books import CdrRow, MemoryBooks, audit
from support.peers import FakePeer, caller, leg

FUNDS = 100_000_000
HEARD_MS = NOW_MS + 40_000
"""Until then everything was heard."""
ASKED_MS = NOW_MS + 60_000
"""When Asterisk is asked."""
LEFT_SECONDS = LONGEST_SECONDS - 60 + LIMIT_SLACK_SECONDS
"""What a call that was answered at NOW_MS may last then."""

ADOPTED, UNHEARD, GONE, WAITING = (
    Recovered(adopted=1),
    Recovered(answered=1),
    Recovered(gone=1),
    Recovered(waiting=1),
)
IN_BRIDGE = (caller(bridge="b"), leg(bridge="b"))
"""What lives of call 1 while it talks."""


class Links:
    """An AMI link that is configured, and up or not."""

    def __init__(self) -> None:
        self.is_up = True
        self.is_configured = True

    def configured(self, node: str) -> bool:
        return self.is_configured

    def up(self, node: str) -> bool:
        return self.is_up


class Nothing:
    """An observer who does not look."""

    def authorized(self, status: object, seconds: float) -> None: ...

    def settled(self, settlement: object) -> None: ...


class Stage:
    """A controller on books in memory, and its recovery."""

    def __init__(self) -> None:
        self.books = MemoryBooks([prepaid(1, FUNDS), prepaid(2, FUNDS)])
        self.clock = Clock(ASKED_MS)
        self.links = Links()
        self.log = BatchLog()
        self.looks: list[str] = []
        self.to_end: list[tuple[str, str]] = []
        ledger = Ledger(self.books, FixedCatalog(), policy(), self.clock, links=self.links)
        self.batcher = Batcher(ledger.apply, no_orphan, self.log, most_operations=256)
        self.controller = Controller(
            self.batcher,
            self.books,
            FixedCatalog(),
            policy(),
            AnswerPolicy(3_600.0, warn_seconds=60, repeat_seconds=30),
            self.clock,
            Nothing(),
            self,
        )
        self.recovery = Recovery(self.books, self.controller.submit)

    def look(self, node: str) -> None:
        """The controller wants to know what lives there."""
        self.looks.append(node)

    async def end(self, node: str, uniqueid: str) -> None:
        """The controller wants a leg to end."""
        self.to_end.append((node, uniqueid))

    async def have(self, *operations: Operation) -> list[Outcome]:
        """Let this have happened, and all that was said before it."""
        return [await self.batcher.submit(operation) for operation in operations]

    async def open_call(self, number: int = 1, channel: str = "", story: str = "") -> None:
        """A call that was authorized, as part of a story that is older."""
        asked = request(number, channel=channel)
        (outcome,) = await self.have(asked)
        assert isinstance(outcome, Decision)
        assert outcome.allowed
        if story:
            self.books.linkedids[asked.call_id] = story

    async def answered_call(self, number: int = 1, at_ms: int = NOW_MS) -> None:
        await self.open_call(number)
        await self.have(answered(number, at_ms))

    async def recover(self, peer: FakePeer) -> Recovered:
        """Recover, and book what came of it."""
        found = await self.recovery.recover(NODE, peer)
        await self.have(NodeHeard("elsewhere", 0))
        return found

    def cdr(self, number: int = 1) -> CdrRow:
        return self.books.cdrs[call_id(number)]


@asynccontextmanager
async def stage(heard_ms: int | None = HEARD_MS) -> AsyncIterator[Stage]:
    it = Stage()
    it.batcher.start()
    if heard_ms is not None:
        await it.have(NodeHeard(NODE, heard_ms))
    yield it
    await it.batcher.stop(60)
    assert audit(it.books.snapshot()) == []
