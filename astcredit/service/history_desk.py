"""Who changed what: what astaudit holds, for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from astcredit.service.admin_ports import AdminStore, AdminTransaction
from astcredit.service.catalog_rules import require
from astcredit.service.errors import RefusedError
from astcredit.service.history_ports import AuditEntry, HistoryQuery, State
from astcredit.service.naming import shown_name
from astcredit.service.routing_rules import known_rule

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


_ID: Final = re.compile(r"[0-9]{1,18}")


class HistoryDesk:
    """Reads astaudit. Every method may raise StorageError."""

    def __init__(self, store: AdminStore) -> None:
        self._store = store

    async def entries(self, wanted: HistoryQuery) -> Sequence[tuple[int, AuditEntry]]:
        """What was changed, the newest first, each entry with its id. A route can be named by its
        id.

        Raises RefusedError, with the nearest name if there is one, where nothing is found because
        of a name that nothing has: an empty list would say that nothing was ever changed.
        """
        async with self._store.looking() as transaction:
            if wanted.kind == "route" and wanted.name and _ID.fullmatch(wanted.name):
                rule = await known_rule(transaction, int(wanted.name))
                return await transaction.history.entries(replace(wanted, name=rule.name))
            found = await transaction.history.entries(wanted)
            if not found and wanted.kind is not None and wanted.name is not None:
                await _refuse_unknown(transaction, wanted.kind, wanted.name)
            return found


async def _refuse_unknown(transaction: AdminTransaction, kind: str, name: str) -> None:
    """Raise RefusedError for a name that nothing has; for that of an object without a name of its
    own if nothing at all is recorded of it."""
    if kind in _NAMED:
        await require(transaction, _NAMED[kind], name)
    elif not await transaction.history.entries(HistoryQuery(kind, name, limit=1)):
        raise RefusedError(f"nothing is recorded of {kind} {shown_name(name)}")


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
