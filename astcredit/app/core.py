"""The core of every process that handles calls: books, catalog, batches, controller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from astcredit.app.clock import now_ms
from astcredit.app.settings import Settings
from astcredit.domain.calls import CallRequest
from astcredit.domain.decisions import CallPolicy, Decision
from astcredit.domain.numbers import Numbering
from astcredit.service.batcher import Batcher, BatchObserver
from astcredit.service.controller import AnswerPolicy, CallObserver, Controller, Legs
from astcredit.service.ledger import Ledger
from astcredit.service.ports import Links
from astcredit.storage.books import SqlBooks
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database, open_database

# What has been reported is written before the process ends, if the database takes it in this
# time; systemd kills after 90 seconds by default.
FLUSH_SECONDS = 10.0


class CoreObserver(BatchObserver, CallObserver, Protocol):
    """Told what happens in the core."""


@dataclass(frozen=True, slots=True)
class Core:
    """The parts that a process works with; see `open_core`."""

    database: Database
    books: SqlBooks
    catalog: SqlCatalog
    controller: Controller


def call_policy(settings: Settings) -> CallPolicy:
    """The rules for all calls, from the settings."""
    numbers = settings.numbers
    return CallPolicy(
        max_seconds=settings.call.max_seconds,
        setup_seconds=settings.call.setup_seconds,
        emergency_numbers=frozenset(settings.call.emergency_numbers),
        numbering=Numbering(
            numbers.country_code, numbers.trunk_prefix, numbers.international_prefixes
        ),
        quota_thresholds=settings.quota.thresholds,
        pjsip_endpoint=settings.routing.pjsip_endpoint,
    )


def answer_policy(settings: Settings) -> AnswerPolicy:
    """How calls are answered, from the settings."""
    call = settings.call
    return AnswerPolicy(call.answer_deadline_ms / 1000, call.warn_seconds, call.warn_repeat_seconds)


@asynccontextmanager
async def open_core(
    settings: Settings, links: Links, observer: CoreObserver, legs: Legs | None = None
) -> AsyncIterator[Core]:
    """Start the core, and at the end write what is waiting and close everything."""
    database = open_database(settings.database.url)
    books = SqlBooks(database)
    catalog = SqlCatalog(database, inline_rates=settings.catalog.inline_rates)
    policy = call_policy(settings)
    ledger = Ledger(
        books, catalog, policy, now_ms, links=links, denied_cdr=settings.call.denied_cdr
    )

    def on_orphan(request: CallRequest, decision: Decision) -> None:
        controller.orphaned(request, decision)

    batcher = Batcher(
        ledger.apply,
        on_orphan,
        observer,
        most_operations=settings.batch.max_operations,
        event_delay=settings.batch.event_delay_ms / 1000,
    )
    answers = answer_policy(settings)
    controller = Controller(batcher, books, catalog, policy, answers, now_ms, observer, legs)
    batcher.start()
    try:
        yield Core(database, books, catalog, controller)
    finally:
        await batcher.stop(FLUSH_SECONDS)
        await catalog.close()
        await database.close()
