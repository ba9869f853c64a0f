"""What rows hold that are as they were taken for: the conditions of what is written to them, and
what stops a transaction that finds other rows (MariaDB)."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Final

from astcredit.domain.books import ClientBooks, OpenCall
from astcredit.domain.states import CallState
from astcredit.storage.sql import SqlDialect, Was
from astcredit.storage.tables import astcdr, fit

OUTDATED_CODE: Final = 31_000
"""The error of such a transaction: a number that is free for a program's own errors
(https://mariadb.com/kb/en/signal/)."""
_OUTDATED = f"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {OUTDATED_CODE}, MESSAGE_TEXT = 'outdated'"


def required(rows: int) -> str:
    """A statement behind one that changes rows: if those were not so many, it stops all of it."""
    return f"IF ROW_COUNT() <> {int(rows)} THEN {_OUTDATED}; END IF"


def required_version(version: int) -> str:
    """Statements that do the same unless this is the catalog's version."""
    # MAX makes a row, and so a new value, where there is none. A SELECT by itself waits for nobody;
    # within IF it would lock the row, and so wait for whoever imports, until all is imported.
    return (
        "SELECT MAX(version) INTO @version FROM astcatalog WHERE id = 1;"
        f" IF NOT @version <=> {int(version)} THEN {_OUTDATED}; END IF"
    )


def client_was(sql: SqlDialect, books: Iterable[ClientBooks]) -> Was:
    """What the rows of clients hold that have these books: every column that `client_books` reads,
    exactly."""
    amounts = (
        "balance", "credit_limit", "reserved", "monthly_quota", "daily_quota", "low_balance",
    )  # fmt: skip
    others = (
        "kind", "active_calls", "ledger_seq", "timezone", "low_balance_told", "quota_counted",
    )  # fmt: skip
    held = attrgetter(*amounts, *others)
    conditions = [*map(sql.holds_amount, amounts), *map(sql.holds, others)]
    return Was(conditions, [held(each) for each in books])


def unanswered(sql: SqlDialect, calls: int) -> Was:
    """What the CDR of a call holds that is open and not answered; of so many."""
    return Was([*map(sql.holds, ("status", "leg_uniqueid"))], [(CallState.OPEN, None)] * calls)


def call_was(sql: SqlDialect, calls: Iterable[OpenCall]) -> Was:
    """What the CDRs of calls hold that are in this state: whatever happens to an open call changes
    one of these columns."""
    conditions = [*map(sql.holds, ("status", "leg_uniqueid", "route_id"))]
    held = [(call.state, _leg(call), call.occupancy.route_id) for call in calls]
    return Was(conditions, held)


def _leg(call: OpenCall) -> str | None:
    if call.state is CallState.OPEN:
        return None
    return fit(astcdr, "leg_uniqueid", call.leg_uniqueid or "")
