"""Operations on the books, a batch in one transaction.

The clients that the batch touches are locked in one fixed order, then the counters of capacity
in theirs; then the operations are decided in pure code, one after the other in the order in which
they came, against those rows; then everything is written. What the first operation took is gone
for the second, exactly as if each had had a transaction of its own.

Every operation may be repeated. An end that finds its call settled changes nothing. A request
whose CDR is already there was committed by an attempt whose COMMIT got no answer: it keeps the
answer of that attempt (`carried`) and is not booked again. So does a request for a next route
whose call is on that route already. That is asked under the client's lock, which the lost
attempt held until it was over. One that took its rows for granted may come to the database later
than that; then it finds the CDR there, or the call in another state, and nothing of it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from astcredit.domain.books import ClientBooks, OpenCall
from astcredit.domain.calls import (
    CallRequest,
    ChannelEnded,
    HangupReport,
    LegAnswered,
    RouteRequest,
)
from astcredit.domain.capacity import Level
from astcredit.domain.catalog import Catalog, compile_catalog
from astcredit.domain.decisions import CallPolicy, Decision, Inquiry
from astcredit.domain.quotas import ClientPeriod
from astcredit.domain.routing import Routing
from astcredit.domain.screening import route, screen
from astcredit.service.batch import Batch, BatchAnswers, BatchRows
from astcredit.service.errors import Outdated
from astcredit.service.operations import (
    Expire,
    Gone,
    Operation,
    Outcome,
    Reconciled,
    Undelivered,
)
from astcredit.service.ports import (
    Books,
    BooksTransaction,
    CatalogSource,
    Channel,
    FoundCall,
    Links,
    Locked,
    NoLinks,
    Wanted,
)

Carried: TypeAlias = Mapping[str, Outcome]
"""Answers of an earlier attempt that may or may not have been committed: decisions by the id of
the call, routes by the id of the question."""

Screened: TypeAlias = Mapping[str, Inquiry | Decision]
"""What the catalog says of the requests, by the id of the call."""

NO_LINKS = NoLinks()
Subjects: TypeAlias = tuple[set[str], set[Channel]]
"""The calls that operations mean: by their ids, and by their channels."""

EMPTY = compile_catalog(0, {}, {}, {})


class Ledger:
    """Applies batches of operations to the books."""

    def __init__(
        self,
        books: Books,
        catalog: CatalogSource,
        policy: CallPolicy,
        now_ms: Callable[[], int],
        *,
        links: Links = NO_LINKS,
        denied_cdr: bool = True,
    ) -> None:
        self._books = books
        self._catalog = catalog
        self._policy = policy
        self._now_ms = now_ms
        self._links = links
        self._denied_cdr = denied_cdr
        # What is on record and makes no sense is not taken over, and need not be looked for again.
        self._looked_for = 0

    async def apply(
        self,
        operations: Sequence[Operation],
        carried: Carried,
        outcomes: list[Outcome],
        ahead: bool = False,
    ) -> None:
        """Apply the operations in one transaction, filling `outcomes` in their order. `ahead`:
        events that came before the requests are left for later.

        `outcomes` is filled before COMMIT, so that after a CommitUnknown the caller knows what
        the attempt would have answered. Raises StorageError; then nothing was changed, except
        that CommitUnknown leaves it open.
        """
        asked = _Asked(operations, carried, ahead)
        try:
            await self._attempt(asked, outcomes, guess=True)
            return
        except Outdated:
            pass  # another server was faster
        except _NewerCatalog as newer:
            await self._catalog.at_least(newer.version)
            self._looked_for = newer.version
        # It may change again meanwhile, and again: now the transaction is asked first.
        await self._attempt(asked, outcomes, guess=False)

    async def _attempt(self, asked: _Asked, outcomes: list[Outcome], *, guess: bool) -> None:
        """Apply the operations in one transaction, with the catalog as the transaction sees it.

        The newest catalog known here is nearly always the newest there is. With `guess` it is taken
        for that, and the rows are locked in the same step that tells whether it was; or not even
        locked before they are written (`Wanted.guess`).
        """
        outcomes.clear()
        operations = asked.operations
        asks = any(isinstance(operation, CallRequest | RouteRequest) for operation in operations)
        catalog = await self._catalog.at_least(0) if asks and guess else EMPTY
        async with self._books.transaction() as transaction:
            if asks and not guess:
                seen = await transaction.lock(Wanted(version=True))
                catalog = await self._catalog.at_least(seen.version)
            opening = _Opening(asked, self._screened(operations, catalog))
            opened = await self._open(transaction, opening, version=asks and guess, guess=guess)
            if opened.version > max(catalog.version, self._looked_for):
                raise _NewerCatalog(opened.version)
            batch = await self._batch(transaction, catalog, opening, opened)
            outcomes.extend(batch.apply(operation) for operation in operations)
            if batch.changes:
                await transaction.write(batch.changes)

    async def _open(
        self, transaction: BooksTransaction, opening: _Opening, *, version: bool, guess: bool
    ) -> Locked:
        """Find the open calls that are meant, and lock all that can be known to be needed."""
        call_ids, channels = opening.whole
        if call_ids or channels:
            opening.found = await transaction.find(call_ids, channels)
        return await transaction.lock(
            Wanted(
                guess=guess and self._may_guess(opening),
                version=version,
                clients=opening.clients(),
                calls=opening.found,
                answered=opening.answered - opening.found.keys(),
                # What counters a next route touches is known once its call is read; all are locked
                # in one order, so none before.
                levels=() if opening.reroutes else opening.levels(),
                limits=opening.limits(),
                recorded=opening.requests() & set(opening.asked.carried),
                nodes=opening.nodes(),
            )
        )

    def _may_guess(self, opening: _Opening) -> bool:
        """Whether rows may be taken for granted. An attempt that was lost may come to the database
        late: then the CDR of its call must be there, whatever was decided meanwhile."""
        return not opening.reroutes and (self._denied_cdr or not opening.requests())

    async def _batch(
        self,
        transaction: BooksTransaction,
        catalog: Catalog,
        opening: _Opening,
        locked: Locked,
    ) -> Batch:
        asked = opening.asked
        routings = self._routings(asked.operations, locked.calls, catalog)
        uses = dict(locked.uses)
        needed = opening.levels() | _levels(locked.calls, routings)
        further = needed - uses.keys()
        if further:
            # Of a next route; or else a call was moved there just before it was locked.
            uses.update(await transaction.lock_uses(further))
        now_ms = self._now_ms()
        periods = _periods(locked.clients.values(), locked.calls, now_ms)
        usages = await transaction.load_usages(periods) if periods else {}
        requests, carried = opening.requests(), asked.carried
        known = {id: carried[id] for id in carried if id not in requests or id in locked.recorded}
        rows = BatchRows(locked.clients, locked.calls, locked.answered, uses, usages, locked.heard)
        answers = BatchAnswers(opening.screened, routings, known, asked.ahead)
        return Batch(rows, answers, self._policy, now_ms, self._links, self._denied_cdr)

    def _screened(self, operations: Iterable[Operation], catalog: Catalog) -> Screened:
        now_ms = self._now_ms()
        return {
            operation.call_id: screen(operation, catalog, self._policy, now_ms)
            for operation in operations
            if isinstance(operation, CallRequest)
        }

    def _routings(
        self, operations: Iterable[Operation], calls: Iterable[OpenCall], catalog: Catalog
    ) -> dict[str, Routing]:
        """All routes of the calls for which a next one is asked."""
        asked = [o for o in operations if isinstance(o, RouteRequest)]
        ids = {request.call_id for request in asked}
        callers = {Channel(r.node, r.uniqueid) for r in asked if not r.call_id}
        found = {}
        for call in calls:
            account = catalog.accounts.get(call.occupancy.account_id or 0)
            meant = call.call_id in ids or Channel(call.node, call.uniqueid) in callers
            if meant and account is not None:
                found[call.call_id] = route(
                    catalog,
                    account,
                    call.number,
                    call.rate,
                    node=call.node,
                    key=call.call_id,
                    now_ms=call.created_at_ms,
                    policy=self._policy,
                )
        return {id: routing for id, routing in found.items() if routing is not None}


class _NewerCatalog(Exception):  # noqa: N818 - not a fault
    """The calls were looked at with a catalog that has changed since."""

    def __init__(self, version: int) -> None:
        self.version = version


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be applied; see `Ledger.apply`."""

    operations: Sequence[Operation]
    carried: Carried
    ahead: bool


