"""The checks of `astcredit audit`, in SQL of their own.

They share nothing with the code that books (not even its tables of columns), so that a fault there
is not repeated here. Each is one statement over whole tables, joined by their indexes; all run in
one read transaction, and so see one state in which every booking is whole.

What a check gives stands in audit_check.py. In SQLite amounts are integers, in MariaDB decimals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.money import amount_text
from astcredit.service.audit import MOST_FINDINGS, AuditResult, Finding
from astcredit.storage.audit_check import Check
from astcredit.storage.audit_corrections import CORRECTIONS
from astcredit.storage.audit_quotas import QUOTAS, unknown_zones
from astcredit.storage.database import Database

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

CAPACITY: Final = (
    # Every call that is up is counted at each level that it passes, and nothing else is.
    Check(
        "a counter is the number of reservations at its level",
        """
        SELECT 'counter', id, SUM(up), SUM(calls)
        FROM (
          SELECT id, 0 AS up, calls FROM astcapacity
          UNION ALL
          SELECT REPLACE('reseller:?:orig', '?', reseller_id), 1, 0
          FROM astcreditres WHERE reseller_id IS NOT NULL
          UNION ALL
          SELECT REPLACE('account:?:orig', '?', account_id), 1, 0
          FROM astcreditres WHERE account_id IS NOT NULL
          UNION ALL
          SELECT REPLACE('route:?:term', '?', route_id), 1, 0
          FROM astcreditres WHERE route_id IS NOT NULL
          UNION ALL
          SELECT REPLACE('account:?:term', '?', term_account_id), 1, 0
          FROM astcreditres WHERE term_account_id IS NOT NULL
          UNION ALL
          SELECT REPLACE('client:?:term', '?', term_client_id), 1, 0
          FROM astcreditres WHERE term_client_id IS NOT NULL
          UNION ALL
          SELECT REPLACE('reseller:?:term', '?', term_reseller_id), 1, 0
          FROM astcreditres WHERE term_reseller_id IS NOT NULL
        ) levels
        GROUP BY id HAVING SUM(up) <> SUM(calls)
        """,
    ),
    Check(
        "a counter has the name of what it counts",
        """
        SELECT 'counter', id,
          REPLACE(REPLACE(REPLACE('S:O:D', 'O', object_id), 'D', direction), 'S', scope), id
        FROM astcapacity
        WHERE id <>
          REPLACE(REPLACE(REPLACE('S:O:D', 'O', object_id), 'D', direction), 'S', scope)
        """,
    ),
)


def _same_place(place: str, column: str) -> Check:
    """A call is counted where its CDR says that it is."""
    return Check(
        f"a reservation has the {place} of its call",
        f"""
        SELECT 'reservation', r.call_id, COALESCE(d.{column}, 'none'), COALESCE(r.{column}, 'none')
        FROM astcreditres r JOIN astcdr d ON d.id = r.call_id
        WHERE COALESCE(d.{column}, 0) <> COALESCE(r.{column}, 0)
        """,
    )


PLACES: Final = (
    _same_place("account", "account_id"),
    _same_place("reseller", "reseller_id"),
    _same_place("route", "route_id"),
    _same_place("terminator", "term_account_id"),
    Check(
        "a reservation has the client of its terminator",
        """
        SELECT 'reservation', r.call_id, COALESCE(a.client_id, 'none'),
          COALESCE(r.term_client_id, 'none')
        FROM astcreditres r
        LEFT JOIN astaccount a ON a.id = r.term_account_id
        WHERE COALESCE(a.client_id, 0) <> COALESCE(r.term_client_id, 0)
        """,
    ),
    Check(
        "a call has the terminator of its route",
        """
        SELECT 'call', d.id, COALESCE(t.account_id, 'none'), COALESCE(d.term_account_id, 'none')
        FROM astcdr d
        LEFT JOIN astroute t ON t.id = d.route_id
        WHERE COALESCE(t.account_id, 0) <> COALESCE(d.term_account_id, 0)
        """,
    ),
    Check(
        "a call has a terminator and its rate, or neither",
        """
        SELECT 'call', d.id, CASE WHEN d.term_account_id IS NULL THEN 'neither' ELSE 'both' END,
          CASE WHEN d.cost_rate IS NULL THEN 'no rate' ELSE 'a rate' END
        FROM astcdr d
        WHERE (d.term_account_id IS NULL) <> (d.cost_rate IS NULL)
        """,
    ),
    Check(
        "a call has ourcost once it is completed and has a terminator's rate",
        """
        SELECT 'call', d.id,
          CASE WHEN d.ourcost IS NULL THEN 'an amount' ELSE 'none' END,
          CASE WHEN d.ourcost IS NULL THEN 'none' ELSE 'an amount' END
        FROM astcdr d
        WHERE (d.status = 'completed' AND d.cost_rate IS NOT NULL) <> (d.ourcost IS NOT NULL)
        """,
    ),
)

CHECKS: Final = (*CLIENTS, *CALLS, *CORRECTIONS, *CAPACITY, *PLACES, *QUOTAS)
"""Every check: first those of the contract's statements, in their order."""

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
        zones = await unknown_zones(connection)
        findings.extend(zones[:MOST_FINDINGS])
        more = more or len(zones) > MOST_FINDINGS
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
