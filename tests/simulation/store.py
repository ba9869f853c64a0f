"""The database of a simulation: rows in memory, row locks, commits all or nothing.

A transaction reads what is committed, writes nothing before its commit, and holds its locks until
it is over. There is no check here that the program does the right thing: whatever it writes is
kept, and the auditor, told of each commit, looks at the rows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace

from astcredit.domain.books import ClientBooks, LedgerEntry, LedgerKind, OpenCall
from astcredit.domain.capacity import Level, Occupancy
from astcredit.domain.quotas import ClientPeriod, Usage
from astcredit.domain.settlement import Settlement
from astcredit.domain.states import CallState
from astcredit.service.errors import PoisonError
from astcredit.service.operations import Answered
from astcredit.service.ports import Changes, Channel, NewCall

NOWHERE = Occupancy(None)


@dataclass(slots=True)
class Cdr:
    """What of a CDR is looked at."""

    id: str
    client_id: int | None
    node: str
    uniqueid: str
    linkedid: str
    number: str
    status: str
    denied: str
    seconds: int
    reserved: int
    created_at_ms: int
    leg_uniqueid: str | None = None
    answered_at_ms: int | None = None
    ended_at_ms: int | None = None
    talk_ms: int | None = None
    billsec: int | None = None
    price: int | None = None
    settled_by: str = ""
    estimated: bool = False
    dialstatus: str = ""
    note: str = ""

    def __str__(self) -> str:
        marked = "estimated " if self.estimated else ""
        return (
            f"{self.status} {marked}by {self.settled_by or 'nobody'}, price {self.price} of"
            f" {self.reserved}, leg {self.leg_uniqueid}, {self.answered_at_ms} to"
            f" {self.ended_at_ms}, talk {self.talk_ms} ms of {self.seconds} s ({self.note})"
        )


class Store:
    """What is committed. `on_commit` is told of the changes after each commit, and of the rows of
    open calls before it."""

    def __init__(self, clients: Iterable[ClientBooks]) -> None:
        self.clients: dict[int, ClientBooks] = {}
        self.cdrs: dict[str, Cdr] = {}
        self.open: dict[str, OpenCall] = {}
        self.ledger: list[LedgerEntry] = []
        self.references: set[str] = set()
        self.uses: dict[Level, int] = {}
        self.usages: dict[ClientPeriod, Usage] = {}
        self.heard: dict[str, int] = {}
        self.heard_log: list[tuple[float, str, int]] = []
        """What was noted of nodes and when, for those who ask what was known at a time."""
        self.locks = Locks()
        self.commits = 0
        self.on_commit: Callable[[Changes, Mapping[str, OpenCall | None]], None] | None = None
        self._by_channel: dict[Channel, dict[str, None]] = {}
        for client in clients:
            self._open_client(client)

    def _open_client(self, client: ClientBooks) -> None:
        empty = ClientBooks(
            client.id,
            client.kind,
            0,
            client.credit_limit,
            0,
            0,
            0,
            client.monthly_quota,
            client.daily_quota,
        )
        books, entry = empty.post(
            LedgerKind.TOPUP,
            client.balance,
            reference=f"opening:{client.id}",
            actor="simulation",
            now_ms=0,
        )
        self.clients[client.id] = books
        self.ledger.append(entry)
        self.references.add(entry.reference)

    def of_channel(self, channel: Channel) -> Iterable[str]:
        """Ids of the open calls whose calling channel or answered leg this is."""
        return self._by_channel.get(channel, ())

    def refuse(self, changes: Changes) -> None:
        """Refuse what a unique key would refuse. Raises PoisonError."""
        new = [call.request.call_id for call in changes.calls]
        if len(set(new)) < len(new) or any(id in self.cdrs for id in new):
            raise PoisonError("a CDR of that id is there")
        references = [entry.reference for entry in changes.ledger]
        if len(set(references)) < len(references) or not self.references.isdisjoint(references):
            raise PoisonError("a ledger row of that reference is there")

    def apply(self, changes: Changes) -> None:
        """Commit. Raises PoisonError, and then has changed nothing."""
        self.refuse(changes)
        before: dict[str, OpenCall | None] = {}
        for new in changes.calls:
            before[new.request.call_id] = None
            self._begin(new)
        for moved in changes.rerouted:
            self._replace(moved.call, before)
        for answer in changes.answered:
            self._note_answer(answer, before)
        for settlement in changes.settlements:
            before.setdefault(settlement.call.call_id, self.open.get(settlement.call.call_id))
            self._end(settlement)
        self.ledger.extend(changes.ledger)
        self.references.update(entry.reference for entry in changes.ledger)
        self.clients.update(changes.clients)
        for level, calls in changes.uses.items():
            self.uses[level] = self.uses.get(level, 0) + calls
        self.usages.update(changes.usages)
        self.commits += 1
        if self.on_commit is not None:
            self.on_commit(changes, before)
        self.heard.update(changes.heard)
        now = asyncio.get_running_loop().time()
        self.heard_log += [(now, *item) for item in changes.heard.items()]

    def _begin(self, new: NewCall) -> None:
        request, decision = new.request, new.decision
        self.cdrs[request.call_id] = Cdr(
            request.call_id,
            decision.account.client_id if decision.account else None,
            request.node,
            request.uniqueid,
            request.linkedid,
            decision.number or request.number,
            "open" if decision.allowed else "denied",
            "" if decision.allowed else decision.status.value,
            decision.seconds,
            decision.reserved,
            new.created_at_ms,
        )
        if not decision.allowed:
            return
        assert decision.client is not None
        assert decision.rate is not None
        call = OpenCall(
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
        self.open[call.call_id] = call
        self._index(call)

    def _replace(self, call: OpenCall, before: dict[str, OpenCall | None]) -> None:
        before.setdefault(call.call_id, self.open.get(call.call_id))
        if call.call_id in self.open:  # an UPDATE of a row that is not there changes nothing
            self.open[call.call_id] = call
            self._index(call)

    def _note_answer(self, answer: Answered, before: dict[str, OpenCall | None]) -> None:
        call = self.open.get(answer.call_id)
        if call is not None:
            answered = replace(
                call,
                state=CallState.ANSWERED,
                leg_uniqueid=answer.leg_uniqueid,
                dialed_at_ms=answer.dialed_at_ms,
                answered_at_ms=answer.answered_at_ms,
            )
            self._replace(answered, before)
        cdr = self.cdrs[answer.call_id]
        cdr.status = CallState.ANSWERED.value
        cdr.leg_uniqueid = answer.leg_uniqueid
        cdr.answered_at_ms = answer.answered_at_ms

    def _end(self, settlement: Settlement) -> None:
        call, ending = settlement.call, settlement.ending
        held = self.open.pop(call.call_id, None)
        if held is not None:
            self._unindex(held)
        cdr = self.cdrs[call.call_id]
        cdr.status = settlement.state.value
        cdr.answered_at_ms = settlement.answered_at_ms
        cdr.ended_at_ms = ending.ended_at_ms
        cdr.talk_ms = settlement.talk_ms
        cdr.billsec = settlement.billsec
        cdr.price = settlement.price
        cdr.settled_by = ending.settled_by
        cdr.estimated = ending.estimated
        cdr.dialstatus = ending.dialstatus
        cdr.note = ending.note

    def _index(self, call: OpenCall) -> None:
        for uniqueid in (call.uniqueid, call.leg_uniqueid):
            if uniqueid:
                ids = self._by_channel.setdefault(Channel(call.node, uniqueid), {})
                ids[call.call_id] = None

    def _unindex(self, call: OpenCall) -> None:
        for uniqueid in (call.uniqueid, call.leg_uniqueid):
            channel = Channel(call.node, uniqueid or "")
            ids = self._by_channel.get(channel)
            if ids is not None:
                ids.pop(call.call_id, None)
                if not ids:
                    del self._by_channel[channel]


class Locks:
    """Row locks: one holder each, who waits first has it first."""

    def __init__(self) -> None:
        self._holders: dict[Hashable, object] = {}
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    def take_at_once(self, key: Hashable, holder: object) -> bool:
        """Take a lock that is free or the holder's own."""
        return self._holders.setdefault(key, holder) is holder

    async def take(self, key: Hashable, holder: object) -> None:
        """Take a lock, waiting for it if need be."""
        while not self.take_at_once(key, holder):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue = self._waiting.setdefault(key, deque())
            queue.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._leave(key, turn)
                raise

    def _leave(self, key: Hashable, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(key)
        if queue is not None and turn in queue:
            queue.remove(turn)
        elif key not in self._holders:  # it was our turn already: the next one's
            self._wake(key)

    def release(self, holder: object, keys: Iterable[Hashable]) -> None:
        """Let go of locks."""
        for key in keys:
            if self._holders.get(key) is holder:
                del self._holders[key]
                self._wake(key)

    def _wake(self, key: Hashable) -> None:
        queue = self._waiting.get(key)
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._waiting.pop(key, None)
