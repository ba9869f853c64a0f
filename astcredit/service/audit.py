"""Proving the books: what must hold at every moment, and what was found where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MOST_FINDINGS = 100
"""Of each check: who has more has one cause, and does not find it by reading more."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A row that is not as it must be: which check found it, what it is, and what is wrong."""

    check: str
    object: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class AuditResult:
    """How the books are. `more` is true when a check found more than `MOST_FINDINGS`."""

    clients: int
    calls: int
    ledger_rows: int
    findings: Sequence[Finding]
    more: bool = False

    @property
    def in_order(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


class Auditor(Protocol):
    """Who looks through the books."""

    async def examine(self) -> AuditResult:
        """All checks on one consistent state of the books. Raises StorageError."""
