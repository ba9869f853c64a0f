"""A database: its address, its engine, and transactions on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, PoolProxiedConnection, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import greenlet_spawn

from astcredit.service.errors import RefusedError
from astcredit.storage.failures import DRIVER_ERRORS, is_elsewhere, is_lost, translate
from astcredit.storage.hosts import CONNECT_SECONDS, Hosts, addresses, shown
from astcredit.storage.sessions import CoreSession, Session, WireSession
from astcredit.storage.sql import MySql, SqlDialect, Sqlite
from astcredit.storage.tls import check_options
from astcredit.storage.wire import WireConnection

URL_EXPECTED = "sqlite:///PATH or mysql://USER:PASSWORD@HOST[:PORT][,HOST[:PORT]]/NAME"

# A server that accepts and does not answer is given up after this. Longer than a dialplan waits
# (that has its own deadline), so that a slow disk is not taken for a dead server.
TRANSACTION_SECONDS = 5.0
# Less than TRANSACTION_SECONDS, so that a lock that never comes is reported as what it is.
LOCK_WAIT_SECONDS = 3

# What GROUP_CONCAT packs is cut there, by MySQL at 1,024: the portions in which the catalog is read
# have room.
PACKED_BYTES = 4_000_000

MYSQL_SESSION = (
    # One collation everywhere: texts compare byte by byte, as in SQLite.
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    f"SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS},"
    f" group_concat_max_len = {PACKED_BYTES},"
    " sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
)
# More rows than a batch of calls writes. What writes more, an import of rates, goes to the other
# servers of a Galera cluster in such parts: in one piece it would hold up all calls there.
PART_ROWS = 5_000
GALERA_SESSION = (
    # See all that was committed anywhere before this transaction began: a call may have been
    # authorized through another server a moment ago.
    "SET SESSION wsrep_sync_wait = 1",
    "SET SESSION wsrep_trx_fragment_unit = 'rows'",
    f"SET SESSION wsrep_trx_fragment_size = {PART_ROWS}",
)
CLUSTER_VARIABLES = (
    "SHOW VARIABLES WHERE variable_name IN ('wsrep_on', 'group_replication_group_name')"
)
SQLITE_SESSION = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # COMMIT means on disk
    f"PRAGMA busy_timeout = {LOCK_WAIT_SECONDS * 1000}",
    "PRAGMA foreign_keys = ON",
)


class Database:
    """An open database. `close()` it, from the event loop that used it."""

    def __init__(
        self, engine: AsyncEngine, dialect: SqlDialect, shown_url: str, hosts: Hosts | None = None
    ) -> None:
        self.engine = engine
        self.dialect = dialect
        self.shown_url = shown_url
        self._hosts = hosts
        self._kept: PoolProxiedConnection | None = None

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    async def close(self) -> None:
        """Close all connections."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            await greenlet_spawn(kept.close)
        await self.engine.dispose()

    @asynccontextmanager
    async def transaction(
        self, seconds: float | None = TRANSACTION_SECONDS
    ) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits at the end of the block and rolls back on an error.

        In SQLite it takes the write lock at once. `seconds` is the longest that it may take,
        None for administration that takes as long as it takes. Raises the StorageErrors.
        """
        committing = False
        try:
            async with asyncio.timeout(seconds) as limit, self.engine.connect() as connection:
                try:
                    await connection.exec_driver_sql(self.dialect.begin)
                    yield connection
                    committing = True
                    await connection.exec_driver_sql("COMMIT")
                except BaseException as error:
                    await _roll_back(connection, error, late=limit.expired())
                    raise
        except DRIVER_ERRORS as error:
            raise translate(error, committing=committing) from error

    @asynccontextmanager
    async def session(self, seconds: float | None = TRANSACTION_SECONDS) -> AsyncIterator[Session]:
        """A transaction like `transaction`, for the few statements of a batch of calls: in as few
        round trips as the database can do with. Raises the StorageErrors."""
        if self.is_sqlite:
            async with self.transaction(seconds) as connection:
                yield CoreSession(connection)
            return
        session: WireSession | None = None
        try:
            async with asyncio.timeout(seconds) as limit:
                pooled = await self._connection()
                connection = cast(WireConnection, pooled.driver_connection)
                session = WireSession(connection, self.dialect)
                try:
                    yield session
                    await session.commit()
                except BaseException as error:
                    await _undo(pooled, session, error, late=limit.expired())
                    raise
                else:
                    await self._give_back(pooled)
        except DRIVER_ERRORS as error:
            committing = session is not None and session.committing
            raise translate(error, committing=committing) from error

    async def _connection(self) -> PoolProxiedConnection:
        """The connection of the last session, if it leads to the server that is used now; batches
        follow one another, and the pool takes a tenth of what a small one takes."""
        kept, self._kept = self._kept, None
        if kept is not None:
            if self._hosts is not None and self._hosts.is_used(kept.info):
                return kept
            await greenlet_spawn(kept.close)
        return await self.engine.raw_connection()

    async def _give_back(self, pooled: PoolProxiedConnection) -> None:
        if self._kept is None:
            self._kept = pooled
        else:
            await greenlet_spawn(pooled.close)

    @asynccontextmanager
    async def reading(
        self, seconds: float | None = TRANSACTION_SECONDS
    ) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one consistent state and changes nothing."""
        begin = "BEGIN" if self.is_sqlite else "START TRANSACTION READ ONLY"
        level = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
        try:
            async with asyncio.timeout(seconds) as limit, self.engine.connect() as connection:
                try:
                    if not self.is_sqlite:
                        await connection.exec_driver_sql(level)
                    await connection.exec_driver_sql(begin)
                    yield connection
                    await connection.exec_driver_sql("ROLLBACK")
                except BaseException as error:
                    await _roll_back(connection, error, late=limit.expired())
                    raise
        except DRIVER_ERRORS as error:
            raise translate(error, committing=False) from error


