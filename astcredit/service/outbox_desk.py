"""Looking at notifications on their way, and sending again what did not arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from astcredit.domain.instants import instant_text
from astcredit.service.catalog_rules import require
from astcredit.service.errors import RefusedError
from astcredit.service.history_ports import AuditEntry, State
from astcredit.service.notification_ports import (
    MailStatus,
    NotificationStore,
    OutboxQuery,
    OutboxRow,
)
from astcredit.service.persistence import persistently


class OutboxDesk:
    """A person's use cases on the outbox. Every method may raise StorageError."""

    def __init__(self, store: NotificationStore, actor: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._actor = actor
        self._now_ms = now_ms

    async def rows(self, wanted: OutboxQuery) -> Sequence[OutboxRow]:
        """The notifications that fit, the newest first."""
        async with self._store.looking() as transaction:
            if wanted.client is not None:
                await require(transaction, "client", wanted.client)
            return await transaction.outbox.rows(wanted)

    async def retry(self, id: int) -> OutboxRow:
        """Let a notification that failed, is unsure or waits be sent now; the row as it was.

        Raises RefusedError for one that was sent or is just being sent.
        """

        async def retry_() -> OutboxRow:
            async with self._store.changing() as transaction:
                row = await transaction.outbox.locked(id)
                if row is None:
                    raise RefusedError(f"there is no notification {id}")
                _refuse_second_mail(row)
                await transaction.outbox.put_back(id, self._now_ms())
                await transaction.record(self._entry(row))
            return row

        return await persistently(retry_)

    def _entry(self, row: OutboxRow) -> AuditEntry:
        before: State = {"status": row.status, "attempts": row.attempts, "error": row.error}
        after: State = {"status": MailStatus.WAITING, "attempts": 0, "error": ""}
        now_ms, what = self._now_ms(), "notification"
        return AuditEntry(now_ms, self._actor, "retry", what, row.reference, before, after)


def _refuse_second_mail(row: OutboxRow) -> None:
    if row.status is MailStatus.SENT:
        at = "" if row.sent_at_ms is None else f" {instant_text(row.sent_at_ms)}"
        raise RefusedError(f"notification {row.id} was sent{at} to {row.recipient}")
    if row.status is MailStatus.SENDING:
        raise RefusedError(f"notification {row.id} is just being sent by {row.sender}")
