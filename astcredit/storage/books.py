"""The books in SQL: what the batches of operations read and write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar, cast

from astcredit.domain.books import ClientBooks, OpenCall
from astcredit.domain.capacity import Level, Uses
from astcredit.domain.instants import instant_text
from astcredit.domain.quotas import ClientPeriod, Usage
from astcredit.service.errors import Outdated, StorageError
from astcredit.service.ports import (
    Changes,
    Channel,
    EndedCall,
    FoundCall,
    Locked,
    OpenOnNode,
    Wanted,
)
from astcredit.storage import rows, tables
from astcredit.storage.book_reads import BookReads
from astcredit.storage.book_writes import BookWrites
from astcredit.storage.database import Database
from astcredit.storage.guesses import Guesses, Memory, Seen
from astcredit.storage.sessions import CoreSession, Question, Session
from astcredit.storage.sql import SqlDialect
from astcredit.storage.tables import fit

Found = TypeVar("Found")


class SqlBooks:
    """The books of one database. Implements `astcredit.service.ports.Books`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reads = BookReads(database.dialect)
        self._memory = Memory()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlBooksTransaction]:
        """A transaction on the books; see the port."""
        memory = self._memory
        transaction = None
        try:
            async with self._database.session() as session:
                transaction = SqlBooksTransaction(session, self._database.dialect, memory)
                yield transaction
                await transaction.prove()
        except BaseException as error:
            if transaction is not None:
                outdated = isinstance(error, Outdated)
                memory.forget(transaction.seen, transaction.guesses, outdated=outdated)
            raise
        if session.proves:  # else nothing of it would ever be asked for
            memory.keep(transaction.seen, transaction.guesses)

    async def expired(self, now_ms: int, most: int) -> Sequence[str]:
        """Ids of calls whose reservation is past its last possible second."""
        mark = self._database.dialect.mark
        async with self._database.reading() as connection:
            result = await connection.exec_driver_sql(
                f"SELECT call_id FROM astcreditres WHERE expires_at <= {mark}"
                f" ORDER BY expires_at LIMIT {int(most)}",
                (instant_text(now_ms),),
            )
            return [row[0] for row in result]

    async def open_on(self, node: str) -> Sequence[OpenOnNode]:
        """The calls of a node that are open now."""
        mark = self._database.dialect.mark
        async with self._database.reading() as connection:
            result = await connection.exec_driver_sql(
                "SELECT r.call_id, r.uniqueid, c.linkedid, c.leg_uniqueid, c.status,"
                " c.answered_at, r.seconds FROM astcreditres r JOIN astcdr c ON c.id = r.call_id"
                f" WHERE r.node = {mark} ORDER BY r.call_id",
                (fit(tables.astcreditres, "node", node),),
            )
            return [rows.open_on_node(row) for row in result]

    async def ended(self, call_id: str) -> EndedCall | None:
        """The call, if it is on record and over."""
        mark = self._database.dialect.mark
        async with self._database.reading() as connection:
            result = await connection.exec_driver_sql(
                f"SELECT id, callednum, settled_by FROM astcdr WHERE id = {mark}"
                " AND status NOT IN ('open', 'answered')",
                (fit(tables.astcdr, "id", call_id),),
            )
            row: Any = result.first()
        return None if row is None else EndedCall(*row)

    async def catalog_version(self) -> int:
        """The version of the catalog now."""
        return await self._ask(self._reads.catalog_version())

    async def client_books(self, client_id: int) -> ClientBooks:
        """A client's books without a lock."""
        found = await self._ask(self._reads.clients([client_id], lock=False))
        if client_id not in found:
            raise StorageError(f"client {client_id} has no row")
        return found[client_id]

    async def _ask(self, question: Question[Found]) -> Found:
        async with self._database.reading() as connection:
            (found,) = await CoreSession(connection).ask(question)
        return cast(Found, found)


