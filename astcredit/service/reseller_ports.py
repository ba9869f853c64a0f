"""Resellers as people configure them, and where they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from astcredit.service.history_ports import State


@dataclass(frozen=True, slots=True)
class Reseller:
    """A reseller's settings. The capacities are for all its clients together; None: no limit."""

    name: str
    orig_capacity: int | None = None
    term_capacity: int | None = None
    enabled: bool = True
    id: int = 0

    def state(self) -> State:
        """What astaudit keeps of it."""
        return {
            "orig_capacity": self.orig_capacity,
            "term_capacity": self.term_capacity,
            "enabled": self.enabled,
        }


@dataclass(frozen=True, slots=True)
class ResellerInUse:
    """A reseller with the number of its clients, and of their calls that are up."""

    reseller: Reseller
    clients: int
    orig_calls: int
    term_calls: int


class ResellerStore(Protocol):
    """Resellers, inside a transaction. Every method may raise StorageError."""

    async def named(self, name: str) -> ResellerInUse | None: ...

    async def all(self) -> Sequence[ResellerInUse]:
        """All resellers, by name."""

    async def add(self, reseller: Reseller, now_ms: int) -> None: ...

    async def change(self, reseller: Reseller) -> None:
        """Write the settings of the reseller with that id."""
