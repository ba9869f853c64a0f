"""Quotas: looking at their usage, resetting it, and what follows when they are changed.

All that is counted of a client stands under its lock, so a change of a quota is in force for the
next call, and no call is counted twice or not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from astcredit.domain.books import ClientBooks
from astcredit.domain.instants import instant_text
from astcredit.domain.money import Micros, amount_text
from astcredit.domain.periods import bounds, day_of, is_month
from astcredit.domain.quotas import UNUSED, ClientPeriod, Quota, Usage
from astcredit.service.admin_ports import AdminTransaction, Client
from astcredit.service.catalog_rules import known_client
from astcredit.service.desk import CatalogDesk, changes
from astcredit.service.errors import RefusedError
from astcredit.service.history_ports import AuditEntry, State
from astcredit.service.naming import MOST_NOTE, check_name, shown_name
from astcredit.service.persistence import persistently
from astcredit.service.ports import Changes
from astcredit.service.quota_ports import QuotaClient, QuotaInUse, QuotaQuery

KINDS = ("monthly", "daily")
"""The kinds of quotas, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Waived:
    """A quota whose usage was reset, and what no longer counts because of it."""

    quota: QuotaInUse
    amount: Micros


class QuotaDesk(CatalogDesk):
    """The administrator's use cases on quotas; they are set with the client's other settings
    (`Administration.set_client`)."""

    async def quotas(self, wanted: QuotaQuery) -> Sequence[QuotaInUse]:
        """The quotas that fit with their usage, by client, the current periods first.

        Raises RefusedError for an unknown client, and for a period that is none.
        """
        if wanted.period is not None:
            _check_period(wanted.period)
        async with self._store.looking() as transaction:
            if wanted.client is not None:
                await known_client(transaction, wanted.client)
            if wanted.period is None:
                found = await self._current(transaction, wanted)
            else:
                found = await self._of_period(transaction, wanted.period, wanted.client)
        least = wanted.least_percent
        return [each for each in found if least is None or each.is_over(least)]

    async def _current(self, transaction: AdminTransaction, wanted: QuotaQuery) -> list[QuotaInUse]:
        """The quotas in force with their usage, and what is on record of the night."""
        now_ms, with_night = self._now_ms(), wanted.least_percent is not None
        clients = await transaction.quotas.clients(wanted.client)
        nights = {c.id: _day_before(c.limits.timezone, now_ms) for c in clients if with_night}
        current = {(c.id, quota.period) for c in clients for quota in c.limits.at(now_ms)}
        usages = await transaction.quotas.usages({*current, *nights.items()})
        found = []
        for client in clients:
            for quota in client.limits.at(now_ms):
                usage = usages.get((client.id, quota.period), UNUSED)
                found.append(QuotaInUse(client, quota, usage))
            night = nights.get(client.id, "")
            past = usages.get((client.id, night), UNUSED)
            if past.quota is not None:
                found.append(QuotaInUse(client, Quota(night, past.quota), past))
        return found

    async def _of_period(
        self, transaction: AdminTransaction, period: str, client: str | None
    ) -> list[QuotaInUse]:
        """What is on record of a period, and the quotas in force if it is a current one."""
        now_ms = self._now_ms()
        found = {
            each.name: QuotaInUse(each, Quota(period, usage.quota), usage)
            for each, usage in await transaction.quotas.of_period(period, client)
            if usage.quota is not None
        }
        for each in await transaction.quotas.clients(client):
            for quota in each.limits.at(now_ms):
                if quota.period == period:
                    known = found.get(each.name)
                    found[each.name] = QuotaInUse(each, quota, known.usage if known else UNUSED)
        return [found[name] for name in sorted(found)]

    async def reset(self, name: str, note: str, kinds: Collection[str] = KINDS) -> Sequence[Waived]:
        """Let what a client has spent in its current periods count no longer, for the reason in
        `note`; what its open calls have reserved goes on counting.

        Of thresholds that were told of already nobody is told again in the period. Raises
        RefusedError for a client without such a quota.
        """
        check_name("note", note, MOST_NOTE)

        async def reset_() -> Sequence[Waived]:
            async with self._store.booking_money() as transaction:
                client = await known_client(transaction, name)
                books = (await transaction.books.lock_clients([client.id]))[client.id]
                quotas = [q for q in books.quotas.at(self._now_ms()) if q.kind in kinds]
                if not quotas:
                    wanted = " or ".join(kind for kind in KINDS if kind in kinds)
                    raise RefusedError(f"client {shown_name(name)} has no {wanted} quota")
                return await self._waive(transaction, client, books, quotas, note)

        return await persistently(reset_)

    async def _waive(
        self,
        transaction: AdminTransaction,
        client: Client,
        books: ClientBooks,
        quotas: Sequence[Quota],
        note: str,
    ) -> Sequence[Waived]:
        keys = {quota.period: (client.id, quota.period) for quota in quotas}
        found = await transaction.books.load_usages(keys.values())
        old = {quota.period: found.get(keys[quota.period], UNUSED) for quota in quotas}
        now_ms = self._now_ms()
        new = {quota.period: old[quota.period].reset(quota, now_ms) for quota in quotas}
        usages = {keys[period]: usage for period, usage in new.items()}
        await transaction.books.write(Changes(usages=usages))
        before, after = changes(_state(old), _state(new))
        await transaction.record(
            AuditEntry(now_ms, self._actor, "reset", "client", client.name, before, after, note)
        )
        who = QuotaClient(client.id, client.name, client.currency, books.quotas)
        return [
            Waived(QuotaInUse(who, quota, new[quota.period]), old[quota.period].counted)
            for quota in quotas
        ]


