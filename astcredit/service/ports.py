"""What the use cases need from outside, and what they offer to Asterisk's side."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from astcredit.domain.alerts import Alert
from astcredit.domain.books import ClientBooks, LedgerEntry, OpenCall
from astcredit.domain.calls import (
    Authorization,
    CallRequest,
    ChannelEnded,
    Funds,
    HangupReport,
    LegAnswered,
    Origin,
    RouteRequest,
)
from astcredit.domain.capacity import Level, Occupancy, Uses
from astcredit.domain.catalog import Catalog
from astcredit.domain.decisions import Decision
from astcredit.domain.quotas import ClientPeriod, Usage
from astcredit.domain.records import record
from astcredit.domain.settlement import Settlement
from astcredit.domain.states import CallState
from astcredit.service.operations import Answered, Rerouted


class Channel(NamedTuple):
    """A channel of an Asterisk server."""

    node: str
    uniqueid: str


@dataclass(frozen=True, slots=True)
class LiveChannel:
    """A channel that Asterisk says is up. `seconds` is its age.

    As far as manager.conf lets its variables be seen (channelvars): `call_id` is AC_CALL, the
    newest call that it made; `leg_of` and `answered_at_ms` are AC_LEG, of which call it is the
    outbound leg and when it was answered.
    """

    name: str
    uniqueid: str
    linkedid: str
    accountcode: str
    state: str
    seconds: int | None
    call_id: str
    bridge_id: str
    leg_of: str = ""
    answered_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class OpenOnNode:
    """What recovery wants to know of an open call. `until_ms` is its last allowed instant, None
    as long as it is not answered; `seconds` is what it may last after its answer."""

    call_id: str
    uniqueid: str
    linkedid: str
    leg_uniqueid: str | None
    state: CallState
    until_ms: int | None
    seconds: int


@record
class NewCall:
    """The first half of a CDR; `call` has the reservation, if `decision` allows it."""

    request: CallRequest
    decision: Decision
    created_at_ms: int
    expires_at_ms: int
    call: OpenCall | None = None


@dataclass(frozen=True, slots=True)
class EndedCall:
    """What is on record of a call that is over: the number that was called, and who said that it
    is over (empty for one that was refused)."""

    call_id: str
    number: str
    settled_by: str


@dataclass(slots=True)
class Changes:
    """Everything that one transaction writes, in the order in which it is written.

    `uses` says by how much the counters of capacity change; `usages` is what stands of quotas;
    `heard` says of nodes up to when all that happened there is on record.
    """

    calls: list[NewCall] = field(default_factory=list)
    rerouted: list[Rerouted] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    ledger: list[LedgerEntry] = field(default_factory=list)
    clients: dict[int, ClientBooks] = field(default_factory=dict)
    uses: dict[Level, int] = field(default_factory=dict)
    usages: dict[ClientPeriod, Usage] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)
    heard: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        rows = (self.calls, self.rerouted, self.answered, self.settlements, self.ledger)
        return any(rows) or bool(self.usages or self.heard)

    def use(self, levels: Iterable[Level], calls: int) -> None:
        """Count so many calls more (or less) at each level."""
        for level in levels:
            self.uses[level] = self.uses.get(level, 0) + calls


@record
class FoundCall:
    """What is known of an open call before its client is locked: where it is counted may change
    until then."""

    call_id: str
    client_id: int
    node: str
    occupancy: Occupancy


@dataclass(frozen=True, slots=True)
class Wanted:
    """Rows that a transaction locks and reads, in this order and in as few steps as it can.

    `version`: that of the catalog, as the transaction sees it. `clients` are locked in the order of
    their ids, counters of `levels` in that of their keys. `calls`: those of them that are still
    open. `answered`: likewise, of which nothing but their answer is to be noted: they are locked
    against being ended meanwhile, their clients are not. `recorded`: those of the ids that have a
    CDR. `nodes`: up to when all that happened there is on record. `limits`: those of `levels` on
    which a decision depends; the others are locked for the sake of the order alone.

    `guess`: what is nearly always so may be taken for granted and need not be read: that clients'
    books and calls are as the last transactions left them, and that calls of `answered` are open
    and without a leg. What is written proves it; where it was not so the transaction fails with
    Outdated.
    """

    guess: bool = False
    version: bool = False
    clients: Collection[int] = ()
    calls: Collection[str] = ()
    answered: Collection[str] = ()
    levels: Collection[Level] = ()
    limits: Collection[Level] = ()
    recorded: Collection[str] = ()
    nodes: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Locked:
    """The rows of a `Wanted`, as far as there are any. `answered`: of each call its leg, None where
    it has none yet."""

    version: int = 0
    clients: Mapping[int, ClientBooks] = field(default_factory=dict)
    calls: Sequence[OpenCall] = ()
    uses: Uses = field(default_factory=dict)
    recorded: frozenset[str] = frozenset()
    heard: Mapping[str, int] = field(default_factory=dict)
    answered: Mapping[str, str | None] = field(default_factory=dict)


class BooksTransaction(Protocol):
    """One database transaction on the books. Every method may raise StorageError."""

    async def find(
        self, call_ids: Collection[str], channels: Collection[Channel]
    ) -> Mapping[str, FoundCall]:
        """Open calls by id, by calling channel or by answered leg; nothing is locked."""

    async def lock(self, wanted: Wanted) -> Locked:
        """Lock and read rows."""

    async def lock_clients(self, ids: Collection[int]) -> Mapping[int, ClientBooks]:
        """Lock clients, in the one fixed order, and read their books."""

    async def load_open(self, call_ids: Collection[str]) -> Sequence[OpenCall]:
        """Those of the calls that are still open; to be asked once their clients are locked."""

    async def lock_uses(self, levels: Collection[Level]) -> Uses:
        """Lock counters of capacity, in the one fixed order, and read them; to be asked once
        the clients are locked."""

    async def load_usages(self, periods: Collection[ClientPeriod]) -> Mapping[ClientPeriod, Usage]:
        """What clients used in those periods, if anything; to be asked once they are locked."""

    async def write(self, changes: Changes) -> None:
        """Write everything, at the latest when the transaction is committed."""


class Books(Protocol):
    """The books: balances, reservations, CDRs, ledger. The database is the only truth."""

    def transaction(self) -> AbstractAsyncContextManager[BooksTransaction]:
        """A transaction that commits at the end of the block and rolls back on an error.

        Raises TransientError, PoisonError, or CommitUnknown if the connection was lost at
        COMMIT.
        """

    async def expired(self, now_ms: int, most: int) -> Sequence[str]:
        """Ids of calls whose reservation is past its last possible second."""

    async def open_on(self, node: str) -> Sequence[OpenOnNode]:
        """The calls of a node that are open now."""

    async def ended(self, call_id: str) -> EndedCall | None:
        """The call, if it is on record and over."""

    async def catalog_version(self) -> int:
        """The version of the catalog now."""

    async def client_books(self, client_id: int) -> ClientBooks:
        """A client's books without a lock, for a look."""


