"""Changing the catalog: what all changes have in common.

Every change is one transaction that raises the catalog's version first (that is also the lock
which lets one change happen at a time), checks, writes, and adds a row to astaudit. Objects are
never deleted: what has history is disabled.

Every method of a desk may raise StorageError; those that change something raise RefusedError, with
a line for the user, when a rule does not allow it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from astcredit.service.admin_ports import AdminStore, AdminTransaction
from astcredit.service.history_ports import AuditEntry, State


class Recorded(Protocol):
    """An object of the catalog, as astaudit keeps it."""

    @property
    def name(self) -> str: ...

    def state(self) -> State:
        """What astaudit keeps of it."""


class CatalogDesk:
    """The administrator's use cases on a part of the catalog, on behalf of `actor` (user@host)."""

    def __init__(self, store: AdminStore, actor: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._actor = actor
        self._now_ms = now_ms

    async def record(
        self,
        transaction: AdminTransaction,
        action: str,
        kind: str,
        old: Recorded | None,
        new: Recorded,
    ) -> None:
        """Add the row of astaudit for a change, in its transaction."""
        before, after = changes(old.state() if old else None, new.state())
        entry = AuditEntry(self._now_ms(), self._actor, action, kind, new.name, before, after)
        await transaction.record(entry)


def verb(enabled: bool) -> str:
    """What astaudit calls a switch."""
    return "enable" if enabled else "disable"


def changes(before: State | None, after: State) -> tuple[State | None, State]:
    """What differs between two states; of a new object everything."""
    if before is None:
        return None, after
    names = [name for name in after if before[name] != after[name]]
    return {name: before[name] for name in names}, {name: after[name] for name in names}
