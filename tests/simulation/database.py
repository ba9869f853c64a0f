"""A controller's connection to the store, over which everything can go wrong.

Each statement is an await that goes outside: it can be slow, freeze, or lose the connection. A
COMMIT can be lost before it happened, after it happened, or happen later than anybody waits, with
the transaction's locks held until then. `Weather` says how often; it is the same for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from astcredit.domain.books import ClientBooks, OpenCall
from astcredit.domain.capacity import Level, Uses
from astcredit.domain.catalog import Catalog
from astcredit.domain.quotas import ClientPeriod, Usage
from astcredit.service.errors import CommitUnknown, TransientError
from astcredit.service.ports import (
    Changes,
    Channel,
    EndedCall,
    FoundCall,
    Locked,
    OpenOnNode,
    Wanted,
)
from simulation.chance import Chance
from simulation.store import Store
from support.memory_books import found_call

TRANSACTION_SECONDS = 5.0
"""As the program's own limit for a transaction."""
LOCK_WAIT_SECONDS = 3.0


class Owner(Protocol):
    """The process that uses a connection."""

    alive: bool


@dataclass(slots=True)
class Weather:
    """How often what goes wrong with the database, a statement; and what is wrong just now."""

    lost: float = 0.0
    slow: float = 0.0
    commit_conflict: float = 0.0
    commit_lost: float = 0.0
    commit_unheard: float = 0.0
    commit_late: float = 0.0
    down_until: float = 0.0
    frozen_until: float = 0.0


