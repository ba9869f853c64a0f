"""Operations on the books, a batch in one transaction.

The clients that the batch touches are locked in one fixed order, then the counters of capacity
in theirs; then the operations are decided in pure code, one after the other in the order in which
they came, against those rows; then everything is written. What the first operation took is gone
for the second, exactly as if each had had a transaction of its own.

Every operation may be repeated. An end that finds its call settled changes nothing. A request
whose CDR is already there was committed by an attempt whose COMMIT got no answer: it keeps the
answer of that attempt (`carried`) and is not booked again. So does a request for a next route
whose call is on that route already. That is asked under the client's lock, which the lost
attempt held until it was over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    Links,
    NoLinks,
)

Carried: TypeAlias = Mapping[str, Outcome]
"""Answers of an earlier attempt that may or may not have been committed: decisions by the id of
the call, routes by the id of the question."""

Screened: TypeAlias = Mapping[str, Inquiry | Decision]
"""What the catalog says of the requests, by the id of the call."""

NO_LINKS = NoLinks()
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

    async def apply(
        self, operations: Sequence[Operation], carried: Carried, outcomes: list[Outcome]
    ) -> None:
        """Apply the operations in one transaction, filling `outcomes` in their order.

        `outcomes` is filled before COMMIT, so that after a CommitUnknown the caller knows what
        the attempt would have answered. Raises StorageError; then nothing was changed, except
        that CommitUnknown leaves it open.
        """
        outcomes.clear()
        async with self._books.transaction() as transaction:
            catalog = await self._catalog_for(operations, transaction)
            batch = await self._open_batch(transaction, catalog, operations, carried)
            outcomes.extend(batch.apply(operation) for operation in operations)
            if batch.changes:
                await transaction.write(batch.changes)

    async def _catalog_for(
        self, operations: Sequence[Operation], transaction: BooksTransaction
    ) -> Catalog:
        """The catalog as the transaction sees it; endings are settled without one."""
        if any(isinstance(operation, CallRequest | RouteRequest) for operation in operations):
            return await self._catalog.at_least(await transaction.catalog_version())
        return EMPTY

    async def _open_batch(
        self,
        transaction: BooksTransaction,
        catalog: Catalog,
        operations: Sequence[Operation],
        carried: Carried,
    ) -> Batch:
        screened = self._screened(operations, catalog)
        call_ids, channels = _subjects(operations)
        found = await transaction.find_open(call_ids, channels) if call_ids or channels else {}
        client_ids = {*found.values(), *_payers(screened.values())}
        clients = await transaction.lock_clients(client_ids) if client_ids else {}
        calls = await transaction.load_open(found) if found else ()
        routings = self._routings(operations, calls, catalog)
        levels = _levels(screened.values(), routings, calls)
        uses = await transaction.lock_uses(levels) if levels else {}
        repeated = {o.call_id for o in operations if isinstance(o, CallRequest)} & set(carried)
        recorded = await transaction.recorded(repeated) if repeated else frozenset()
        known = {id: carried[id] for id in carried if id not in repeated or id in recorded}
        now_ms = self._now_ms()
        periods = _periods(clients.values(), calls, now_ms)
        usages = await transaction.load_usages(periods) if periods else {}
        gone = {o.call_id for o in operations if isinstance(o, Gone | Expire)}
        nodes = {call.node for call in calls if call.call_id in gone}
        heard = await transaction.heard_until(nodes) if nodes else {}
        rows = BatchRows(clients, calls, uses, usages, heard)
        answers = BatchAnswers(screened, routings, known)
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


def _payers(screened: Iterable[Inquiry | Decision]) -> set[int]:
    accounts = (found.account for found in screened)
    return {account.client_id for account in accounts if account is not None}


def _levels(
    screened: Iterable[Inquiry | Decision],
    routings: Mapping[str, Routing],
    calls: Iterable[OpenCall],
) -> set[Level]:
    """Every counter that the batch may look at or change."""
    levels: set[Level] = set()
    for inquiry in screened:
        if isinstance(inquiry, Inquiry):
            levels.update(inquiry.levels())
    for call in calls:
        levels.update(call.occupancy.levels())
        routing = routings.get(call.call_id)
        for way in routing.routes if routing else ():
            mine = call.occupancy
            levels.update(way.occupancy(mine.account_id, mine.reseller_id).levels())
    return levels


def _periods(
    clients: Iterable[ClientBooks], calls: Iterable[OpenCall], now_ms: int
) -> set[ClientPeriod]:
    """The periods of the quotas that the batch may look at or change."""
    periods = {(client.id, p) for client in clients for p in client.quotas.periods(now_ms)}
    return periods | {(call.client_id, period) for call in calls for period in call.periods}


def _subjects(operations: Iterable[Operation]) -> tuple[set[str], set[Channel]]:
    call_ids: set[str] = set()
    channels: set[Channel] = set()
    for operation in operations:
        match operation:
            case Undelivered(call_id) | Expire(call_id) | Gone(call_id) | Reconciled(call_id):
                call_ids.add(call_id)
            case RouteRequest(call_id=call_id, node=node, uniqueid=uniqueid):
                call_ids.add(call_id)
                channels.add(Channel(node, uniqueid))
            case LegAnswered(node=node, caller_uniqueid=uniqueid, call_id=call_id):
                call_ids.add(call_id)
                channels.add(Channel(node, uniqueid))
            case HangupReport(node=node, uniqueid=uniqueid, call_id=call_id):
                call_ids.add(call_id)
                channels.add(Channel(node, uniqueid))
            case ChannelEnded(node=node, uniqueid=uniqueid):
                channels.add(Channel(node, uniqueid))
    call_ids.discard("")
    return call_ids, channels
