"""The books in memory, for tests of the services: simple enough to be believed by reading.

`MemoryBooks` implements `astcredit.service.ports.Books`. Failures are staged: what is put into
`faults` happens to the next transactions, one each; whatever touches a call in `poison` is
refused; and a `Gate` holds transactions until the test lets them go.

`audit` recomputes what CONTRACT.md says must hold at every moment, from rows alone. It shares no
code with the program.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from operator import itemgetter

from astcredit.domain.alerts import Alert
from astcredit.domain.books import ClientBooks, LedgerEntry, LedgerKind, OpenCall
from astcredit.domain.capacity import Level, Occupancy, Uses
from astcredit.domain.catalog import ClientKind
from astcredit.domain.quotas import ClientPeriod, Usage
from astcredit.domain.settlement import Settlement
from astcredit.domain.states import CallState
from astcredit.service.errors import CommitUnknown, PoisonError, TransientError
from astcredit.service.operations import Answered
from astcredit.service.ports import (
    Changes,
    Channel,
    EndedCall,
    FoundCall,
    Locked,
    NewCall,
    OpenOnNode,
    Wanted,
)

OPENING = "opening"
NOWHERE = Occupancy(None)


@dataclass(frozen=True, slots=True)
class CdrRow:
    """What of a CDR the tests look at."""

    id: str
    client_id: int | None
    status: str
    denied: str
    seconds: int
    reserved: int
    leg_uniqueid: str | None = None
    dialed_at_ms: int | None = None
    answered_at_ms: int | None = None
    ended_at_ms: int | None = None
    talk_ms: int | None = None
    billsec: int | None = None
    price: int | None = None
    overrun_ms: int | None = None
    dialstatus: str = ""
    settled_by: str = ""
    estimated: bool = False
    ourcost: int | None = None
    tried: str = ""
    callerid: str = ""
    number: str = ""
    route_id: int | None = None
    calendar: tuple[str, ...] = ()
    """The month and the day in which it began, in the client's time zone."""