async def _undo(
    pooled: PoolProxiedConnection, session: WireSession, error: BaseException, *, late: bool
) -> None:
    """As `_roll_back`: end the transaction and give the connection back, or give it up."""
    useless = late or is_lost(error) or is_elsewhere(error)
    broken = useless or isinstance(error, asyncio.CancelledError)
    if not broken:
        try:
            await session.roll_back()
        except DRIVER_ERRORS:
            broken = useless = True
        except asyncio.CancelledError as given_up:  # the time is over, or nobody waits
            pooled.invalidate(given_up)
            raise
    if broken:
        pooled.invalidate(error if useless else None)
    else:
        await greenlet_spawn(pooled.close)


async def _roll_back(connection: AsyncConnection, error: BaseException, *, late: bool) -> None:
    """End the transaction; a connection that is in the middle of anything is not used again, nor
    one to a server that is of no use."""
    useless = late or is_lost(error) or is_elsewhere(error)
    broken = useless or isinstance(error, asyncio.CancelledError)
    if not broken:
        try:
            await connection.exec_driver_sql("ROLLBACK")
        except DRIVER_ERRORS:
            broken = useless = True
    if broken and not connection.invalidated:
        await asyncio.shield(connection.invalidate(error if useless else None))


def open_database(url: str) -> Database:
    """Prepare a database; nothing is connected yet.

    Raises RefusedError for an address of another form; the message holds no password.
    """
    first, *others = [_driver_url(address) for address in addresses(url)]
    sqlite = first.get_backend_name() == "sqlite"
    if sqlite:
        _require_place(first)
    engine = create_async_engine(
        first,
        isolation_level="AUTOCOMMIT",  # transactions are begun and ended in so many words
        pool_reset_on_return=None,
        pool_timeout=CONNECT_SECONDS,
    )
    session = SQLITE_SESSION if sqlite else MYSQL_SESSION
    event.listen(engine.sync_engine, "connect", lambda raw, _: _run(raw, session))
    if sqlite:
        return Database(engine, Sqlite(), shown(url))
    dialect = MySql()
    event.listen(
        engine.sync_engine,
        "connect",
        lambda raw, _: dialect.meet(raw.driver_connection.get_server_info()),
    )
    hosts = Hosts((first, *others), _join_cluster)
    hosts.watch(engine.sync_engine)
    return Database(engine, dialect, shown(url), hosts)


def _driver_url(url: str) -> URL:
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise RefusedError(
            f"the database's address cannot be read: expected {URL_EXPECTED}"
        ) from None
    drivers = {"sqlite": "sqlite+aiosqlite", "mysql": "mysql+aiomysql", "mariadb": "mysql+aiomysql"}
    if address.drivername not in drivers or not address.database:
        shown = address.render_as_string(hide_password=True)
        raise RefusedError(f"database {shown!r}: expected {URL_EXPECTED}")
    if address.drivername != "sqlite":
        check_options(address)
    return address.set(drivername=drivers[address.drivername])


def _require_place(address: URL) -> None:
    """Refuse what SQLite could never open, before its driver's thread dies of it."""
    path = Path(address.database or "").absolute()
    if not path.parent.is_dir():
        raise RefusedError(f"database {address.database!r}: there is no folder {path.parent}")
    if path.is_dir():
        raise RefusedError(f"database {address.database!r}: this is a folder, expected a file")


def _join_cluster(connection: Any) -> None:
    """What a session needs in a cluster. Raises the driver's error for a server that is cut
    off from the others: it lets everybody in and refuses whatever reads or writes."""
    _run(connection, ["START TRANSACTION", "ROLLBACK"])
    found = _run(connection, [CLUSTER_VARIABLES])
    galera = ("wsrep_on", "ON") in found
    grouped = any(name == "group_replication_group_name" and value for name, value in found)
    if galera:
        _run(connection, GALERA_SESSION)
    connection.driver_connection.together = not (galera or grouped)


def _run(connection: Any, statements: Iterable[str]) -> Sequence[tuple[Any, ...]]:
    """Run statements on a driver's connection; the rows of the last one."""
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
    cursor.close()
    return rows