@dataclass(slots=True)
class _Opening:
    """What is known of a batch before its rows are locked."""

    asked: _Asked
    screened: Screened
    found: Mapping[str, FoundCall] = field(default_factory=dict)
    whole: Subjects = field(init=False)
    """The calls of which an operation may do more than to note their answer."""
    answered: set[str] = field(init=False)
    """The ids of calls that are answered; some of them may be `found`, too."""

    def __post_init__(self) -> None:
        operations = self.asked.operations
        ended = {Channel(o.node, o.uniqueid) for o in operations if isinstance(o, ChannelEnded)}
        self.answered, others = set(), []
        for o in operations:
            # A leg that is answered and ends in one batch is known by its answer alone.
            match o:
                case LegAnswered(call_id=call_id) if (
                    call_id and Channel(o.node, o.leg_uniqueid) not in ended
                ):
                    self.answered.add(call_id)
                case _:
                    others.append(o)
        self.whole = _subjects(others)

    @property
    def reroutes(self) -> bool:
        """Whether a next route is asked for."""
        return any(isinstance(operation, RouteRequest) for operation in self.asked.operations)

    def clients(self) -> set[int]:
        """Whose calls they are."""
        accounts = (found.account for found in self.screened.values())
        payers = {account.client_id for account in accounts if account is not None}
        return payers | {call.client_id for call in self.found.values()}

    def levels(self) -> set[Level]:
        """The counters that the batch must lock, as far as is known."""
        levels: set[Level] = set()
        for inquiry in self.screened.values():
            if isinstance(inquiry, Inquiry):
                levels.update(inquiry.levels())
        for call in self.found.values():
            levels.update(call.occupancy.shared())
        return levels

    def limits(self) -> set[Level]:
        """Those of them on which a decision depends."""
        found = self.screened.values()
        return {level for one in found if isinstance(one, Inquiry) for level in one.limited()}

    def nodes(self) -> set[str]:
        """The servers of calls of which it is asked up to when they were heard of."""
        gone = {o.call_id for o in self.asked.operations if isinstance(o, Gone | Expire)}
        return {call.node for call_id, call in self.found.items() if call_id in gone}

    def requests(self) -> set[str]:
        """The ids of the calls that are asked for."""
        return {o.call_id for o in self.asked.operations if isinstance(o, CallRequest)}