class SqlBooksTransaction:
    """One transaction. Implements `astcredit.service.ports.BooksTransaction`."""

    def __init__(self, session: Session, dialect: SqlDialect, memory: Memory | None = None) -> None:
        self.session = session
        self._reads = BookReads(dialect)
        self._writes = BookWrites(dialect)
        self._memory = memory
        self._written = False
        self.seen = Seen()
        self.guesses = Guesses()

    async def find(
        self, call_ids: Collection[str], channels: Collection[Channel]
    ) -> Mapping[str, FoundCall]:
        """Open calls by id, by calling channel or by answered leg."""
        return await self.session.look(self._reads.open_calls(call_ids, channels))

    async def lock(self, wanted: Wanted) -> Locked:
        """Lock and read rows, all in one go; see the port."""
        guessed = Guesses()
        if wanted.guess and self._memory is not None and self.session.proves:
            guessed = self.guesses = self._memory.guess(wanted)
        if guessed.clients:
            # Nothing depends on counters without a limit; to be changed they need not be read.
            calls, uses = [*guessed.calls.values()], dict.fromkeys(wanted.levels, 0)
            locked = Locked(guessed.version or 0, guessed.clients, calls, uses)
        else:
            locked = await self._locked(replace(wanted, answered=()) if guessed else wanted)
        if wanted.version:
            self.seen.version = locked.version
        self.seen.clients.update(locked.clients)
        return replace(locked, answered=guessed.answered) if guessed.answered else locked

    async def _locked(self, wanted: Wanted) -> Locked:
        reads, by_key = self._reads, {level.key: level for level in wanted.levels}
        asked: dict[str, Question[Any]] = {}
        if wanted.version:
            asked["version"] = reads.catalog_version()
        if wanted.clients:
            asked["clients"] = reads.clients(wanted.clients, lock=True)
        if wanted.calls:
            asked["calls"] = reads.whole_calls(wanted.calls, lock=True)
        if wanted.answered:
            asked["answered"] = reads.answered(wanted.answered)
        if by_key:
            asked["uses"] = reads.counters(by_key)
        if wanted.recorded:
            asked["recorded"] = reads.recorded(wanted.recorded)
        if wanted.nodes:
            asked["heard"] = reads.heard_until(wanted.nodes)
        answers = await self.session.ask(*asked.values()) if asked else ()
        found = dict(zip(asked, answers, strict=True))
        if by_key:
            found["uses"] = await self._all_uses(by_key, found["uses"])
        return Locked(**found)

    async def lock_clients(self, ids: Collection[int]) -> Mapping[int, ClientBooks]:
        """Lock clients in the order of their ids and read their books."""
        return (await self.lock(Wanted(clients=ids))).clients

    async def read_clients(self, ids: Collection[int]) -> Mapping[int, ClientBooks]:
        """The books of clients, without a lock."""
        (found,) = await self.session.ask(self._reads.clients(ids, lock=False))
        return cast(Mapping[int, ClientBooks], found)

    async def load_open(self, call_ids: Collection[str]) -> Sequence[OpenCall]:
        """Those of the calls that are still open."""
        (found,) = await self.session.ask(self._reads.whole_calls(call_ids, lock=False))
        return cast(Sequence[OpenCall], found)

    async def lock_uses(self, levels: Collection[Level]) -> Uses:
        """Lock counters of capacity in the order of their keys and read them."""
        return (await self.lock(Wanted(levels=levels))).uses

    async def _all_uses(self, by_key: Mapping[str, Level], found: Mapping[str, int]) -> Uses:
        new = [by_key[key] for key in sorted(by_key.keys() - found.keys())]
        if new:
            # A counter that nobody has used yet cannot be locked before it is there.
            for statement, values in self._writes.counted(dict.fromkeys(new, 0)):
                await self.session.run(statement, values)
            (found,) = await self.session.ask(self._reads.counters(by_key))
        return {by_key[key]: calls for key, calls in found.items()}

    async def load_usages(self, periods: Collection[ClientPeriod]) -> Mapping[ClientPeriod, Usage]:
        """What clients used in those periods, if anything."""
        (found,) = await self.session.ask(self._reads.usages(periods))
        return cast(Mapping[ClientPeriod, Usage], found)

    async def heard_until(self, nodes: Collection[str]) -> Mapping[str, int]:
        """Up to when all that happened on those nodes is on record; nothing for others."""
        return (await self.lock(Wanted(nodes=nodes))).heard

    async def write(self, changes: Changes) -> None:
        """Write everything."""
        self.seen.clients.update(changes.clients)
        self.seen.changes = changes
        self._written = True
        for statement, values in self._writes.written(changes, self.guesses):
            await self.session.run(statement, values)

    async def prove(self) -> None:
        """What was taken for granted is proved by what is written; if nothing is, it is now."""
        if self.guesses and not self._written:
            await self.write(Changes())
