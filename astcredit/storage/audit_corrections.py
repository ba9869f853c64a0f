"""The checks of `astcredit audit` on what was charged or refunded for calls after their end."""

from __future__ import annotations

from typing import Final

from astcredit.storage.audit_check import Check

CORRECTIONS: Final = (
    Check(
        "a call is corrected by its refunds and adjustments",
        """
        SELECT 'call', d.id, COALESCE(-l.total, 0), COALESCE(d.corrected, 0)
        FROM astcdr d
        LEFT JOIN (
          SELECT call_id, SUM(amount) AS total FROM astledger
          WHERE kind <> 'charge' AND call_id IS NOT NULL GROUP BY call_id
        ) l ON l.call_id = d.id
        WHERE (d.corrected IS NOT NULL OR l.call_id IS NOT NULL)
          AND COALESCE(d.corrected, 0) <> COALESCE(-l.total, 0)
        """,
        amounts=True,
    ),
    Check(
        "a call and its corrections cost at least nothing",
        """
        SELECT 'call', d.id, 0, d.price + d.corrected
        FROM astcdr d
        WHERE d.corrected IS NOT NULL AND d.price + d.corrected < 0
        """,
        amounts=True,
    ),
    Check(
        "a call and its corrections cost no more than was reserved",
        """
        SELECT 'call', d.id, d.reservedamount, d.price + d.corrected
        FROM astcdr d
        WHERE d.corrected IS NOT NULL AND d.price + d.corrected > d.reservedamount
        """,
        amounts=True,
    ),
    Check(
        "what is corrected is a call that is over, of the same client",
        """
        SELECT 'ledger row', l.id, 'completed or failed',
          CASE WHEN d.client_id <> l.client_id THEN 'a call of another client'
            ELSE COALESCE(d.status, 'no call') END
        FROM astledger l
        LEFT JOIN astcdr d ON d.id = l.call_id
        WHERE l.kind <> 'charge' AND l.call_id IS NOT NULL
          AND (d.id IS NULL OR d.status NOT IN ('completed', 'failed')
            OR d.client_id IS NULL OR d.client_id <> l.client_id)
        """,
    ),
    Check(
        "a call that was corrected is estimated no longer",
        """
        SELECT 'call', d.id, 0, d.estimated
        FROM astcdr d
        WHERE d.corrected IS NOT NULL AND d.estimated <> 0
        """,
    ),
)
