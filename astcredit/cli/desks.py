"""The administrator's use cases, put together with the database for one command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from astcredit.cli.context import App

if TYPE_CHECKING:
    from astcredit.service.administration import Administration
    from astcredit.service.money_desk import MoneyDesk
    from astcredit.service.rate_desk import RateDesk
    from astcredit.storage.database import Database

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Desks:
    """Whom an administrator goes to."""

    administration: Administration
    money: MoneyDesk
    rates: RateDesk


def desks_of(app: App, database: Database) -> Desks:
    """The desks on an open database, in the name of who runs the command."""
    from astcredit.service.administration import Administration
    from astcredit.service.money_desk import MoneyDesk
    from astcredit.service.rate_desk import RateDesk
    from astcredit.storage.administration import SqlAdministration

    store = SqlAdministration(database)
    return Desks(
        Administration(store, app.actor, app.now_ms),
        MoneyDesk(store, app.actor, app.now_ms),
        RateDesk(store, app.actor, app.now_ms),
    )


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