def _check_period(period: str) -> None:
    try:
        bounds(period, "UTC")
    except ValueError as error:
        raise RefusedError(str(error)) from None


def _day_before(timezone: str, now_ms: int) -> str:
    """The day before the current one."""
    today, _ = bounds(day_of(now_ms, timezone), timezone)
    return day_of(today - 1, timezone)


def _state(usages: Mapping[str, Usage]) -> State:
    """What astaudit keeps of usages that are reset."""
    state: dict[str, str | int | bool | list[str] | None] = {}
    for period, usage in usages.items():
        blocked = None if usage.blocked_ms is None else instant_text(usage.blocked_ms)
        state[f"{period} counted"] = amount_text(usage.counted)
        state[f"{period} waived"] = amount_text(usage.waived)
        state[f"{period} blocked"] = blocked
    return state


async def follow_quotas(
    transaction: AdminTransaction, client: Client, books: ClientBooks, now_ms: int
) -> None:
    """Do what follows from a client's new quotas, time zone and low balance.

    `books` are its books before the change, locked. Who gets its first quota is counted from now
    on, with what it spent before in the periods that count. A call keeps the periods in which it
    began, also when the time zone changes.
    """
    new = replace(
        books,
        kind=client.kind,
        monthly_quota=client.monthly_quota,
        daily_quota=client.daily_quota,
        timezone=client.timezone,
        low_balance=client.low_balance,
    )
    if new.low_balance_told and not new.is_low:
        above = replace(books, low_balance_told=False)
        await transaction.books.write(Changes(clients={client.id: above}))
    if new.quotas != books.quotas and (new.quotas or books.quota_counted):
        usages = await _usages(transaction, books, new, now_ms)
        for period in new.quotas.calendar(now_ms):
            quota, before = new.quotas.quota_of(period), books.quotas.quota_of(period)
            usages[client.id, period] = usages[client.id, period].under(quota, before, now_ms)
        await transaction.books.write(Changes(usages=usages))


async def _usages(
    transaction: AdminTransaction, old: ClientBooks, new: ClientBooks, now_ms: int
) -> dict[ClientPeriod, Usage]:
    """What the client used of the current periods, and of all that have no row and may yet count.

    Those are the ones of open calls and all after them and the current ones: in another time zone
    it may have been tomorrow already, and then calls are in a period that is still to come.
    """
    current = {(new.id, period) for period in new.quotas.calendar(now_ms)}
    keys = current | await _countable(transaction, old, {period for _, period in current})
    found = await transaction.books.load_usages(keys)
    usages = {key: usage for key, usage in found.items() if key in current}
    for key in sorted(keys - found.keys()):
        spent, reserved = await transaction.quotas.sums(*key)
        usages[key] = Usage(None, spent, reserved)
    return usages


async def _countable(
    transaction: AdminTransaction, books: ClientBooks, current: Collection[str]
) -> set[ClientPeriod]:
    """The current periods, those of the client's open calls, unless they are counted already, and
    those of its ended calls from the first of these days on."""
    periods = set(current)
    if not (books.quotas or books.quota_counted):
        periods |= set(await transaction.quotas.count_open(books.id))
    first = min(period for period in periods if not is_month(period))
    periods |= set(await transaction.quotas.periods_from(books.id, first))
    return {(books.id, period) for period in periods}
