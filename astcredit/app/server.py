"""The server process: FastAGI, AMI listeners, housekeeping, metrics. Owns their start and stop."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvloop

from astcredit.app.clock import now_ms
from astcredit.app.core import Core, open_core
from astcredit.app.links import AmiLinks, addresses_of, parse_nodes
from astcredit.app.mailer import post_office
from astcredit.app.metrics import Metrics, MetricsServer
from astcredit.app.observers import MetricsObserver
from astcredit.app.settings import Settings
from astcredit.asterisk.fastagi import FastAgiServer, Limits
from astcredit.asterisk.scripts import Scripts
from astcredit.service.errors import RefusedError, StorageError
from astcredit.service.ids import CallIds
from astcredit.service.recovery import Recovery
from astcredit.storage.schema import missing

log = logging.getLogger(__name__)

# How often reservations past their last second are looked for. They hold money that nobody
# uses, at most so much longer.
SWEEP_SECONDS = 30.0
# The event loop notes that it runs this often; /healthz calls it stuck after STUCK_SECONDS.
BEAT_SECONDS = 1.0
STUCK_SECONDS = 5.0
# Connections under way may finish: an answer takes two seconds at most, and its delivery.
STOP_SECONDS = 5.0


# Each connection is a file: those that the FastAGI server admits, and some for everything else.
OPEN_FILES = Limits().connections + 512


class Health:
    """What is wrong with the server, if anything. Asked from the metrics' thread."""

    def __init__(self, observer: MetricsObserver, links: AmiLinks) -> None:
        self._observer = observer
        self._links = links
        self._last_beat = time.monotonic()

    def beat(self) -> None:
        """The event loop runs."""
        self._last_beat = time.monotonic()

    def __call__(self) -> str:
        """One line on what is wrong, or an empty text."""
        silent = time.monotonic() - self._last_beat
        wrong = []
        if silent > STUCK_SECONDS:
            wrong.append(f"the event loop has not run for {silent:.0f} seconds")
        if self._observer.books_error:
            wrong.append(f"database: {self._observer.books_error}")
        wrong.extend(f"AMI link to {node} is down" for node in self._links.down)
        return "; ".join(wrong)


def run(settings: Settings, ready: Callable[[int], None] | None = None) -> None:
    """`serve`, on the fast event loop and with room for as many connections as it admits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, OPEN_FILES)), hard))
    uvloop.run(serve(settings, ready))


async def serve(settings: Settings, ready: Callable[[int], None] | None = None) -> None:
    """Run the server until SIGTERM or SIGINT; what is under way is finished.

    `ready` is called with the FastAGI port once calls are served. Raises RefusedError when the
    server cannot start: no schema, an address in use, a setting that makes no sense.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings) as server:
        if ready:
            ready(server.port)
        await stop.wait()
        log.info("stopping", extra={"action": "stopping"})


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[FastAgiServer]:
    """A running server, stopped at the end of the block: first the questions, then the events,
    last the books, so that nothing that was heard is lost."""
    nodes = parse_nodes(settings.ami.nodes)
    metrics = Metrics()
    observer = MetricsObserver(metrics)
    links = AmiLinks(nodes, await addresses_of(nodes), metrics)
    health = Health(observer, links)
    async with open_core(settings, links, observer, links) as core:
        await _check_schema(core)
        scripts = Scripts(core.controller, new_call_id=CallIds(now_ms), now_ms=now_ms)
        server = FastAgiServer(
            scripts, node_of=links.node_of, allow=settings.fastagi.allow, observer=observer
        )
        async with (
            _metrics_server(settings, metrics, health),
            _housekeeping(core, health),
            post_office(settings, metrics),
            _links_up(links, core),
            _listening(server, settings),
        ):
            yield server


async def _check_schema(core: Core) -> None:
    """Refuse to serve without tables; a database that is down may come later."""
    try:
        names = await missing(core.database)
    except StorageError as error:
        log.error(
            "database not reached at start", extra={"action": "database_down", "error": str(error)}
        )
        return
    if names:
        raise RefusedError(
            f"the database {core.database.shown_url} lacks {names[0]}: run `astcredit init`"
        )


@asynccontextmanager
async def _listening(server: FastAgiServer, settings: Settings) -> AsyncIterator[None]:
    host, port = settings.fastagi.listen
    try:
        await server.start(host, port)
    except OSError as error:
        raise RefusedError(f"fastagi.listen {host}:{port}: {error.strerror or error}") from error
    log.info("FastAGI listens", extra={"action": "listening", "host": host, "port": server.port})
    try:
        yield
    finally:
        await server.stop(STOP_SECONDS)


@asynccontextmanager
async def _links_up(links: AmiLinks, core: Core) -> AsyncIterator[None]:
    controller = core.controller
    await links.start(controller, Recovery(core.books, controller.submit))
    try:
        yield
    finally:
        await links.stop()


@asynccontextmanager
async def _metrics_server(
    settings: Settings, metrics: Metrics, health: Health
) -> AsyncIterator[None]:
    server = MetricsServer(metrics, health)
    if settings.metrics.listen is not None:
        server.start(*settings.metrics.listen)
    try:
        yield
    finally:
        await asyncio.to_thread(server.stop)


@asynccontextmanager
async def _housekeeping(core: Core, health: Health) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(_beat(health), name="beat"),
        asyncio.create_task(_sweep(core), name="sweep"),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _beat(health: Health) -> None:
    while True:
        health.beat()
        await asyncio.sleep(BEAT_SECONDS)


async def _sweep(core: Core) -> None:
    while True:
        try:
            closed = await core.controller.expire()
            if closed:
                log.warning("calls expired", extra={"action": "expired", "calls": closed})
        except StorageError as error:
            log.warning("sweep failed", extra={"action": "sweep_failed", "error": str(error)})
        await asyncio.sleep(SWEEP_SECONDS)