def _levels(calls: Iterable[OpenCall], routings: Mapping[str, Routing]) -> set[Level]:
    """The counters of calls, and of the routes that they may take next."""
    levels: set[Level] = set()
    for call in calls:
        levels.update(call.occupancy.shared())
        routing = routings.get(call.call_id)
        for way in routing.routes if routing else ():
            mine = call.occupancy
            levels.update(way.occupancy(mine.account_id, mine.reseller_id).shared())
    return levels


def _periods(
    clients: Iterable[ClientBooks], calls: Iterable[OpenCall], now_ms: int
) -> set[ClientPeriod]:
    """The periods of the quotas that the batch may look at or change."""
    periods = {(client.id, p) for client in clients for p in client.quotas.periods(now_ms)}
    return periods | {(call.client_id, period) for call in calls for period in call.periods}


def _subjects(operations: Iterable[Operation]) -> Subjects:
    call_ids: set[str] = set()
    channels: set[Channel] = set()
    for operation in operations:
        match operation:
            case Undelivered(call_id) | Expire(call_id) | Gone(call_id) | Reconciled(call_id):
                call_ids.add(call_id)
            case (
                RouteRequest(call_id=call_id, node=node, uniqueid=uniqueid)
                | LegAnswered(call_id=call_id, node=node, caller_uniqueid=uniqueid)
            ):
                # A call that is named is meant, and no other that its channel made.
                if call_id:
                    call_ids.add(call_id)
                else:
                    channels.add(Channel(node, uniqueid))
            case HangupReport(node=node, uniqueid=uniqueid, call_id=call_id):
                call_ids.add(call_id)
                channels.add(Channel(node, uniqueid))
            case ChannelEnded(node=node, uniqueid=uniqueid):
                channels.add(Channel(node, uniqueid))
    call_ids.discard("")
    return call_ids, channels
