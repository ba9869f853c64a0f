"""astaudit in SQL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.instants import instant_text
from astcredit.service.history_ports import AuditEntry, HistoryQuery, State
from astcredit.storage.sql import SqlDialect, Value
from astcredit.storage.tables import astaudit, fit


class SqlHistory:
    """Who changed what, in one transaction. Implements `service.history_ports.HistoryStore`."""

    def __init__(self, connection: AsyncConnection, dialect: SqlDialect) -> None:
        self._connection = connection
        self._sql = dialect

    async def add_all(self, entries: Sequence[AuditEntry]) -> None:
        """Add rows to astaudit, in their order."""
        if entries:
            statement = self._sql.insert_many("astaudit", _NEW, 1)
            await self._connection.exec_driver_sql(statement, [*map(_values, entries)])

    async def entries(self, wanted: HistoryQuery) -> Sequence[tuple[int, AuditEntry]]:
        """The rows that fit, each with its id, the newest first."""
        c = astaudit.c
        statement = select(astaudit).order_by(c.id.desc()).limit(wanted.limit)
        for column, value in (
            (c.object_kind, wanted.kind),
            (c.object_name, wanted.name and fit(astaudit, "object_name", wanted.name)),
            (c.actor, wanted.actor),
        ):
            if value is not None:
                statement = statement.where(column == value)
        if wanted.from_ms is not None:
            statement = statement.where(c.date_created >= wanted.from_ms)
        if wanted.until_ms is not None:
            statement = statement.where(c.date_created < wanted.until_ms)
        return [(row.id, _entry(row)) for row in await self._connection.execute(statement)]


_NEW: Final = (
    "date_created", "actor", "action", "object_kind", "object_name", "state_before", "state_after",
    "note",
)  # fmt: skip


def _values(entry: AuditEntry) -> tuple[Value, ...]:
    """The columns `_NEW`."""
    return (
        _instant(entry.created_at_ms),
        fit(astaudit, "actor", entry.actor),
        entry.action,
        entry.object_kind,
        fit(astaudit, "object_name", entry.object_name),
        _json(entry.before),
        _json(entry.after),
        fit(astaudit, "note", entry.note),
    )


_instant: Final = lru_cache(16)(instant_text)  # an import's entries have one


def _entry(row: Any) -> AuditEntry:
    return AuditEntry(
        row.date_created,
        row.actor,
        row.action,
        row.object_kind,
        row.object_name,
        _state(row.state_before),
        _state(row.state_after),
        row.note,
    )


def _state(text: str | None) -> State | None:
    """A state as it was kept; what somebody wrote by hand is shown as it is."""
    if text is None:
        return None
    try:
        state = json.loads(text)
    except ValueError:
        return {"text": text}
    return state if isinstance(state, dict) else {"text": text}


_encoded: Final = json.JSONEncoder(ensure_ascii=False).encode


def _json(state: State | None) -> str | None:
    return None if state is None else _encoded(state)
