"""The checks of `astcredit audit` on quotas: what is counted is what the calls cost and hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.periods import check_zone
from astcredit.service.audit import Finding
from astcredit.storage.audit_check import Check

# The name of a row of astquota: its period has no letter, so no client's name is changed by it.
_NAME = "REPLACE(REPLACE('P C', 'P', q.period), 'C', c.name)"

QUOTAS: Final = (
    Check(
        "what is spent in a period is the price of its calls",
        f"""
        SELECT 'quota', {_NAME}, COALESCE(d.total, 0), q.spent
        FROM astquota q
        JOIN astclient c ON c.id = q.client_id
        LEFT JOIN (
          SELECT client_id, quota_month AS period, SUM(price + COALESCE(corrected, 0)) AS total
          FROM astcdr WHERE client_id IN (SELECT client_id FROM astquota)
          GROUP BY client_id, quota_month
          UNION ALL
          SELECT client_id, quota_day, SUM(price + COALESCE(corrected, 0))
          FROM astcdr WHERE client_id IN (SELECT client_id FROM astquota)
          GROUP BY client_id, quota_day
        ) d ON d.client_id = q.client_id AND d.period = q.period
        WHERE q.spent <> COALESCE(d.total, 0)
        """,
        amounts=True,
    ),
    # Both ways: a period without a row has nothing reserved.
    Check(
        "what is reserved in a period is the sum of its reservations",
        f"""
        SELECT 'quota', {_NAME}, q.held, q.reserved
        FROM (
          SELECT client_id, period, SUM(held) AS held, SUM(reserved) AS reserved
          FROM (
            SELECT client_id, period, 0 AS held, reserved FROM astquota
            UNION ALL
            SELECT client_id, quota_month, reservedamount, 0
            FROM astcreditres WHERE quota_month IS NOT NULL
            UNION ALL
            SELECT client_id, quota_day, reservedamount, 0
            FROM astcreditres WHERE quota_day IS NOT NULL
          ) amounts
          GROUP BY client_id, period
        ) q
        JOIN astclient c ON c.id = q.client_id
        WHERE q.held <> q.reserved
        """,
        amounts=True,
    ),
    # From its first row on a client is counted without a gap. Of one that lost all its rows nobody
    # knows the first: the last period in which it spent something must have one.
    Check(
        "a period in which something was spent has a row",
        f"""
        WITH paid AS (
          SELECT client_id, quota_month AS period, SUM(price + COALESCE(corrected, 0)) AS total
          FROM astcdr WHERE client_id IN (SELECT id FROM astclient WHERE quota_counted = 1)
          GROUP BY client_id, quota_month
          UNION ALL
          SELECT client_id, quota_day, SUM(price + COALESCE(corrected, 0))
          FROM astcdr WHERE client_id IN (SELECT id FROM astclient WHERE quota_counted = 1)
          GROUP BY client_id, quota_day
        )
        SELECT 'quota', {_NAME}, q.total, NULL
        FROM (
          SELECT client_id, period, total,
            MAX(period) OVER (PARTITION BY client_id, LENGTH(period)) AS last
          FROM paid WHERE total <> 0
        ) q
        JOIN astclient c ON c.id = q.client_id
        LEFT JOIN astquota k ON k.client_id = q.client_id AND k.period = q.period
        LEFT JOIN (
          SELECT client_id, LENGTH(period) AS kind, MIN(period) AS period
          FROM astquota GROUP BY client_id, LENGTH(period)
        ) f ON f.client_id = q.client_id AND f.kind = LENGTH(q.period)
        WHERE k.period IS NULL AND q.period >= COALESCE(f.period, q.last)
        """,
        amounts=True,
    ),
    Check(
        "no more is waived than was spent",
        f"""
        SELECT 'quota', {_NAME}, q.spent, q.waived
        FROM astquota q
        JOIN astclient c ON c.id = q.client_id
        WHERE q.waived < 0 OR q.waived > q.spent
        """,
        amounts=True,
    ),
    Check(
        "a quota is not negative",
        """
        SELECT 'client', c.name, 0,
          CASE WHEN c.monthly_quota < 0 THEN c.monthly_quota ELSE c.daily_quota END
        FROM astclient c
        WHERE c.monthly_quota < 0 OR c.daily_quota < 0
        """,
        amounts=True,
    ),
    Check(
        "a client with a quota is counted",
        """
        SELECT 'client', c.name, 1, c.quota_counted
        FROM astclient c
        WHERE (c.monthly_quota IS NOT NULL OR c.daily_quota IS NOT NULL) AND c.quota_counted <> 1
        """,
    ),
    # An emergency call holds nothing and is counted nowhere.
    Check(
        "a reservation of a client that is counted has a month and a day",
        """
        SELECT 'reservation', r.call_id, 'a month and a day',
          COALESCE(r.quota_month, r.quota_day, 'none')
        FROM astcreditres r
        JOIN astclient c ON c.id = r.client_id
        WHERE c.quota_counted = 1 AND r.reservedamount <> 0
          AND (r.quota_month IS NULL OR r.quota_day IS NULL)
        """,
    ),
    Check(
        "a reservation has the month of its call",
        """
        SELECT 'reservation', r.call_id, COALESCE(d.quota_month, 'none'), r.quota_month
        FROM astcreditres r JOIN astcdr d ON d.id = r.call_id
        WHERE r.quota_month IS NOT NULL AND COALESCE(d.quota_month, '') <> r.quota_month
        """,
    ),
    Check(
        "a reservation has the day of its call",
        """
        SELECT 'reservation', r.call_id, COALESCE(d.quota_day, 'none'), r.quota_day
        FROM astcreditres r JOIN astcdr d ON d.id = r.call_id
        WHERE r.quota_day IS NOT NULL AND COALESCE(d.quota_day, '') <> r.quota_day
        """,
    ),
    Check(
        "a client's call has the month and the day in which it began",
        """
        SELECT 'call', d.id, 'a month and a day', 'none'
        FROM astcdr d
        WHERE d.client_id IS NOT NULL AND (d.quota_month IS NULL OR d.quota_day IS NULL)
        """,
    ),
)

ZONES: Final = "a client's time zone is one that there is"
"""The name of the check that no SQL can make."""


async def unknown_zones(connection: AsyncConnection) -> Sequence[Finding]:
    """The clients whose time zone nobody knows: none of their calls can be decided."""
    statement = "SELECT name, timezone FROM astclient ORDER BY name"
    found = []
    for row in await connection.exec_driver_sql(statement):
        try:
            check_zone(row.timezone)
        except ValueError:
            found.append(Finding(ZONES, f"client {row.name}", "a time zone", row.timezone))
    return found
