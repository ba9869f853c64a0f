"""The checks of `astcredit audit`, in SQL of their own.

They share nothing with the code that books (not even its tables of columns), so that a fault there
is not repeated here. Each is one statement over whole tables, joined by their indexes; all run in
one read transaction, and so see one state in which every booking is whole.

A check gives, for each row that is not as it must be, four columns: the object, as text in parts,
then what is expected and what is found. In SQLite amounts are integers, in MariaDB decimals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.money import amount_text
from astcredit.service.audit import MOST_FINDINGS, AuditResult, Finding
from astcredit.storage.database import Database


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its name, its statement, and whether it compares amounts of money."""

    name: str
    sql: str
    amounts: bool = False


CLIENTS: Final = (
    # Statement 1 of the contract.
    Check(
        "balance is the sum of the ledger",
        """
        SELECT 'client', c.name, COALESCE(l.total, 0), c.balance
        FROM astclient c
        LEFT JOIN (SELECT client_id, SUM(amount) AS total FROM astledger GROUP BY client_id) l
          ON l.client_id = c.id
        WHERE c.balance <> COALESCE(l.total, 0)
        """,
        amounts=True,
    ),
    Check(
        "balance is the last balance_after",
        """
        SELECT 'client', c.name, COALESCE(l.balance_after, 0), c.balance
        FROM astclient c
        LEFT JOIN (SELECT client_id, MAX(seq) AS seq FROM astledger GROUP BY client_id) m
          ON m.client_id = c.id
        LEFT JOIN astledger l ON l.client_id = m.client_id AND l.seq = m.seq
        WHERE c.balance <> COALESCE(l.balance_after, 0)
        """,
        amounts=True,
    ),
    Check(
        "ledger rows are counted",
        """
        SELECT 'client', c.name, c.ledger_seq, COALESCE(l.n, 0)
        FROM astclient c
        LEFT JOIN (SELECT client_id, COUNT(*) AS n FROM astledger GROUP BY client_id) l
          ON l.client_id = c.id
        WHERE c.ledger_seq <> COALESCE(l.n, 0)
        """,
    ),
    Check(
        "ledger rows are numbered 1, 2, 3 without a gap",
        """
        SELECT 'ledger row', id, due, seq
        FROM (
          SELECT id, seq, ROW_NUMBER() OVER (PARTITION BY client_id ORDER BY seq) AS due
          FROM astledger
        ) numbered
        WHERE seq <> due
        """,
    ),
    Check(
        "each balance_after is the one before it plus the amount",
        """
        SELECT 'ledger row', id, due, balance_after
        FROM (
          SELECT id, balance_after, amount + COALESCE(
            LAG(balance_after) OVER (PARTITION BY client_id ORDER BY seq), 0) AS due
          FROM astledger
        ) chain
        WHERE balance_after <> due
        """,
        amounts=True,
    ),
    # Statement 2.
    Check(
        "reserved is the sum of the reservations",
        """
        SELECT 'client', c.name, COALESCE(r.total, 0), c.reserved
        FROM astclient c
        LEFT JOIN (
          SELECT client_id, SUM(reservedamount) AS total FROM astcreditres GROUP BY client_id
        ) r ON r.client_id = c.id
        WHERE c.reserved <> COALESCE(r.total, 0)
        """,
        amounts=True,
    ),
    Check(
        "active_calls counts the reservations",
        """
        SELECT 'client', c.name, COALESCE(r.n, 0), c.active_calls
        FROM astclient c
        LEFT JOIN (
          SELECT client_id, COUNT(*) AS n FROM astcreditres GROUP BY client_id
        ) r ON r.client_id = c.id
        WHERE c.active_calls <> COALESCE(r.n, 0)
        """,
    ),
    # Statement 3.
    Check(
        "a prepaid client has no less than nothing",
        """
        SELECT 'client', c.name, 0, c.balance + COALESCE(c.credit_limit, 0) - c.reserved
        FROM astclient c
        WHERE c.kind = 'prepaid' AND c.balance + COALESCE(c.credit_limit, 0) - c.reserved < 0
        """,
        amounts=True,
    ),
    Check(
        "a prepaid client has a credit limit",
        """
        SELECT 'client', c.name, 'an amount', 'none'
        FROM astclient c
        WHERE c.kind = 'prepaid' AND c.credit_limit IS NULL
        """,
    ),
)

