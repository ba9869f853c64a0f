"""Faults that are planted in good books, and what the audit must say of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from astcredit.service.audit import AuditResult
from astcredit.storage.audit import SqlAuditor
from astcredit.storage.database import Database


@dataclass(frozen=True)
class Fault:
    """What is done to good books, and the findings that it must give: check → objects."""

    what: str
    sql: Sequence[str]
    found: dict[str, set[str]]


class UndoneError(Exception):
    """Raised to roll a planted fault back."""


async def planted(database: Database, fault: Fault) -> AuditResult:
    """What the audit finds while the fault is there; afterwards it is not."""
    result: AuditResult | None = None
    with suppress(UndoneError):
        async with database.transaction(seconds=None) as connection:
            for statement in fault.sql:
                done = await connection.exec_driver_sql(statement)
                assert done.rowcount == 1, (fault.what, statement)
            result = await SqlAuditor(database).examine_in(connection)
            raise UndoneError
    assert result is not None
    return result


def as_expected(fault: Fault, result: AuditResult) -> bool:
    """Whether just the checks that must, found just the objects that they must ("*": any)."""
    found: dict[str, set[str]] = {}
    for finding in result.findings:
        found.setdefault(finding.check, set()).add(finding.object)
    return found.keys() == fault.found.keys() and all(
        objects == {"*"} or objects == found[check] for check, objects in fault.found.items()
    )
