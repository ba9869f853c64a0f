"""The books in SQL: what the batches of operations read and write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.books import ClientBooks, OpenCall
from astcredit.domain.capacity import Level, Uses
from astcredit.domain.instants import instant_text
from astcredit.domain.quotas import ClientPeriod, Usage
from astcredit.domain.settlement import Settlement
from astcredit.service.errors import StorageError
from astcredit.service.operations import Answered, Rerouted
from astcredit.service.ports import Changes, Channel, EndedCall, OpenOnNode
from astcredit.storage import rows, tables
from astcredit.storage.column_types import instant_ms
from astcredit.storage.database import Database
from astcredit.storage.sql import SqlDialect, Value
from astcredit.storage.tables import fit


class SqlBooks:
    """The books of one database. Implements `astcredit.service.ports.Books`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlBooksTransaction]:
        """A transaction on the books; see the port."""
        async with self._database.transaction() as connection:
            yield SqlBooksTransaction(connection, self._database.dialect)

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
                "SELECT r.call_id, r.uniqueid, c.linkedid, r.leg_uniqueid, c.status,"
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
        async with self._database.reading() as connection:
            return await SqlBooksTransaction(connection, self._database.dialect).catalog_version()

    async def client_books(self, client_id: int) -> ClientBooks:
        """A client's books without a lock."""
        async with self._database.reading() as connection:
            found = await SqlBooksTransaction(connection, self._database.dialect).read_clients(
                [client_id]
            )
        if client_id not in found:
            raise StorageError(f"client {client_id} has no row")
        return found[client_id]