CALLS: Final = (
    # Statement 4.
    Check(
        "a call is charged at most once",
        """
        SELECT 'call', l.call_id, 1, COUNT(*)
        FROM astledger l
        WHERE l.kind = 'charge' AND l.call_id IS NOT NULL
        GROUP BY l.call_id HAVING COUNT(*) > 1
        """,
    ),
    Check(
        "a call costs no more than was reserved",
        """
        SELECT 'call', d.id, d.reservedamount, d.price
        FROM astcdr d
        WHERE d.price > d.reservedamount
        """,
        amounts=True,
    ),
    Check(
        "a completed call is charged its price to its client",
        """
        SELECT 'call', d.id, d.price, -l.amount
        FROM astcdr d
        LEFT JOIN astledger l ON l.call_id = d.id AND l.kind = 'charge'
          AND l.client_id = d.client_id
        WHERE d.status = 'completed' AND (l.id IS NULL OR d.price IS NULL OR -l.amount <> d.price)
        """,
        amounts=True,
    ),
    Check(
        "what is charged is a completed call",
        """
        SELECT 'ledger row', l.id, 'completed', COALESCE(d.status, 'no call')
        FROM astledger l
        LEFT JOIN astcdr d ON d.id = l.call_id
        WHERE l.kind = 'charge' AND (d.id IS NULL OR d.status <> 'completed')
        """,
    ),
    # Statements 4 and 5: a reservation exists exactly while its call is open or answered.
    Check(
        "a reservation has a call that is open or answered",
        """
        SELECT 'reservation', r.call_id, 'open or answered', COALESCE(d.status, 'no call')
        FROM astcreditres r
        LEFT JOIN astcdr d ON d.id = r.call_id
        WHERE d.id IS NULL OR d.status NOT IN ('open', 'answered')
        """,
    ),
    Check(
        "a call that is open or answered has a reservation",
        """
        SELECT 'call', d.id, 'a reservation', 'none'
        FROM astcdr d
        LEFT JOIN astcreditres r ON r.call_id = d.id
        WHERE d.status IN ('open', 'answered') AND r.call_id IS NULL
        """,
    ),
    Check(
        "a reservation has the amount of its call",
        """
        SELECT 'reservation', r.call_id, d.reservedamount, r.reservedamount
        FROM astcreditres r JOIN astcdr d ON d.id = r.call_id
        WHERE d.reservedamount <> r.reservedamount
        """,
        amounts=True,
    ),
    Check(
        "a reservation has the client of its call",
        """
        SELECT 'reservation', r.call_id, COALESCE(d.client_id, 'none'),
          CASE WHEN c.id IS NULL THEN 'no client' ELSE r.client_id END
        FROM astcreditres r
        JOIN astcdr d ON d.id = r.call_id
        LEFT JOIN astclient c ON c.id = r.client_id
        WHERE c.id IS NULL OR d.client_id IS NULL OR d.client_id <> r.client_id
        """,
    ),
)

CHECKS: Final = (*CLIENTS, *CALLS)
"""Every check, in the order of the contract's statements."""

COUNTED: Final[Mapping[str, str]] = {
    "clients": "SELECT COUNT(*) FROM astclient",
    "calls": "SELECT COUNT(*) FROM astcdr",
    "ledger_rows": "SELECT COUNT(*) FROM astledger",
}


class SqlAuditor:
    """Looks through the books of one database. Implements `astcredit.service.audit.Auditor`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def examine(self) -> AuditResult:
        """All checks on one consistent state of the books."""
        async with self._database.reading(seconds=None) as connection:
            return await self.examine_in(connection)

    async def examine_in(self, connection: AsyncConnection) -> AuditResult:
        """All checks on the books as a transaction sees them."""
        findings: list[Finding] = []
        more = False
        counts = {name: await _count(connection, sql) for name, sql in COUNTED.items()}
        for check in CHECKS:
            rows = await _rows(connection, check.sql)
            findings.extend(self._finding(check, row) for row in rows[:MOST_FINDINGS])
            more = more or len(rows) > MOST_FINDINGS
        return AuditResult(**counts, findings=findings, more=more)

    def _finding(self, check: Check, row: Sequence[Any]) -> Finding:
        kind, name, expected, found = row
        if check.amounts:
            expected, found = map(self._amount, (expected, found))
        return Finding(check.name, f"{kind} {name}", str(expected), str(found))

    def _amount(self, value: int | Decimal | None) -> str:
        if value is None:
            return "none"
        return amount_text(int(value)) if self._database.is_sqlite else f"{value:f}"


async def _count(connection: AsyncConnection, sql: str) -> int:
    result = await connection.exec_driver_sql(sql)
    return int(result.scalar_one())


async def _rows(connection: AsyncConnection, sql: str) -> Sequence[Sequence[Any]]:
    """The first rows of a check, one more than are shown."""
    result = await connection.exec_driver_sql(f"{sql} ORDER BY 2 LIMIT {MOST_FINDINGS + 1}")
    return result.all()
