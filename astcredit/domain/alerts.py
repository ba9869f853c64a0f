"""What clients and administrators are told of quotas and balances, once. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from astcredit.domain.books import ClientBooks
from astcredit.domain.instants import instant_text
from astcredit.domain.money import amount_text
from astcredit.domain.quotas import Passed


class AlertKind(StrEnum):
    """What is told of."""

    QUOTA = "quota"
    LOW_BALANCE = "low-balance"


class Audience(StrEnum):
    """Who is told."""

    CLIENT = "client"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Alert:
    """Something to be told. `reference` is the same for the same thing, and no other."""

    kind: AlertKind
    client_id: int
    reference: str
    facts: Mapping[str, str]
    at_ms: int


def quota_alerts(client_id: int, passed: Sequence[Passed], now_ms: int) -> list[Alert]:
    """What is told of thresholds that were passed."""
    return [
        Alert(
            AlertKind.QUOTA,
            client_id,
            f"quota:{client_id}:{p.quota.period}:{p.threshold}",
            {
                "kind": p.quota.kind,
                "period": p.quota.period,
                "quota": amount_text(p.quota.most),
                "spent": amount_text(p.usage.counted),
                "reserved": amount_text(p.usage.reserved),
                "remaining": amount_text(p.usage.left(p.quota)),
                "percent": str(p.usage.percent(p.quota)),
                "threshold": str(p.threshold),
                "at": instant_text(now_ms),
            },
            now_ms,
        )
        for p in passed
    ]


def low_balance(client: ClientBooks, now_ms: int) -> tuple[ClientBooks, list[Alert]]:
    """The books of a client whose balance may have become low, and what is told of it.

    It is told once; again only after the balance has been above.
    """
    if not client.is_low or client.low_balance_told:
        return client, []
    facts = {
        "balance": amount_text(client.balance),
        "threshold": amount_text(client.low_balance or 0),
        "at": instant_text(now_ms),
    }
    reference = f"low-balance:{client.id}:{client.ledger_seq}"
    told = Alert(AlertKind.LOW_BALANCE, client.id, reference, facts, now_ms)
    return replace(client, low_balance_told=True), [told]