class CatalogSource(Protocol):
    """Where the catalog comes from."""

    async def at_least(self, version: int) -> Catalog:
        """The newest catalog known, loaded anew if it is older than `version`.

        What takes long to load is loaded beside the last catalog, which is the answer until then.
        What is on record but makes no sense is not taken over: the last catalog that did stays
        in force. Raises StorageError when there is none.
        """


class Peer(Protocol):
    """An Asterisk server that is linked, for recovery. Every method may raise AstcreditError."""

    async def now_ms(self) -> int:
        """The time by its clock."""

    async def channels(self) -> Sequence[LiveChannel]:
        """All channels that live on it now: a complete list."""

    async def answered_at_ms(self, leg: LiveChannel) -> int | None:
        """When a leg was answered, by its own CDR; None if that is not known."""

    async def limit(self, channel: LiveChannel, seconds: float) -> bool:
        """End the channel after so many seconds from now, whatever happens to it; False if it is
        not there (any more)."""

    async def hangup(self, uniqueid: str) -> bool:
        """End a channel; False if it is not there."""


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

    async def next_route(self, request: RouteRequest) -> Authorization:
        """The next route of the same reservation, or NOROUTE."""

    async def report_hangup(self, report: HangupReport) -> None:
        """Take what the `h` extension saw; settle if no AMI link will."""

    async def funds(self, origin: Origin, number: str = "") -> Funds | None:
        """Balance of the account's client; None if there is no such account.

        `number` is what the channel dialled: a tech prefix may tell whose call it is.

        Raises StorageError when the database does not answer in time."""

    def abandon(self, call_id: str) -> None:
        """The answer could not be delivered: release the reservation, if there is one."""


class LegEvents(Protocol):
    """Where the AMI listener brings what it sees. Does not block and loses nothing."""

    def leg_answered(self, event: LegAnswered) -> None: ...

    def channel_ended(self, event: ChannelEnded) -> None: ...