@dataclass(frozen=True, slots=True)
class ReservationRow:
    """What of a reservation the tests look at."""

    call_id: str
    client_id: int
    reserved: int
    occupancy: Occupancy = NOWHERE
    routes_tried: tuple[int, ...] = ()
    periods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All rows of the books, in a fixed order: two that are equal are the same books."""

    clients: tuple[ClientBooks, ...]
    cdrs: tuple[CdrRow, ...]
    reservations: tuple[ReservationRow, ...]
    ledger: tuple[LedgerEntry, ...]
    counters: tuple[tuple[str, int], ...] = ()
    """Counters of capacity that are not zero, by key."""
    usages: tuple[tuple[ClientPeriod, Usage], ...] = ()
    """What clients used in which periods."""

    def cdr(self, call_id: str) -> CdrRow:
        return next(row for row in self.cdrs if row.id == call_id)

    def client(self, client_id: int) -> ClientBooks:
        return next(row for row in self.clients if row.id == client_id)

    def statuses(self) -> Counter[str]:
        return Counter(row.denied or row.status for row in self.cdrs)


def audit(books: Snapshot) -> list[str]:
    """What is wrong in the books; empty when all five statements of the contract hold."""
    wrong: list[str] = []
    for client in books.clients:
        wrong += _audit_client(client, books)
    charges = Counter(e.call_id for e in books.ledger if e.kind is LedgerKind.CHARGE)
    held = Counter(row.call_id for row in books.reservations)
    wrong += [f"4: {call} was charged {n} times" for call, n in charges.items() if n != 1]
    for cdr in books.cdrs:
        if cdr.price is not None and cdr.price > cdr.reserved:
            wrong.append(f"4: {cdr.id} costs {cdr.price}, reserved {cdr.reserved}")
        if (charges[cdr.id] == 1) != (cdr.status == "completed"):
            wrong.append(f"4: {cdr.id} is {cdr.status} and has {charges[cdr.id]} charges")
        if (held[cdr.id] == 1) != (cdr.status in ("open", "answered")):
            wrong.append(f"5: {cdr.id} is {cdr.status} and has {held[cdr.id]} reservations")
    known = {cdr.id for cdr in books.cdrs}
    wrong += [f"5: reservation {call} has no CDR" for call in held if call not in known]
    counted = Counter(level.key for row in books.reservations for level in row.occupancy.levels())
    for key in counted.keys() | dict(books.counters).keys():
        found = dict(books.counters).get(key, 0)
        if found != counted[key]:
            wrong.append(f"2: counter {key} is {found}, counted {counted[key]}")
    return wrong + _audit_quotas(books)


def _audit_quotas(books: Snapshot) -> list[str]:
    """What is spent and reserved in a period is what its calls cost and hold."""
    held = Counter[ClientPeriod]()
    for row in books.reservations:
        held.update({(row.client_id, period): row.reserved for period in row.periods})
    wrong = [
        f"quota {key} has no row" for key in held if held[key] and key not in dict(books.usages)
    ]
    for (id, period), usage in books.usages:
        calls = [c for c in books.cdrs if c.client_id == id and period in c.calendar]
        spent = sum(call.price or 0 for call in calls)
        if (usage.spent, usage.reserved) != (spent, held[id, period]):
            wrong.append(f"quota {id} {period}: {usage}, cost {spent}, held {held[id, period]}")
        if not 0 <= usage.waived <= usage.spent:
            wrong.append(f"quota {id} {period}: {usage.waived} of {usage.spent} waived")
    for client in books.clients:
        mine = [r for r in books.reservations if r.client_id == client.id and r.reserved]
        if client.quotas and not all(row.periods for row in mine):
            wrong.append(f"quota {client.id}: a reservation has no period")
        if client.quotas or client.quota_counted:
            wrong += [f"quota {client.id} {p}: no row" for p in _uncounted(client.id, books)]
    return wrong


def _uncounted(client_id: int, books: Snapshot) -> set[str]:
    """The periods of calls that cost something that have no row, though an earlier one has."""
    rows = {period for id, period in dict(books.usages) if id == client_id}
    paid = [call for call in books.cdrs if call.client_id == client_id and call.price]
    periods = {period for call in paid for period in call.calendar} - rows
    return {p for p in periods if p >= min((r for r in rows if len(r) == len(p)), default="")}


def _audit_client(client: ClientBooks, books: Snapshot) -> list[str]:
    wrong = []
    mine = sorted((e for e in books.ledger if e.client_id == client.id), key=lambda e: e.seq)
    held = [row.reserved for row in books.reservations if row.client_id == client.id]
    if client.balance != sum(entry.amount for entry in mine):
        wrong.append(f"1: client {client.id} has {client.balance}, its ledger says otherwise")
    if mine and mine[-1].balance_after != client.balance:
        wrong.append(f"1: client {client.id}: the last balance_after is another")
    if [entry.seq for entry in mine] != list(range(1, len(mine) + 1)):
        wrong.append(f"1: client {client.id}: the ledger is not numbered 1, 2, 3")
    if client.ledger_seq != len(mine):
        wrong.append(f"1: client {client.id}: ledger_seq is {client.ledger_seq}, not {len(mine)}")
    if client.reserved != sum(held):
        wrong.append(f"2: client {client.id}: reserved {client.reserved}, held {sum(held)}")
    if client.active_calls != len(held):
        wrong.append(f"2: client {client.id}: {client.active_calls} calls, {len(held)} rows")
    if client.kind is ClientKind.PREPAID:
        free = client.balance + (client.credit_limit or 0) - client.reserved
        wrong += [f"3: prepaid client {client.id} is {free} below"] if free < 0 else []
    return wrong


def opening(client: ClientBooks) -> tuple[ClientBooks, LedgerEntry]:
    """A client's books that begin with a top-up to its balance."""
    return replace(client, balance=0).post(
        LedgerKind.TOPUP, client.balance, reference=f"{OPENING}:{client.id}", actor="test", now_ms=0
    )


class Fault(Enum):
    """What can happen to a transaction."""

    TRANSIENT = auto()
    """A deadlock, or the connection is lost, before COMMIT."""
    COMMITTED_UNHEARD = auto()
    """The connection is lost at COMMIT, which happened."""
    LOST_AT_COMMIT = auto()
    """The connection is lost at COMMIT, which did not happen."""
    BROKEN = auto()
    """A fault of the program."""


