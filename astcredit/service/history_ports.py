"""astaudit: who changed what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

State: TypeAlias = Mapping[str, str | int | bool | list[str] | None]
"""Names and values of an object's settings, as astaudit keeps them (JSON)."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row of astaudit: who changed what. The states hold only what changed."""

    created_at_ms: int
    actor: str
    action: str
    object_kind: str
    object_name: str
    before: State | None
    after: State | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which rows of astaudit are asked for: all that fit, the newest `limit` of them.

    `from_ms` is the first instant, `until_ms` the first one after.
    """

    kind: str | None = None
    name: str | None = None
    from_ms: int | None = None
    until_ms: int | None = None
    actor: str | None = None
    limit: int = 100


class HistoryStore(Protocol):
    """What was changed before. Every method may raise StorageError."""

    async def add_all(self, entries: Sequence[AuditEntry]) -> None:
        """Add rows, in their order."""

    async def entries(self, wanted: HistoryQuery) -> Sequence[tuple[int, AuditEntry]]:
        """The rows that fit, each with its id, the newest first."""
