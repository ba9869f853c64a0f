"""Quotas: what a client may spend in a month and in a day, counted while a call is being set up.

A call belongs to the month and the day in which it began, in the client's time zone. Counted are
the price of the calls that have ended and the reservations of those that are up, so that no number
of parallel calls can go past a quota. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from astcredit.domain.money import Micros, short_text
from astcredit.domain.periods import day_of, month_of
from astcredit.domain.records import record

DEFAULT_THRESHOLDS = (80, 100)
"""Percent of a quota at which is told."""


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota in force: its period's key and the most that may be spent in it."""

    period: str
    most: Micros

    @property
    def kind(self) -> str:
        """monthly or daily."""
        return "monthly" if len(self.period) == len("2026-11") else "daily"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a client used in one period, as the row of astquota that its client's lock guards.

    `waived` is what calls cost that were booked before the last reset (`reset_ms`) and counts no
    longer. `told` is the highest threshold of which was told. `quota` is the one that the row was
    last written with. `blocked_ms`: since when calls that have ended leave nothing, whatever is
    reserved; None: they leave something.
    """

    quota: Micros | None = None
    spent: Micros = 0
    reserved: Micros = 0
    waived: Micros = 0
    told: int = 0
    first_over_ms: int | None = None
    last_over_ms: int | None = None
    blocked_ms: int | None = None
    reset_ms: int | None = None

    @property
    def counted(self) -> Micros:
        """What of a quota is used by calls that have ended."""
        return self.spent - self.waived

    def reserve(self, amount: Micros, quota: Quota | None) -> Usage:
        """With one more reservation, under the quota in force: what could be reserved was left."""
        most = quota.most if quota else None
        blocked_ms = None if amount else self.blocked_ms
        return replace(self, reserved=self.reserved + amount, quota=most, blocked_ms=blocked_ms)

    def settle(self, reserved: Micros, price: Micros) -> Usage:
        """With one reservation less, and what its call cost."""
        return replace(self, reserved=self.reserved - reserved, spent=self.spent + price)

    def under(self, quota: Quota | None, before: Quota | None, now_ms: int) -> Usage:
        """Under a quota that was set in place of the one before.

        One of which nothing is left blocks the client from now on; one that was raised or taken
        away blocks it no longer.
        """
        blocked_ms = self.blocked_ms
        if quota is not None and self.counted >= quota.most:
            blocked_ms = now_ms if blocked_ms is None else blocked_ms
        elif quota is None or before is None or quota.most > before.most:
            blocked_ms = None
        return replace(self, quota=quota.most if quota else None, blocked_ms=blocked_ms)

    def reset(self, quota: Quota, now_ms: int) -> Usage:
        """With all that was spent until now waived."""
        return replace(self, quota=quota.most, waived=self.spent, blocked_ms=None, reset_ms=now_ms)

    def correct(self, amount: Micros, booked_ms: int | None, quota: Quota | None) -> Usage:
        """With so much more or less spent on a call that was booked at that instant.

        Of a call from before a reset the correction is waived as the rest of it is. A refund that
        leaves something of the quota blocks nobody any more.
        """
        waived, spent = self.waived, self.spent + amount
        if booked_ms is not None and self.reset_ms is not None and booked_ms <= self.reset_ms:
            waived += amount
        waived = max(0, min(waived, spent))
        usage = replace(self, spent=spent, waived=waived)
        blocks = amount > 0 or (quota is not None and usage.counted >= quota.most)
        return usage if blocks else replace(usage, blocked_ms=None)

    def left(self, quota: Quota) -> Micros:
        """What the quota still allows: at least 0."""
        return max(0, quota.most - self.counted - self.reserved)

    def percent(self, quota: Quota) -> int:
        """How much of the quota ended calls have used, in whole percent, rounded down."""
        return _percent(self.counted, quota.most)

    def percent_used(self, quota: Quota) -> int:
        """The same with what is reserved for calls that are up."""
        return _percent(self.counted + self.reserved, quota.most)


ClientPeriod: TypeAlias = tuple[int, str]
"""A client's id and a period's key."""

Usages: TypeAlias = Mapping[str, Usage]
"""A client's usage by period; what is missing is nothing."""

UNUSED = Usage()


def _percent(amount: Micros, of: Micros) -> int:
    return 100 if of == 0 else amount * 100 // of


