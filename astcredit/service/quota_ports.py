"""What clients may spend in a month and in a day, what they used of it, and where that is kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from astcredit.domain.money import Micros
from astcredit.domain.quotas import ClientPeriod, Quota, QuotaLimits, Usage


@dataclass(frozen=True, slots=True)
class QuotaClient:
    """A client with a quota, in force or past."""

    id: int
    name: str
    currency: str
    limits: QuotaLimits


@dataclass(frozen=True, slots=True)
class QuotaInUse:
    """A quota of a client in one period, and what is used of it."""

    client: QuotaClient
    quota: Quota
    usage: Usage

    @property
    def percent(self) -> int:
        """How much of the quota is used, reservations included, in whole percent rounded down."""
        return self.usage.percent_used(self.quota)

    def is_over(self, percent: int) -> bool:
        """Whether so much is used, or calls that have ended leave too little for another one."""
        return self.percent >= percent or self.usage.blocked_ms is not None


@dataclass(frozen=True, slots=True)
class QuotaQuery:
    """Which quotas are asked for: all that fit.

    `period` is a month's or a day's key; without it the current periods are meant. With
    `least_percent` and no period, the day before the current one is meant too: who looks in the
    morning wants to see the night.
    """

    client: str | None = None
    least_percent: int | None = None
    period: str | None = None


class QuotaStore(Protocol):
    """Quotas and their usage, inside a transaction. Every method may raise StorageError."""

    async def clients(self, name: str | None = None) -> Sequence[QuotaClient]:
        """The clients that have a quota, or one of them, by name."""

    async def usages(self, periods: Collection[ClientPeriod]) -> Mapping[ClientPeriod, Usage]:
        """What clients used in those periods, if anything; without a lock, for a look."""

    async def of_period(
        self, period: str, client: str | None = None
    ) -> Sequence[tuple[QuotaClient, Usage]]:
        """Who used something in a period, by name."""

    async def count_open(self, client_id: int) -> Collection[str]:
        """Have the client's open calls counted in the periods in which they began; all periods
        of its open calls. To be asked once the client is locked."""

    async def periods_from(self, client_id: int, day: str) -> Collection[str]:
        """The days from this one on, and the months that these are in, in which calls of the client
        began that have ended. To be asked once the client is locked."""

    async def sums(self, client_id: int, period: str) -> tuple[Micros, Micros]:
        """Price of the client's calls of a period that have ended, and what its open calls that
        are counted in it have reserved. To be asked once the client is locked."""
