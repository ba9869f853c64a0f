"""Calls that an outage left open or estimated, made by the real Ledger, and Asterisk's records.

Every call is a cent for ten seconds (a thousandth a second), asked for at NOW_MS by channel
`caller-N` of pbx1, for an hour at most; client 1 is prepaid with 100, client 2 postpaid.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from astcredit.domain.calls import CallRequest
from astcredit.domain.witness import AsteriskRecord
from astcredit.service.ledger import Ledger
from astcredit.service.operations import Expire, Operation, Outcome
from astcredit.service.reconciliation import Reconciliation
from astcredit.storage.books import SqlBooks
from astcredit.storage.database import Database
from astcredit.storage.reconciliation import SqlReconciliation
from support.core import (
    LONGEST_SECONDS,
    NOW_MS,
    SETUP_SECONDS,
    Clock,
    FixedCatalog,
    answered,
    call_id,
    leg_ended,
    policy,
    postpaid,
    prepaid,
    request,
    seed,
)
from support.master_csv import Line

MICROS_A_SECOND = 1_000
BALANCE = 100_000_000
HOUR_PRICE = LONGEST_SECONDS * MICROS_A_SECOND
LATER_MS = NOW_MS + (LONGEST_SECONDS + SETUP_SECONDS + 3_600) * 1000
"""When everything can last no longer."""


class Outage:
    """The books of a database, into which calls are brought by hand."""

    def __init__(self, database: Database) -> None:
        self.clock = Clock()
        self.store = SqlReconciliation(database)
        self.ledger = Ledger(SqlBooks(database), FixedCatalog(), policy(), self.clock)
        self.reconciliation = self.reconciler("ops@test")

    def reconciler(self, actor: str) -> Reconciliation:
        return Reconciliation(self.store, self.ledger, actor, self.clock, (80, 100))

    async def apply(self, *operations: Operation) -> list[Outcome]:
        outcomes: list[Outcome] = []
        await self.ledger.apply(operations, {}, outcomes)
        return outcomes

    async def ringing(self, *numbers: int, **asked: str) -> None:
        """Calls that are being set up."""
        for number in numbers:
            await self.apply(with_channel(request(number, **asked), number))

    async def talking(self, *numbers: int) -> None:
        """Calls of which the answer was heard, five seconds after they were asked for."""
        await self.ringing(*numbers)
        await self.apply(*(answered(number, NOW_MS + 5_000) for number in numbers))

    async def over(self, number: int, talk_ms: int, **asked: str) -> None:
        """A call whose end was heard."""
        await self.ringing(number, **asked)
        await self.apply(answered(number, NOW_MS + 5_000))
        await self.apply(leg_ended(number, NOW_MS + 5_000 + talk_ms))

    async def expired(self, *numbers: int) -> None:
        """Calls that nobody saw end: closed and estimated."""
        self.clock.now_ms = LATER_MS
        await self.apply(*(Expire(call_id(number), LATER_MS) for number in numbers))


def with_channel(asked: CallRequest, number: int) -> CallRequest:
    return replace(asked, channel=channel(number))


def channel(number: int) -> str:
    """The name of the `number`th call's calling channel."""
    return f"PJSIP/x-{number:08x}"


async def prepared(database: Database, balance: int = BALANCE) -> Outage:
    """An empty schema with the two clients."""
    await seed(database, [prepaid(1, balance), postpaid(2)])
    return Outage(database)


def line(number: int, answer: int | None, end: int, start: int = -200) -> Line:
    """Asterisk's record of the `number`th call; milliseconds after it was asked for."""
    return Line(
        f"caller-{number}",
        NOW_MS + start,
        NOW_MS + end,
        None if answer is None else NOW_MS + answer,
        channel=channel(number),
        dstchannel=f"PJSIP/carrier-{number:08x}",
    )


def exact(line: Line) -> AsteriskRecord:
    """The record of a file with milliseconds."""
    talk_ms = 0 if line.answer is None else line.end - line.answer
    return AsteriskRecord(
        line.uniqueid, line.channel, line.dstchannel, line.dst, line.outcome,
        line.start, line.answer, line.end, talk_ms,
    )  # fmt: skip


class Records:
    """Asterisk's records, at hand. Implements `AsteriskRecords`."""

    def __init__(self, *lines: Line) -> None:
        self.records: Sequence[AsteriskRecord] = [exact(line) for line in lines]

    def about(self, names: Collection[str]) -> Iterable[AsteriskRecord]:
        for record in self.records:
            if {record.uniqueid, record.channel, record.dstchannel} & set(names):
                yield record
