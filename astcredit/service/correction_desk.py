"""Books corrections of estimated calls: ledger, balance, quotas, CDR and astaudit in one go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from astcredit.domain.alerts import low_balance, quota_alerts
from astcredit.domain.books import ClientBooks
from astcredit.domain.correction import CallInDoubt, Correction, correct
from astcredit.domain.money import amount_text
from astcredit.domain.quotas import ClientPeriod, watched
from astcredit.domain.witness import Unclear, Witness
from astcredit.service.certainly import certainly
from astcredit.service.history_ports import AuditEntry
from astcredit.service.ports import Changes
from astcredit.service.reconciliation_ports import ReconciliationStore, ReconciliationTransaction

Outcome: TypeAlias = Correction | Unclear
Outcomes: TypeAlias = Mapping[str, Outcome]
"""What came of calls, by their ids; a call that is not there was estimated no longer."""


class CorrectionDesk:
    """Corrects calls on behalf of `actor`. `thresholds`: percent of a quota at which is told."""

    def __init__(
        self,
        store: ReconciliationStore,
        actor: str,
        now_ms: Callable[[], int],
        thresholds: Sequence[int],
    ) -> None:
        self._store = store
        self._actor = actor
        self._now_ms = now_ms
        self._thresholds = thresholds

    async def correct(
        self, calls: Sequence[CallInDoubt], seen: Mapping[str, Witness], *, dry_run: bool
    ) -> Outcomes:
        """Compare calls with what was seen of each, and book the differences in one transaction.

        Raises StorageError. With `dry_run` nothing is changed.
        """

        async def attempt(done: dict[str, Outcome]) -> None:
            opened = self._store.looking() if dry_run else self._store.booking()
            async with opened as transaction:
                await self._attempt(transaction, calls, seen, done, dry_run)

        return await certainly(attempt)

    async def _attempt(
        self,
        transaction: ReconciliationTransaction,
        calls: Sequence[CallInDoubt],
        seen: Mapping[str, Witness],
        done: dict[str, Outcome],
        dry_run: bool,
    ) -> None:
        clients = dict(await transaction.clients({call.client_id for call in calls}))
        now_ms, changes = self._now_ms(), Changes()
        corrections: list[Correction] = []
        # As they stand now, under the lock: another run may have been here first.
        for call in await transaction.estimated([call.call_id for call in calls]):
            client, witness = clients[call.client_id], seen[call.call_id]
            outcome = done[call.call_id] = correct(client, call, witness, self._actor, now_ms)
            if isinstance(outcome, Correction):
                corrections.append(outcome)
                clients[call.client_id] = _book(outcome, changes, now_ms)
        if not dry_run:
            await self._count(transaction, corrections, changes, now_ms)
            await transaction.books.write(changes)
            await transaction.write(corrections, now_ms)
            await transaction.record_all([self._entry(c, now_ms) for c in corrections])

    async def _count(
        self,
        transaction: ReconciliationTransaction,
        corrections: Sequence[Correction],
        changes: Changes,
        now_ms: int,
    ) -> None:
        """Count corrections against the quotas of the periods in which their calls began."""
        paid = [c for c in corrections if c.amount]
        periods = {(c.client.id, period) for c in paid for period in c.call.periods}
        usages = dict(await transaction.books.load_usages(periods)) if periods else {}
        for correction in paid:
            for period in correction.call.periods:
                key: ClientPeriod = (correction.client.id, period)
                if key not in usages:  # the client had no quota then
                    continue
                quota = correction.client.quotas.quota_for(period, usages[key], now_ms)
                booked_ms = correction.call.booked_at_ms
                usage = usages[key].correct(-correction.amount, booked_ms, quota)
                usage, passed = watched(usage, quota, self._thresholds, now_ms, blocked=False)
                usages[key] = changes.usages[key] = usage
                changes.alerts.extend(quota_alerts(correction.client.id, passed, now_ms))

    def _entry(self, correction: Correction, now_ms: int) -> AuditEntry:
        call, entry = correction.call, correction.entry
        return AuditEntry(
            now_ms,
            self._actor,
            "correct",
            "call",
            call.call_id,
            {"estimated": True, "paid": amount_text(call.paid)},
            {
                "estimated": False,
                "paid": amount_text(call.paid - correction.amount),
                "reference": entry.reference if entry else None,
            },
            correction.note,
        )


def _book(correction: Correction, changes: Changes, now_ms: int) -> ClientBooks:
    """Add what a correction changes; the client's books after it."""
    client, entry = correction.client, correction.entry
    if entry is not None:
        client, alerts = low_balance(client, now_ms)
        changes.ledger.append(entry)
        changes.clients[client.id] = client
        changes.alerts.extend(alerts)
    return client