class Gate:
    """Holds transactions at COMMIT. `entered` is set as soon as one stands there."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self) -> None:
        self.entered.set()
        await self.opened.wait()


class MemoryBooks:
    """Books of some clients. One transaction at a time, as in SQLite."""

    def __init__(self, clients: Iterable[ClientBooks]) -> None:
        self.clients: dict[int, ClientBooks] = {}
        self.cdrs: dict[str, CdrRow] = {}
        self.calls: dict[str, OpenCall] = {}
        self.ledger: list[LedgerEntry] = []
        self.uses: dict[Level, int] = {}
        self.usages: dict[ClientPeriod, Usage] = {}
        self.alerts: list[Alert] = []
        self.linkedids: dict[str, str] = {}
        self.heard: dict[str, int] = {}
        self.faults: deque[Fault | None] = deque()
        self.poison: set[str] = set()
        self.gate: Gate | None = None
        self.begun = 0
        self._lock = asyncio.Lock()
        for client in clients:
            books, entry = opening(client)
            self.clients[client.id] = books
            self.ledger.append(entry)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryTransaction]:
        async with self._lock:
            self.begun += 1
            fault = self.faults.popleft() if self.faults else None
            if fault is Fault.BROKEN:
                raise RuntimeError("a fault of the program")
            transaction = MemoryTransaction(self)
            yield transaction
            if fault is Fault.TRANSIENT:
                raise TransientError("staged: deadlock")
            if self.gate is not None:
                await self.gate()
            if fault is not Fault.LOST_AT_COMMIT:
                self._commit(transaction.changes)
            if fault is not None:
                raise CommitUnknown("staged: connection lost at COMMIT")

    async def expired(self, now_ms: int, most: int) -> Sequence[str]:
        late = [call.call_id for call in self.calls.values() if call.expires_at_ms <= now_ms]
        return sorted(late)[:most]

    async def open_on(self, node: str) -> Sequence[OpenOnNode]:
        return [
            OpenOnNode(
                id,
                call.uniqueid,
                self.linkedids[id],
                call.leg_uniqueid or None,
                call.state,
                None if call.answered_at_ms is None else call.answered_at_ms + call.seconds * 1000,
                call.seconds,
            )
            for id, call in sorted(self.calls.items())
            if call.node == node
        ]

    async def ended(self, call_id: str) -> EndedCall | None:
        cdr = self.cdrs.get(call_id)
        if cdr is None or cdr.status in ("open", "answered"):
            return None
        return EndedCall(call_id, cdr.number, cdr.settled_by)

    async def catalog_version(self) -> int:
        return 1

    async def client_books(self, client_id: int) -> ClientBooks:
        return self.clients[client_id]

    def snapshot(self) -> Snapshot:
        return Snapshot(
            tuple(self.clients[id] for id in sorted(self.clients)),
            tuple(self.cdrs[id] for id in sorted(self.cdrs)),
            tuple(
                ReservationRow(
                    id,
                    call.client_id,
                    call.reserved,
                    call.occupancy,
                    call.routes_tried,
                    call.periods,
                )
                for id, call in sorted(self.calls.items())
            ),
            tuple(sorted(self.ledger, key=lambda entry: (entry.client_id, entry.seq))),
            tuple(sorted((level.key, calls) for level, calls in self.uses.items() if calls)),
            tuple(sorted(self.usages.items(), key=itemgetter(0))),
        )

    def check(self, changes: Changes) -> None:
        """Refuse what a database would refuse."""
        touched = {new.request.call_id for new in changes.calls}
        touched |= {event.call.call_id for event in changes.rerouted}
        touched |= {answer.call_id for answer in changes.answered}
        touched |= {settlement.call.call_id for settlement in changes.settlements}
        new = [new.request.call_id for new in changes.calls]
        if touched & self.poison or len(set(new)) < len(new) or set(new) & set(self.cdrs):
            raise PoisonError("staged: a value is refused")
        references = [entry.reference for entry in (*self.ledger, *changes.ledger)]
        if len(set(references)) < len(references):
            raise PoisonError("a reference is there already")

    def _commit(self, changes: Changes) -> None:
        for new in changes.calls:
            self._begin(new)
        for event in changes.rerouted:
            call = event.call
            self.calls[call.call_id] = call
            self.cdrs[call.call_id] = replace(
                self.cdrs[call.call_id], tried=call.tried, route_id=call.occupancy.route_id
            )
        for answer in changes.answered:
            self._answer(answer)
        for settlement in changes.settlements:
            self._end(settlement)
        self.ledger.extend(changes.ledger)
        self.clients.update(changes.clients)
        for level, calls in changes.uses.items():
            self.uses[level] = self.uses.get(level, 0) + calls
        self.usages.update(changes.usages)
        self.alerts.extend(changes.alerts)
        self.heard.update(changes.heard)

    def _begin(self, new: NewCall) -> None:
        request, decision = new.request, new.decision
        self.linkedids[request.call_id] = request.linkedid
        self.cdrs[request.call_id] = CdrRow(
            request.call_id,
            decision.account.client_id if decision.account else None,
            "open" if decision.allowed else "denied",
            "" if decision.allowed else decision.status.value,
            decision.seconds,
            decision.reserved,
            callerid=decision.callerid,
            number=decision.number or request.number,
            route_id=decision.occupancy.route_id if decision.occupancy else None,
            calendar=decision.client.quotas.calendar(new.created_at_ms) if decision.client else (),
        )
        if decision.allowed:
            assert decision.client is not None
            assert decision.rate is not None
            self.calls[request.call_id] = OpenCall(
                call_id=request.call_id,
                client_id=decision.client.id,
                node=request.node,
                uniqueid=request.uniqueid,
                leg_uniqueid=None,
                state=CallState.OPEN,
                rate=decision.rate,
                reserved=decision.reserved,
                seconds=decision.seconds,
                created_at_ms=new.created_at_ms,
                expires_at_ms=new.expires_at_ms,
                dialed_at_ms=None,
                answered_at_ms=None,
                occupancy=decision.occupancy or NOWHERE,
                number=decision.number,
                callerid=decision.callerid,
                cost_rate=decision.route.rate if decision.route else None,
                periods=decision.periods,
            )

    def _answer(self, answer: Answered) -> None:
        call = replace(
            self.calls[answer.call_id],
            state=CallState.ANSWERED,
            leg_uniqueid=answer.leg_uniqueid,
            dialed_at_ms=answer.dialed_at_ms,
            answered_at_ms=answer.answered_at_ms,
        )
        self.calls[call.call_id] = call
        self.cdrs[call.call_id] = replace(
            self.cdrs[call.call_id],
            status=call.state.value,
            leg_uniqueid=call.leg_uniqueid,
            dialed_at_ms=call.dialed_at_ms,
            answered_at_ms=call.answered_at_ms,
        )

    def _end(self, settlement: Settlement) -> None:
        call, ending = settlement.call, settlement.ending
        del self.calls[call.call_id]
        self.cdrs[call.call_id] = replace(
            self.cdrs[call.call_id],
            status=settlement.state.value,
            dialed_at_ms=call.dialed_at_ms or ending.dialed_at_ms,
            answered_at_ms=settlement.answered_at_ms,
            ended_at_ms=ending.ended_at_ms,
            talk_ms=settlement.talk_ms,
            billsec=settlement.billsec,
            price=settlement.price,
            overrun_ms=settlement.overrun_ms,
            dialstatus=ending.dialstatus,
            settled_by=ending.settled_by,
            estimated=ending.estimated,
            ourcost=settlement.ourcost,
        )


def found_call(call: OpenCall) -> FoundCall:
    """What is known of an open call before its client is locked."""
    return FoundCall(call.call_id, call.client_id, call.node, call.occupancy)


class MemoryTransaction:
    """One transaction: reads what is committed, keeps what is to be written."""

    def __init__(self, books: MemoryBooks) -> None:
        self._books = books
        self._locked: set[int] = set()
        self._counted: frozenset[Level] = frozenset()
        self.changes = Changes()

    async def find(
        self, call_ids: Collection[str], channels: Collection[Channel]
    ) -> Mapping[str, FoundCall]:
        def is_meant(call: OpenCall) -> bool:
            mine = {call.uniqueid, call.leg_uniqueid}
            by_channel = any(c.node == call.node and c.uniqueid in mine for c in channels)
            return call.call_id in call_ids or by_channel

        return {id: found_call(c) for id, c in self._books.calls.items() if is_meant(c)}

    async def lock(self, wanted: Wanted) -> Locked:
        return Locked(
            1 if wanted.version else 0,
            await self.lock_clients(wanted.clients),
            await self.load_open(wanted.calls),
            await self.lock_uses(wanted.levels) if wanted.levels else {},
            frozenset(wanted.recorded) & self._books.cdrs.keys(),
            {node: at for node, at in self._books.heard.items() if node in wanted.nodes},
            {id: c.leg_uniqueid for id, c in self._books.calls.items() if id in wanted.answered},
        )

    async def lock_clients(self, ids: Collection[int]) -> Mapping[int, ClientBooks]:
        self._locked |= set(ids)
        return {id: self._books.clients[id] for id in sorted(ids) if id in self._books.clients}

    async def load_open(self, call_ids: Collection[str]) -> Sequence[OpenCall]:
        found = [call for id, call in sorted(self._books.calls.items()) if id in call_ids]
        assert {call.client_id for call in found} <= self._locked, "a client is not locked"
        return found

    async def lock_uses(self, levels: Collection[Level]) -> Uses:
        assert self._locked, "the clients come first"
        self._counted |= frozenset(levels)
        return {level: self._books.uses.get(level, 0) for level in levels}

    async def load_usages(self, periods: Collection[ClientPeriod]) -> Mapping[ClientPeriod, Usage]:
        assert {client_id for client_id, _ in periods} <= self._locked, "a client is not locked"
        return {
            period: self._books.usages[period]
            for period in set(periods) & self._books.usages.keys()
        }

    async def write(self, changes: Changes) -> None:
        assert changes.clients.keys() <= self._locked, "a client is not locked"
        shared = {level for level in changes.uses if level.shared}
        assert shared <= self._counted, "a counter is not locked"
        self._books.check(changes)
        self.changes = changes
