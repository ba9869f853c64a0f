"""Who changed what: what astaudit holds, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from astcredit.service.admin_ports import AdminStore
from astcredit.service.catalog_rules import require
from astcredit.service.history_ports import AuditEntry, HistoryQuery, State

KINDS: Final = (
    "client",
    "account",
    "reseller",
    "routing-plan",
    "route",
    "block",
    "rate-table",
    "capacity",
    "call",
    "template",
    "notification",
)
"""What changes are recorded of."""

_NAMED: Final = {
    "client": "client",
    "account": "account",
    "reseller": "reseller",
    "routing-plan": "routing plan",
    "rate-table": "rate table",
}
"""Kinds whose objects have names of their own, with what these are looked up by."""


class HistoryDesk:
    """Reads astaudit. Every method may raise StorageError."""

    def __init__(self, store: AdminStore) -> None:
        self._store = store

    async def entries(self, wanted: HistoryQuery) -> Sequence[tuple[int, AuditEntry]]:
        """What was changed, the newest first, each entry with its id.

        Raises RefusedError with the nearest name where nothing is found because of a name that
        nothing has: an empty list would say that nothing was ever changed.
        """
        async with self._store.looking() as transaction:
            found = await transaction.history.entries(wanted)
            if not found and wanted.name is not None and wanted.kind in _NAMED:
                await require(transaction, _NAMED[wanted.kind], wanted.name)
            return found


def changed_text(entry: AuditEntry) -> str:
    """What an entry changed, in a line: "field: old -> new; …"; of a new object what it has."""
    before, after = entry.before or {}, entry.after or {}
    parts = []
    for name in (*before, *(name for name in after if name not in before)):
        now = _shown(after, name)
        if name in before:
            parts.append(f"{name}: {_shown(before, name)} -> {now}")
        elif now != NOTHING:
            parts.append(f"{name}: {now}")
    return "; ".join(parts)


NOTHING: Final = "none"


def _shown(state: State, name: str) -> str:
    value = state.get(name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ";".join(value) or NOTHING
    return NOTHING if value in (None, "") else str(value)
