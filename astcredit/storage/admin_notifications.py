"""People's transactions on notifications: templates, and the outbox as they see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Select, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.service.notification_ports import MailStatus, OutboxQuery, OutboxRow
from astcredit.storage.admin_templates import SqlTemplates
from astcredit.storage.administration import SqlAdminTransaction
from astcredit.storage.database import Database
from astcredit.storage.sql import SqlDialect
from astcredit.storage.tables import astcatalog, astclient, astoutbox


class SqlNotifications:
    """Notifications of one database. Implements `service.notification_ports.NotificationStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[SqlNotificationTransaction]:
        """A transaction that changes something, one at a time.

        The lock is the catalog's, so that no reseller is changed meanwhile; its version stays,
        because no call depends on a template.
        """
        async with self._database.transaction(seconds=None) as connection:
            lock = select(astcatalog.c.id).where(astcatalog.c.id == 1).with_for_update()
            await connection.execute(lock)
            yield SqlNotificationTransaction(connection, self._database.dialect)

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[SqlNotificationTransaction]:
        """A transaction that only reads."""
        async with self._database.reading(seconds=None) as connection:
            yield SqlNotificationTransaction(connection, self._database.dialect)


class SqlNotificationTransaction(SqlAdminTransaction):
    """One transaction. Implements `service.notification_ports.NotificationTransaction`."""

    def __init__(self, connection: AsyncConnection, dialect: SqlDialect) -> None:
        super().__init__(connection, dialect)
        self.templates = SqlTemplates(connection)
        self.outbox = SqlOutboxRows(connection)


class SqlOutboxRows:
    """The outbox, in one transaction. Implements `service.notification_ports.OutboxStore`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def rows(self, wanted: OutboxQuery) -> Sequence[OutboxRow]:
        """The rows that fit, the newest first."""
        statement = _ROWS.order_by(astoutbox.c.id.desc()).limit(wanted.limit)
        if wanted.status is not None:
            statement = statement.where(astoutbox.c.status == wanted.status)
        if wanted.client is not None:
            statement = statement.where(astclient.c.name == wanted.client)
        return [_row(row) for row in await self._connection.execute(statement)]

    async def locked(self, id: int) -> OutboxRow | None:
        """A row, locked against its senders."""
        lock = select(astoutbox.c.id).where(astoutbox.c.id == id).with_for_update()
        await self._connection.execute(lock)
        row = (await self._connection.execute(_ROWS.where(astoutbox.c.id == id))).first()
        return None if row is None else _row(row)

    async def put_back(self, id: int, now_ms: int) -> None:
        """Let a row wait, due now and not tried yet."""
        values = {
            "status": MailStatus.WAITING,
            "attempts": 0,
            "next_attempt": now_ms,
            "sender": "",
            "error": "",
            "handed_over_at": None,
        }
        await self._connection.execute(update(astoutbox).where(astoutbox.c.id == id).values(values))


_ROWS: Select[Any] = select(
    astoutbox.c.id,
    astoutbox.c.reference,
    astoutbox.c.kind,
    astoutbox.c.audience,
    astclient.c.name,
    astoutbox.c.status,
    astoutbox.c.attempts,
    astoutbox.c.next_attempt,
    astoutbox.c.sender,
    astoutbox.c.recipient,
    astoutbox.c.error,
    astoutbox.c.date_created,
    astoutbox.c.sent_at,
).join_from(astoutbox, astclient, astclient.c.id == astoutbox.c.client_id)


def _row(row: Sequence[Any]) -> OutboxRow:
    id, reference, kind, audience, client, status, *rest = row
    return OutboxRow(id, reference, kind, audience, client, MailStatus(status), *rest)
