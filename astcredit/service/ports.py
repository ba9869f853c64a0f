"""What the use cases need from outside, and what they offer to Asterisk's side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from astcredit.domain.books import ClientBooks, LedgerEntry, OpenCall
from astcredit.domain.calls import (
    Authorization,
    CallRequest,
    ChannelEnded,
    Funds,
    HangupReport,
    LegAnswered,
)
from astcredit.domain.catalog import Catalog
from astcredit.domain.decisions import Decision
from astcredit.domain.settlement import Settlement
from astcredit.service.operations import Answered


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel of an Asterisk server."""

    node: str
    uniqueid: str


@dataclass(frozen=True, slots=True)
class NewCall:
    """The first half of a CDR; with a reservation when `decision` allows the call."""

    request: CallRequest
    decision: Decision
    created_at_ms: int
    expires_at_ms: int


@dataclass(slots=True)
class Changes:
    """Everything that one transaction writes, in the order in which it is written."""

    calls: list[NewCall] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    ledger: list[LedgerEntry] = field(default_factory=list)
    clients: dict[int, ClientBooks] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.calls or self.answered or self.settlements or self.ledger)


class BooksTransaction(Protocol):
    """One database transaction on the books. Every method may raise StorageError."""

    async def catalog_version(self) -> int:
        """The version of the catalog as this transaction sees it."""

    async def find_open(
        self, call_ids: Collection[str], channels: Collection[Channel]
    ) -> Mapping[str, int]:
        """Open calls by id, by calling channel or by answered leg: call id → client id."""

    async def lock_clients(self, ids: Collection[int]) -> Mapping[int, ClientBooks]:
        """Lock clients, in the one fixed order, and read their books."""

    async def load_open(self, call_ids: Collection[str]) -> Sequence[OpenCall]:
        """Those of the calls that are still open; to be asked once their clients are locked."""

    async def recorded(self, call_ids: Collection[str]) -> frozenset[str]:
        """Those of the ids that have a CDR; to be asked once their clients are locked."""

    async def write(self, changes: Changes) -> None:
        """Write everything."""


class Books(Protocol):
    """The books: balances, reservations, CDRs, ledger. The database is the only truth."""

    def transaction(self) -> AbstractAsyncContextManager[BooksTransaction]:
        """A transaction that commits at the end of the block and rolls back on an error.

        Raises TransientError, PoisonError, or CommitUnknown if the connection was lost at
        COMMIT.
        """

    async def expired(self, now_ms: int, most: int) -> Sequence[str]:
        """Ids of calls whose reservation is past its last possible second."""

    async def catalog_version(self) -> int:
        """The version of the catalog now."""

    async def client_books(self, client_id: int) -> ClientBooks:
        """A client's books without a lock, for a look."""


class CatalogSource(Protocol):
    """Where the catalog comes from."""

    async def at_least(self, version: int) -> Catalog:
        """The newest catalog known, loaded anew if it is older than `version`.

        What is on record but makes no sense is not taken over: the last catalog that did stays
        in force. Raises StorageError when there is none.
        """


class Links(Protocol):
    """What is known of the AMI links to the Asterisk servers."""

    def configured(self, node: str) -> bool:
        """Whether there is an AMI link to that node at all."""

    def up(self, node: str) -> bool:
        """Whether it works at this moment."""


class NoLinks:
    """Links of a process that knows of none: every node is settled by its reports."""

    def configured(self, node: str) -> bool:
        return False

    def up(self, node: str) -> bool:
        return False


class CallControl(Protocol):
    """What the AGI scripts ask. Answers always, within the deadline; never raises for a fault
    of the database: such a call gets AuthStatus.ERROR."""

    async def authorize(self, request: CallRequest) -> Authorization:
        """Reserve the most that the call can cost; returns only after commit."""

    async def next_route(self, node: str, uniqueid: str, call_id: str) -> Authorization:
        """The next route of the same reservation, or NOROUTE."""

    async def report_hangup(self, report: HangupReport) -> None:
        """Take what the `h` extension saw; settle if no AMI link will."""

    async def funds(self, accountcode: str) -> Funds | None:
        """Balance of the account's client; None if there is no such account.

        Raises StorageError when the database does not answer in time."""

    def abandon(self, call_id: str) -> None:
        """The answer could not be delivered: release the reservation, if there is one."""


class LegEvents(Protocol):
    """Where the AMI listener brings what it sees. Does not block and loses nothing."""

    def leg_answered(self, event: LegAnswered) -> None: ...

    def channel_ended(self, event: ChannelEnded) -> None: ...