class SqlBooksTransaction:
    """One transaction. Implements `astcredit.service.ports.BooksTransaction`."""

    def __init__(self, connection: AsyncConnection, dialect: SqlDialect) -> None:
        self._connection = connection
        self._sql = dialect

    async def _rows(self, statement: str, values: Iterable[Value]) -> Sequence[Any]:
        result = await self._connection.exec_driver_sql(statement, tuple(values))
        return result.all()

    async def catalog_version(self) -> int:
        """The version of the catalog as this transaction sees it."""
        found = await self._rows("SELECT version FROM astcatalog WHERE id = 1", ())
        if not found:
            raise StorageError("astcatalog has no row: run `astcredit init`")
        return int(found[0][0])

    async def find_open(
        self, call_ids: Collection[str], channels: Collection[Channel]
    ) -> Mapping[str, int]:
        """Open calls by id, by calling channel or by answered leg: call id → client id."""
        parts, values = [], list[Value]()
        if call_ids:
            parts.append(self._sql.in_list("call_id", len(call_ids)))
            values.extend(call_ids)
        if channels:
            # One SELECT for each index: an OR of them would use none.
            for column in ("uniqueid", "leg_uniqueid"):
                parts.append(self._sql.in_rows(("node", column), len(channels)))
                for channel in channels:
                    values.append(fit(tables.astcreditres, "node", channel.node))
                    values.append(fit(tables.astcreditres, column, channel.uniqueid))
        select = "SELECT call_id, client_id FROM astcreditres WHERE "
        statement = " UNION ".join(select + part for part in parts)
        return {row[0]: row[1] for row in await self._rows(statement, values)}

    async def lock_clients(self, ids: Collection[int]) -> Mapping[int, ClientBooks]:
        """Lock clients in the order of their ids and read their books."""
        return await self.read_clients(ids, self._sql.for_update)

    async def read_clients(
        self, ids: Collection[int], for_update: str = ""
    ) -> Mapping[int, ClientBooks]:
        """The books of clients."""
        micros = self._sql.micros
        clients = self._sql.by_key("astclient", "c")
        found = await self._rows(
            f"SELECT id, kind, {micros('balance')}, {micros('credit_limit')},"
            f" {micros('reserved')}, active_calls, ledger_seq, {micros('monthly_quota')},"
            f" {micros('daily_quota')}, timezone, {micros('low_balance')}, low_balance_told,"
            f" quota_counted FROM {clients} WHERE {self._sql.in_list('id', len(ids))}"
            f" ORDER BY id{for_update}",
            sorted(ids),
        )
        return {row[0]: rows.client_books(row) for row in found}

    async def load_open(self, call_ids: Collection[str]) -> Sequence[OpenCall]:
        """Those of the calls that are still open."""
        found = await self._rows(
            f"SELECT {rows.open_call_columns(self._sql)}"
            " FROM astcreditres r JOIN astcdr c ON c.id = r.call_id"
            f" WHERE {self._sql.in_list('r.call_id', len(call_ids))} ORDER BY r.call_id",
            call_ids,
        )
        return [rows.open_call(row) for row in found]

    async def lock_uses(self, levels: Collection[Level]) -> Uses:
        """Lock counters of capacity in the order of their keys and read them."""
        by_key = {level.key: level for level in levels}
        found = await self._locked_uses(by_key)
        new = [by_key[key] for key in sorted(by_key.keys() - found.keys())]
        if new:
            # A counter that nobody has used yet cannot be locked before it is there.
            await self._count(dict.fromkeys(new, 0))
            found = await self._locked_uses(by_key)
        return {by_key[key]: calls for key, calls in found.items()}

    async def _locked_uses(self, keys: Collection[str]) -> Mapping[str, int]:
        counters = self._sql.by_key("astcapacity", "k")
        found = await self._rows(
            f"SELECT id, calls FROM {counters} WHERE {self._sql.in_list('id', len(keys))}"
            f" ORDER BY id{self._sql.for_update}",
            sorted(keys),
        )
        return {row[0]: row[1] for row in found}

    async def load_usages(self, periods: Collection[ClientPeriod]) -> Mapping[ClientPeriod, Usage]:
        """What clients used in those periods, if anything."""
        micros = self._sql.micros
        amounts = ", ".join(map(micros, ("quota", "spent", "reserved", "waived")))
        found = await self._rows(
            f"SELECT client_id, period, {amounts}, told, first_over_at, last_over_at, blocked_at"
            f" FROM astquota WHERE {self._sql.in_rows(('client_id', 'period'), len(periods))}",
            (value for period in periods for value in period),
        )
        return {(row[0], row[1]): rows.usage(row[2:]) for row in found}

    async def heard_until(self, nodes: Collection[str]) -> Mapping[str, int]:
        """Up to when all that happened on those nodes is on record; nothing for others."""
        found = await self._rows(
            f"SELECT name, heard_until FROM astnode WHERE {self._sql.in_list('name', len(nodes))}",
            sorted(nodes),
        )
        return {row[0]: instant_ms(row[1]) for row in found}

    async def recorded(self, call_ids: Collection[str]) -> frozenset[str]:
        """Those of the ids that have a CDR."""
        found = await self._rows(
            f"SELECT id FROM astcdr WHERE {self._sql.in_list('id', len(call_ids))}",
            call_ids,
        )
        return frozenset(row[0] for row in found)

    async def write(self, changes: Changes) -> None:
        """Write everything: first what the later rows refer to."""
        allowed = [call for call in changes.calls if call.decision.allowed]
        await self._insert(
            "astcdr", rows.CDR_BEGIN, [rows.cdr_row(self._sql, call) for call in changes.calls]
        )
        await self._insert(
            "astcreditres", rows.RESERVATION, [rows.reservation_row(self._sql, c) for c in allowed]
        )
        await self._reroutes(changes.rerouted)
        await self._answers(changes.answered)
        await self._endings(changes.settlements)
        await self._insert(
            "astledger",
            rows.LEDGER,
            [rows.ledger_row(self._sql, entry) for entry in changes.ledger],
        )
        clients = [rows.client_row(self._sql, books) for books in changes.clients.values()]
        await self._update("astclient", "id", rows.CLIENT, clients)
        await self._count({level: calls for level, calls in changes.uses.items() if calls})
        usages = [
            rows.usage_row(self._sql, *item)
            for item in sorted(changes.usages.items(), key=itemgetter(0))
        ]
        await self._put("astquota", rows.USAGE, ("client_id", "period"), usages)
        heard = [(node, instant_text(at)) for node, at in sorted(changes.heard.items())]
        await self._put("astnode", ("name", "heard_until"), ("name",), heard)
        alerts = [row for alert in changes.alerts for row in rows.outbox_rows(alert)]
        if alerts:
            # What is told once is never told twice, whatever is asked for.
            statement = self._sql.insert_new("astoutbox", rows.OUTBOX, "reference", len(alerts))
            await self._run(statement, (value for row in alerts for value in row))

    async def _count(self, uses: Uses) -> None:
        """Change counters by so many calls, in the order of their keys."""
        if uses:
            ordered = sorted(uses, key=lambda level: level.key)
            statement = self._sql.add_many("astcapacity", rows.CAPACITY, "id", "calls", len(uses))
            values = (rows.capacity_row(level, uses[level]) for level in ordered)
            await self._run(statement, (value for row in values for value in row))

    async def _reroutes(self, rerouted: Sequence[Rerouted]) -> None:
        # A call may go through several routes in one batch: its last one is what is written.
        calls = list({event.call.call_id: event.call for event in rerouted}.values())
        changed = [rows.reroute_row(self._sql, call) for call in calls]
        await self._update("astcdr", "id", rows.CDR_REROUTE, changed)
        held = [rows.reservation_reroute_row(call) for call in calls]
        await self._update("astcreditres", "call_id", rows.RESERVATION_REROUTE, held)

    async def _answers(self, answered: Sequence[Answered]) -> None:
        # A call may be answered and settled in one batch: its last state is what is written.
        changed = [rows.answer_row(event) for event in answered]
        await self._update("astcdr", "id", rows.CDR_ANSWER, changed)
        legs = [(row[0], row[2]) for row in changed]
        await self._update("astcreditres", "call_id", ("leg_uniqueid",), legs)

    async def _endings(self, settlements: Sequence[Settlement]) -> None:
        await self._update(
            "astcdr", "id", rows.CDR_END, [rows.ending_row(self._sql, s) for s in settlements]
        )
        if settlements:
            ids = [settlement.call.call_id for settlement in settlements]
            await self._run(self._sql.delete_many("astcreditres", "call_id", len(ids)), ids)

    async def _insert(
        self, table: str, columns: Sequence[str], values: Sequence[Sequence[Value]]
    ) -> None:
        if values:
            statement = self._sql.insert_many(table, columns, len(values))
            await self._run(statement, (value for row in values for value in row))

    async def _put(
        self,
        table: str,
        columns: Sequence[str],
        key: Sequence[str],
        values: Sequence[Sequence[Value]],
    ) -> None:
        if values:
            statement = self._sql.put_many(table, columns, key, len(values))
            await self._run(statement, (value for row in values for value in row))

    async def _update(
        self, table: str, key: str, columns: Sequence[str], values: Sequence[Sequence[Value]]
    ) -> None:
        if values:
            statement = self._sql.update_many(table, key, columns, len(values))
            await self._run(statement, (value for row in values for value in row))

    async def _run(self, statement: str, values: Iterable[Value]) -> None:
        await self._connection.exec_driver_sql(statement, tuple(values))
