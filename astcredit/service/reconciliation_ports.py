"""What reconciling works on: Asterisk's records and the calls in doubt; and what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from astcredit.domain.books import ClientBooks
from astcredit.domain.correction import CallInDoubt, Correction
from astcredit.domain.money import Micros
from astcredit.domain.witness import AsteriskRecord, ChannelCall
from astcredit.service.history_ports import AuditEntry
from astcredit.service.operations import Operation, Outcome
from astcredit.service.ports import BooksTransaction


class AsteriskRecords(Protocol):
    """Asterisk's own call records."""

    def about(self, names: Collection[str]) -> Iterable[AsteriskRecord]:
        """Those of which uniqueid, channel or dstchannel is among `names`, in the order in which
        they were written; `names` may grow meanwhile. Raises RefusedError at the end when they
        cannot be relied on."""


@dataclass(frozen=True, slots=True)
class DoubtfulCall:
    """A call in doubt, with the name of its client and its currency."""

    call: CallInDoubt
    client: str
    currency: str


class ReconciliationTransaction(Protocol):
    """One transaction of reconciling. Every method may raise StorageError."""

    @property
    def books(self) -> BooksTransaction:
        """The books, in the same transaction."""

    async def clients(self, ids: Collection[int]) -> Mapping[int, ClientBooks]:
        """The books of clients, locked in the one fixed order if they may be changed."""

    async def estimated(self, call_ids: Collection[str]) -> Sequence[CallInDoubt]:
        """Those of the calls that are over and still estimated; to be asked after `clients`."""

    async def write(self, corrections: Sequence[Correction], now_ms: int) -> None:
        """Note in their CDRs what was found out about calls, which are estimated no longer."""

    async def record_all(self, entries: Sequence[AuditEntry]) -> None:
        """Add rows to astaudit, in their order."""


class ReconciliationStore(Protocol):
    """Where the calls in doubt are. Every method may raise StorageError."""

    async def doubtful(self, node: str | None) -> Sequence[DoubtfulCall]:
        """The calls that are open and those that are over but estimated, of one node or of all,
        oldest first."""

    async def calls_of(self, uniqueids: Collection[str]) -> Sequence[ChannelCall]:
        """All calls that were made by channels of these uniqueids, whichever node they are of,
        oldest first."""

    async def heard_until(self, nodes: Collection[str]) -> Mapping[str, int]:
        """Up to when all that happened on those nodes is on record; nothing for others."""

    def booking(self) -> AbstractAsyncContextManager[ReconciliationTransaction]:
        """A transaction that changes the books."""

    def looking(self) -> AbstractAsyncContextManager[ReconciliationTransaction]:
        """A transaction that only reads, and sees one state of everything."""


class AppliesOperations(Protocol):
    """The ledger: applies operations on the books in one transaction."""

    async def apply(
        self,
        operations: Sequence[Operation],
        carried: Mapping[str, Outcome],
        outcomes: list[Outcome],
    ) -> None:
        """See `astcredit.service.ledger.Ledger.apply`."""


class Done(StrEnum):
    """What was done with a call.

    EXPIRED: closed because it could last no longer, which is an estimate. UNCOLLECTED: more is due,
    which the client cannot pay. LEFT: nothing, and the row's note says why. OVERTAKEN: somebody
    else had closed or corrected it meanwhile.
    """

    CLOSED = "closed"
    EXPIRED = "expired"
    CHARGED = "charged"
    REFUNDED = "refunded"
    CONFIRMED = "confirmed"
    UNCOLLECTED = "uncollected"
    OVERTAKEN = "overtaken"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Row:
    """One call: what it was, what it is, by how much the client's balance changed, what was done.

    `was` and `now` are for people.
    """

    doubtful: DoubtfulCall
    was: str
    now: str
    amount: Micros
    done: Done
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What was done, in the order of the calls. `looked_at`: calls that were in doubt."""

    rows: Sequence[Row]
    looked_at: int

    @property
    def counts(self) -> Mapping[Done, int]:
        """How many calls came to what."""
        return Counter(row.done for row in self.rows)

    @property
    def changed(self) -> int:
        """How many calls were changed in any way."""
        return sum(row.done not in (Done.LEFT, Done.OVERTAKEN) for row in self.rows)