class Connection:
    """The books as one process sees them. Implements `astcredit.service.ports.Books`."""

    def __init__(self, store: Store, weather: Weather, chance: Chance, owner: Owner) -> None:
        self.store = store
        self._weather = weather
        self._chance = chance
        self._owner = owner

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction; see the port."""
        transaction = Transaction(self)
        try:
            async with asyncio.timeout(TRANSACTION_SECONDS):
                await self.trip()
                yield transaction
                await self._commit(transaction)
                transaction.done = True
        except TimeoutError as error:
            if transaction.committing:
                raise CommitUnknown("no answer to COMMIT in time") from error
            raise TransientError("the database did not answer in time") from error
        finally:
            self._close(transaction)

    async def trip(self) -> None:
        """To the database and back. Raises TransientError when the connection is lost."""
        await self._still_alive()
        loop = asyncio.get_running_loop()
        weather, chance = self._weather, self._chance
        if chance.happens(weather.slow):
            await asyncio.sleep(chance.about(0.4))
        else:
            await asyncio.sleep(chance.between(0.0001, 0.0015))
        if weather.frozen_until > loop.time():
            await asyncio.sleep(weather.frozen_until - loop.time())
        await self._still_alive()
        if weather.down_until > loop.time():
            raise TransientError("simulated: cannot connect")
        if chance.happens(weather.lost):
            raise TransientError("simulated: deadlock or lost connection")

    async def _still_alive(self) -> None:
        """A process that was killed does nothing any more."""
        if not self._owner.alive:
            await asyncio.Event().wait()

    async def _commit(self, transaction: Transaction) -> None:
        changes = transaction.changes
        if changes is None:
            return
        await self.trip()  # what is lost before COMMIT was sent is no riddle
        chance, weather = self._chance, self._weather
        if chance.happens(weather.commit_conflict):
            raise TransientError("simulated: certification conflict")
        transaction.committing = True
        if chance.happens(weather.commit_lost):
            raise CommitUnknown("simulated: COMMIT never arrived")
        if chance.happens(weather.commit_late):
            self._commit_later(transaction, changes)
            raise CommitUnknown("simulated: COMMIT arrives later")
        try:
            await asyncio.sleep(chance.between(0.0001, 0.001))
        except asyncio.CancelledError:
            # Killed or out of patience between sending and hearing: it may have arrived.
            if chance.happens(0.5):
                self.store.apply(changes)
            raise
        await self._still_alive()
        self.store.apply(changes)
        self._close(transaction)
        if chance.happens(weather.commit_unheard):
            raise CommitUnknown("simulated: the answer to COMMIT was lost")
        await asyncio.sleep(chance.between(0.0001, 0.001))

    def _commit_later(self, transaction: Transaction, changes: Changes) -> None:
        """The server has COMMIT in its queue; the rows stay locked until it gets there."""
        transaction.abandoned = True

        def arrive() -> None:
            self.store.apply(changes)
            self.store.locks.release(transaction, transaction.locks)

        asyncio.get_running_loop().call_later(self._chance.between(0.05, 2.5), arrive)

    def _close(self, transaction: Transaction) -> None:
        if transaction.abandoned:
            return
        transaction.abandoned = True
        store = self.store
        lost = not transaction.done and not transaction.committing
        if lost and transaction.locks and self._chance.happens(0.2):
            # The server notices later that the client has gone.
            wait = self._chance.between(0.0, 1.0)
            loop = asyncio.get_running_loop()
            loop.call_later(wait, store.locks.release, transaction, transaction.locks)
        else:
            store.locks.release(transaction, transaction.locks)

    async def expired(self, now_ms: int, most: int) -> Sequence[str]:
        await self.trip()
        late = [call.call_id for call in self.store.open.values() if call.expires_at_ms <= now_ms]
        return sorted(late)[:most]

    async def open_on(self, node: str) -> Sequence[OpenOnNode]:
        await self.trip()
        cdrs, calls = self.store.cdrs, sorted(self.store.open.items())
        found = [
            OpenOnNode(
                id,
                call.uniqueid,
                cdrs[id].linkedid,
                call.leg_uniqueid,
                call.state,
                None if call.answered_at_ms is None else call.answered_at_ms + call.seconds * 1000,
                call.seconds,
            )
            for id, call in calls
            if call.node == node
        ]
        await self.trip()
        return found

    async def ended(self, call_id: str) -> EndedCall | None:
        await self.trip()
        cdr = self.store.cdrs.get(call_id)
        if cdr is None or cdr.status in ("open", "answered"):
            return None
        return EndedCall(cdr.id, cdr.number, cdr.settled_by)

    async def catalog_version(self) -> int:
        await self.trip()
        return 1

    async def client_books(self, client_id: int) -> ClientBooks:
        await self.trip()
        return self.store.clients[client_id]


class Transaction:
    """One transaction: reads what is committed, keeps what is to be written."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._store = connection.store
        self.locks: list[Hashable] = []
        self.changes: Changes | None = None
        self.committing = False
        self.done = False
        self.abandoned = False

    async def find(
        self, call_ids: Collection[str], channels: Collection[Channel]
    ) -> Mapping[str, FoundCall]:
        await self._connection.trip()
        store = self._store
        found = {id for id in call_ids if id in store.open}
        for channel in channels:
            found.update(store.of_channel(channel))
        return {id: found_call(store.open[id]) for id in sorted(found)}

    async def lock(self, wanted: Wanted) -> Locked:
        store = self._store
        clients = await self.lock_clients(wanted.clients)
        calls = await self.load_open(wanted.calls)
        answered = {c.call_id: c.leg_uniqueid for c in await self.load_open(wanted.answered)}
        uses = await self.lock_uses(wanted.levels) if wanted.levels else {}
        recorded = frozenset(id for id in wanted.recorded if id in store.cdrs)
        heard = {node: store.heard[node] for node in sorted(wanted.nodes) if node in store.heard}
        await self._connection.trip()
        return Locked(1 if wanted.version else 0, clients, calls, uses, recorded, heard, answered)

    async def lock_clients(self, ids: Collection[int]) -> Mapping[int, ClientBooks]:
        await self._connection.trip()
        for id in sorted(ids):
            await self._lock(("client", id))
        return {id: self._store.clients[id] for id in sorted(ids) if id in self._store.clients}

    async def load_open(self, call_ids: Collection[str]) -> Sequence[OpenCall]:
        await self._connection.trip()
        store = self._store
        for id in sorted(call_ids):
            if id in store.open:
                await self._lock(("call", id))
        return [store.open[id] for id in sorted(call_ids) if id in store.open]

    async def lock_uses(self, levels: Collection[Level]) -> Uses:
        await self._connection.trip()
        ordered = sorted(levels, key=lambda level: level.key)
        for level in ordered:
            await self._lock(level)
        return {level: self._store.uses.get(level, 0) for level in ordered}

    async def load_usages(self, periods: Collection[ClientPeriod]) -> Mapping[ClientPeriod, Usage]:
        usages = self._store.usages
        return {period: usages[period] for period in sorted(periods) if period in usages}

    async def write(self, changes: Changes) -> None:
        await self._connection.trip()
        self._store.refuse(changes)
        self.changes = changes

    async def _lock(self, key: Hashable) -> None:
        locks = self._store.locks
        if not locks.take_at_once(key, self):
            try:
                async with asyncio.timeout(LOCK_WAIT_SECONDS):
                    await locks.take(key, self)
            except TimeoutError:
                raise TransientError("simulated: lock wait timeout") from None
        self.locks.append(key)


class FixedCatalog:
    """A catalog that does not change. Implements `astcredit.service.ports.CatalogSource`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def at_least(self, version: int) -> Catalog:
        return self._catalog
