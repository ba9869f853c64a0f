"""The server process: FastAGI, AMI listeners, housekeeping, metrics. Owns their start and stop.

It may be one of several that are one server (`app/workers.py`); then it has its post there.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

import uvloop

from astcredit.app.clock import now_ms
from astcredit.app.core import Core, open_core
from astcredit.app.duties import Duty, duties
from astcredit.app.intercom import Intercom
from astcredit.app.links import AmiLinks, SharedLinks, addresses_of, parse_nodes
from astcredit.app.mailer import post_office
from astcredit.app.metrics import Metrics, MetricsServer
from astcredit.app.observers import MetricsObserver
from astcredit.app.settings import Settings
from astcredit.asterisk.ami_node import AmiNode
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


@dataclass(frozen=True, slots=True)
class Post:
    """The place of a process among those that are one server.

    `life`: a file from which the process can read, that is its end, once it has to stop.
    """

    duty: Duty
    intercom: Intercom
    life: int


# A call makes some hundred objects, and nearly all go without the collector's help: at Python's own
# 700 it would look a thousand times a second, and take a fifth of the CPU.
COLLECT_AFTER = (50_000, 20, 50)


class Health:
    """What is wrong with the server, if anything. Asked from the metrics' thread."""

    def __init__(self, observer: MetricsObserver, links: AmiLinks | SharedLinks) -> None:
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


def run(
    settings: Settings, ready: Callable[[int], None] | None = None, post: Post | None = None
) -> None:
    """`serve`, on the fast event loop and with room for as many connections as it admits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, OPEN_FILES)), hard))
    gc.set_threshold(*COLLECT_AFTER)
    uvloop.run(serve(settings, ready, post))


async def serve(
    settings: Settings, ready: Callable[[int], None] | None = None, post: Post | None = None
) -> None:
    """Run the server until SIGTERM or SIGINT; what is under way is finished.

    Without a `post` it is the whole server. `ready` is called with the FastAGI port (0 if the
    post has none) once calls are served. Raises RefusedError when the server cannot start: no
    schema, an address in use, a setting that makes no sense.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if post is not None:
        loop.add_reader(post.life, _life_over, loop, post.life, stop)
    async with running(settings, post) as port:
        if ready:
            ready(port)
        await stop.wait()
        log.info("stopping", extra={"action": "stopping"})


def _life_over(loop: asyncio.AbstractEventLoop, life: int, stop: asyncio.Event) -> None:
    loop.remove_reader(life)  # it can be read for ever now
    stop.set()


@asynccontextmanager
async def running(settings: Settings, post: Post | None = None) -> AsyncIterator[int]:
    """A running server on the FastAGI port that is given, stopped at the end of the block: first
    the questions, then the events, last the books, so that nothing that was heard is lost."""
    nodes = parse_nodes(settings.ami.nodes)
    duty = post.duty if post else duties(1, [node.name for node in nodes])[0]
    metrics = Metrics()
    observer = MetricsObserver(metrics)
    own, links = _links(nodes, await addresses_of(nodes), metrics, post)
    own.show_lag()
    health = Health(observer, links)
    async with open_core(settings, links, observer, links) as core:
        await _check_schema(core)
        scripts = Scripts(core.controller, new_call_id=CallIds(now_ms), now_ms=now_ms)
        server = FastAgiServer(
            scripts, node_of=links.node_of, allow=settings.fastagi.allow, observer=observer
        )
        async with (
            _metrics_server(settings, metrics, health),
            _housekeeping(core, health, sweeps=duty.keeps_house),
            _if(duty.keeps_house, post_office(settings, metrics)),
            _told_by_others(post, own, core),
            _links_up(own, core),
            _if(duty.answers, _listening(server, settings, shared=post is not None)),
        ):
            yield server.port if duty.answers else 0


def _links(
    nodes: Sequence[AmiNode], addresses: Mapping[str, str], metrics: Metrics, post: Post | None
) -> tuple[AmiLinks, AmiLinks | SharedLinks]:
    """The links that this process has, and those of the whole server."""
    if post is None:
        links = AmiLinks(nodes, addresses, metrics)
        return links, links
    mine = [node for node in nodes if node.name in post.duty.nodes]
    own = AmiLinks(mine, addresses, metrics, on_state=post.intercom.mark)
    return own, SharedLinks(nodes, addresses, own, post.intercom)


def _if(
    wanted: bool, context: AbstractAsyncContextManager[None]
) -> AbstractAsyncContextManager[None]:
    return context if wanted else nullcontext()


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
async def _listening(
    server: FastAgiServer, settings: Settings, *, shared: bool
) -> AsyncIterator[None]:
    host, port = settings.fastagi.listen
    try:
        await server.start(host, port, reuse_port=shared)
    except OSError as error:
        raise RefusedError(f"fastagi.listen {host}:{port}: {error.strerror or error}") from error
    log.info("FastAGI listens", extra={"action": "listening", "host": host, "port": server.port})
    try:
        yield
    finally:
        await server.stop(STOP_SECONDS)


@asynccontextmanager
async def _told_by_others(post: Post | None, own: AmiLinks, core: Core) -> AsyncIterator[None]:
    """Do what other processes want of the listener, or want it of one, as the post is."""
    if post is None:
        yield
        return
    if not post.duty.nodes:
        core.controller.leave_reports_to(post.intercom.report)
    with post.intercom.listening(post.duty.number, own, core.controller.keep_report):
        yield


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
async def _housekeeping(core: Core, health: Health, *, sweeps: bool) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(_beat(health), name="beat")]
    if sweeps:
        tasks.append(asyncio.create_task(_sweep(core), name="sweep"))
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
