"""The administrator's use cases, put together with the database for one command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from astcredit.cli.context import App

if TYPE_CHECKING:
    from astcredit.service.account_desk import AccountDesk
    from astcredit.service.admin_ports import AdminStore
    from astcredit.service.administration import Administration
    from astcredit.service.block_desk import BlockDesk
    from astcredit.service.capacity_desk import CapacityDesk
    from astcredit.service.history_desk import HistoryDesk
    from astcredit.service.money_desk import MoneyDesk
    from astcredit.service.notification_ports import NotificationStore
    from astcredit.service.outbox_desk import OutboxDesk
    from astcredit.service.quota_desk import QuotaDesk
    from astcredit.service.rate_desk import RateDesk
    from astcredit.service.reseller_desk import ResellerDesk
    from astcredit.service.routing_desk import RoutingDesk
    from astcredit.service.template_desk import TemplateDesk
    from astcredit.storage.database import Database

T = TypeVar("T")


class Desks:
    """Whom an administrator goes to; a desk that nobody goes to is not loaded."""

    def __init__(
        self,
        store: AdminStore,
        notifications: NotificationStore,
        actor: str,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._notifications = notifications
        self._actor = actor
        self._now_ms = now_ms

    @cached_property
    def administration(self) -> Administration:
        """Clients and rate tables."""
        from astcredit.service.administration import Administration

        return Administration(self._store, self._actor, self._now_ms)

    @cached_property
    def accounts(self) -> AccountDesk:
        """Accounts."""
        from astcredit.service.account_desk import AccountDesk

        return AccountDesk(self._store, self._actor, self._now_ms)

    @cached_property
    def resellers(self) -> ResellerDesk:
        """Resellers."""
        from astcredit.service.reseller_desk import ResellerDesk

        return ResellerDesk(self._store, self._actor, self._now_ms)

    @cached_property
    def routing(self) -> RoutingDesk:
        """Routing plans and their rules."""
        from astcredit.service.routing_desk import RoutingDesk

        return RoutingDesk(self._store, self._actor, self._now_ms)

    @cached_property
    def blocks(self) -> BlockDesk:
        """Blocked prefixes."""
        from astcredit.service.block_desk import BlockDesk

        return BlockDesk(self._store, self._actor, self._now_ms)

    @cached_property
    def capacity(self) -> CapacityDesk:
        """How many calls are up at each level."""
        from astcredit.service.capacity_desk import CapacityDesk

        return CapacityDesk(self._store, self._actor, self._now_ms)

    @cached_property
    def quotas(self) -> QuotaDesk:
        """What clients may spend, and what they spent of it."""
        from astcredit.service.quota_desk import QuotaDesk

        return QuotaDesk(self._store, self._actor, self._now_ms)

    @cached_property
    def history(self) -> HistoryDesk:
        """Who changed what."""
        from astcredit.service.history_desk import HistoryDesk

        return HistoryDesk(self._store)

    @cached_property
    def money(self) -> MoneyDesk:
        """Top-ups and adjustments."""
        from astcredit.service.money_desk import MoneyDesk

        return MoneyDesk(self._store, self._actor, self._now_ms)

    @cached_property
    def rates(self) -> RateDesk:
        """The rates of rate tables."""
        from astcredit.service.rate_desk import RateDesk

        return RateDesk(self._store, self._actor, self._now_ms)

    @cached_property
    def templates(self) -> TemplateDesk:
        """Texts of notifications."""
        from astcredit.service.template_desk import TemplateDesk

        return TemplateDesk(self._notifications, self._actor, self._now_ms)

    @cached_property
    def outbox(self) -> OutboxDesk:
        """Notifications on their way."""
        from astcredit.service.outbox_desk import OutboxDesk

        return OutboxDesk(self._notifications, self._actor, self._now_ms)


def desks_of(app: App, database: Database) -> Desks:
    """The desks on an open database, in the name of who runs the command."""
    from astcredit.storage.admin_notifications import SqlNotifications
    from astcredit.storage.administration import SqlAdministration

    store, notifications = SqlAdministration(database), SqlNotifications(database)
    return Desks(store, notifications, app.actor, app.now_ms)


@asynccontextmanager
async def open_desks(app: App) -> AsyncIterator[Desks]:
    """The desks for the block."""
    async with app.database() as database:
        yield desks_of(app, database)


def at_desks(app: App, work: Callable[[Desks], Awaitable[T]]) -> T:
    """Run `work` with the desks; its result."""

    async def run() -> T:
        async with open_desks(app) as desks:
            return await work(desks)

    return app.run(run())
