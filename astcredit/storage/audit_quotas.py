"""The checks of `astcredit audit` on quotas: what is counted is what the calls cost and hold."""

from __future__ import annotations

from typing import Final

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