@record
class QuotaLimits:
    """What quotas a client has, and the time zone in which its periods begin.

    `counted`: it had a quota once. What it spends is counted ever after, so that a quota that was
    taken away can be set again and finds the true sum.
    """

    monthly: Micros | None = None
    daily: Micros | None = None
    timezone: str = "UTC"
    counted: bool = False

    def __bool__(self) -> bool:
        return self.monthly is not None or self.daily is not None

    @property
    def kept(self) -> bool:
        """Whether it is counted what the client spends in its periods."""
        return bool(self) or self.counted

    def periods(self, now_ms: int) -> tuple[str, ...]:
        """The month and the day in which a call that begins now is counted; none for a client
        that never had a quota.

        Both are counted if there is one quota, so that the other can be set at any time.
        """
        return self.calendar(now_ms) if self.kept else ()

    def calendar(self, now_ms: int) -> tuple[str, str]:
        """The month and the day of an instant, quotas or not."""
        return month_of(now_ms, self.timezone), day_of(now_ms, self.timezone)

    def at(self, now_ms: int) -> Sequence[Quota]:
        """The quotas in force at an instant."""
        return list(self._of(self.periods(now_ms)))

    def quota_of(self, period: str) -> Quota | None:
        """The quota for a period, by the length of its key."""
        return next(self._of((period,)), None)

    def quota_for(self, period: str, usage: Usage, now_ms: int) -> Quota | None:
        """The quota that a period's usage is held against.

        In the current month and day it is the one in force; in any other period it is the one that
        the usage was last written with, because a quota set today says nothing of yesterday.
        """
        current = day_of if len(period) == len("2026-11-21") else month_of
        if period == current(now_ms, self.timezone):
            return self.quota_of(period)
        return None if usage.quota is None else Quota(period, usage.quota)

    def _of(self, periods: Sequence[str]) -> Iterator[Quota]:
        for period in periods:
            most = self.monthly if len(period) == len("2026-11") else self.daily
            if most is not None:
                yield Quota(period, most)


def allowed(quotas: Sequence[Quota], usages: Usages) -> Micros | None:
    """What all quotas together leave for one more call; None: no quota."""
    return min((usages.get(q.period, UNUSED).left(q) for q in quotas), default=None)


def refusing(quotas: Sequence[Quota], usages: Usages, least: Micros) -> Quota | None:
    """The first quota that does not pay `least`, the price of a call's first increment."""
    return next((q for q in quotas if usages.get(q.period, UNUSED).left(q) < least), None)


def used_up(quotas: Sequence[Quota], usages: Usages, least: Micros) -> tuple[Quota, ...]:
    """The quotas of which calls that have ended leave less than `least`: they would refuse even
    with nothing reserved."""
    return tuple(q for q in quotas if q.most - usages.get(q.period, UNUSED).counted < least)


def refusal(quota: Quota, usages: Usages, currency: str) -> str:
    """Why a quota refuses a call: the quota and what is used of it."""
    usage = usages.get(quota.period, UNUSED)
    return (
        f"{quota.kind} quota {short_text(quota.most)} {currency} for {quota.period}:"
        f" {short_text(usage.counted)} spent, {short_text(usage.reserved)} reserved"
    )


@dataclass(frozen=True, slots=True)
class Passed:
    """A threshold of a quota that was passed for the first time in its period."""

    quota: Quota
    threshold: int
    usage: Usage


def watched(
    usage: Usage, quota: Quota | None, thresholds: Sequence[int], now_ms: int, *, blocked: bool
) -> tuple[Usage, list[Passed]]:
    """The usage with what is to be remembered of thresholds, and those that are to be told now.

    Looked at are calls that have ended: what is reserved for a call may be a hundred times what it
    will cost. Where these leave too little for a call that was asked for (`blocked`, see `used_up`)
    the threshold of 100 is passed, for it may never be met to the cent; but not before the one
    below it: a dear call that a full purse could not pay says nothing of the spending.
    """
    if quota is None:
        return usage, []
    percent = usage.percent(quota)
    nearly = max((threshold for threshold in thresholds if threshold < 100), default=0)
    blocked = usage.counted >= quota.most or (blocked and percent >= nearly)
    reached = max(percent, 100) if blocked else percent
    over = [threshold for threshold in sorted(thresholds) if threshold <= reached]
    first_blocked = now_ms if blocked and usage.blocked_ms is None else usage.blocked_ms
    usage = replace(usage, quota=quota.most, blocked_ms=first_blocked)
    if not over:
        return usage, []
    seen = replace(
        usage,
        told=max(usage.told, over[-1]),
        first_over_ms=now_ms if usage.first_over_ms is None else usage.first_over_ms,
        last_over_ms=now_ms,
    )
    return seen, [Passed(quota, threshold, seen) for threshold in over if threshold > usage.told]
