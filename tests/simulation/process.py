"""A controller process of the simulation, put together of the real parts as the server does it.

It can be killed at any await and started again. Killing stops every task that the process has
started; what was sent to the database may have arrived or not, and nothing else goes out.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Mapping
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, cast

from astcredit.app.links import AmiLinks
from astcredit.app.metrics import Metrics
from astcredit.asterisk.agi import AgiError, AgiRequest
from astcredit.asterisk.ami_node import AmiNode
from astcredit.asterisk.scripts import ScriptFailed, Scripts
from astcredit.domain.calls import AuthStatus, CallRequest
from astcredit.domain.catalog import Catalog
from astcredit.domain.decisions import CallPolicy, Decision
from astcredit.domain.settlement import Settlement
from astcredit.service.batcher import Batcher
from astcredit.service.controller import AnswerPolicy, Controller
from astcredit.service.errors import StorageError
from astcredit.service.ids import CallIds
from astcredit.service.ledger import Ledger
from astcredit.service.recovery import Recovery
from simulation.agi_line import Session
from simulation.ami_line import NETWORK, AmiWeather, Ear, Network
from simulation.asterisk import BASE_MS, Asterisk
from simulation.chance import Chance
from simulation.database import Connection, FixedCatalog, Weather
from simulation.store import Store

SWEEP_SECONDS = 30.0
FLUSH_SECONDS = 10.0
STOP_SECONDS = 5.0
EVENT_DELAY_S = 0.02
ANSWERS = AnswerPolicy(deadline_seconds=1.8, warn_seconds=60, repeat_seconds=30)

CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)
"""The process whose task runs."""


class Judge(Ear, Protocol):
    """Who is told of what must not be."""

    def wrong(self, what: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Site:
    """What all processes share."""

    store: Store
    servers: Mapping[str, Asterisk]
    unlinked: frozenset[str]
    """Servers without an AMI link."""
    catalog: Catalog
    policy: CallPolicy
    database: Weather
    ami: AmiWeather
    judge: Judge


class Process:
    """One controller. `clock_ms` is by how much its clock is wrong."""

    def __init__(self, name: str, site: Site, chance: Chance) -> None:
        self.name = name
        self.alive = False
        self.clock_ms = 0
        self.lives = 0
        self._site = site
        self._chance = chance
        self._context: Context = contextvars.copy_context()
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._sessions: dict[Session, None] = {}
        self._parts: _Parts | None = None

    def now_ms(self) -> int:
        """The process's clock."""
        return BASE_MS + self.clock_ms + int(asyncio.get_running_loop().time() * 1000)

    @property
    def links(self) -> AmiLinks | None:
        """Its links, while it runs."""
        return self._parts.links if self._parts is not None else None

    def start(self) -> None:
        """Begin a new life."""
        assert not self.alive
        self.alive = True
        self.lives += 1
        site = self._site
        body = Body(self)
        network = Network(body, site.servers, site.ami, self._chance, site.judge)
        self._context = contextvars.copy_context()
        self._context.run(CURRENT.set, self)
        self._context.run(NETWORK.set, network)
        self._parts = self._context.run(_Parts, self, body, site, self._chance)
        self.spawn(self._parts.run())

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something as a part of this process."""
        asyncio.get_running_loop().create_task(work, context=self._context)

    def track(self, task: asyncio.Task[Any]) -> None:
        """A task of this process was created."""
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def kill(self) -> None:
        """SIGKILL."""
        if not self.alive:
            return
        self.alive = False
        assert self._parts is not None
        self._parts.body.alive = False
        for server in self._site.servers.values():
            for session in tuple(server.sessions):
                if session.process is self._parts.body:
                    session.lose("the controller was killed")
        for task in tuple(self._tasks):
            task.cancel()
        for visit in tuple(self._sessions):
            visit.close()
        self._sessions.clear()

    async def stop(self) -> None:
        """SIGTERM: what is under way is finished, what is waiting is written."""
        parts = self._parts
        if not self.alive or parts is None:
            return
        self.alive = False
        loop = asyncio.get_running_loop()
        await asyncio.wait({loop.create_task(parts.stop(), context=self._context)})
        self.alive = True
        self.kill()

    def serve(self, request: AgiRequest, session: Session, node: str) -> None:
        """Run a script for a channel; see `agi_line.Server`."""
        self._sessions[session] = None
        self.spawn(self._visit(request, session, node))

    async def _visit(self, request: AgiRequest, session: Session, node: str) -> None:
        assert self._parts is not None
        try:
            await self._parts.scripts.run(request, session, node)
        except (AgiError, ScriptFailed) as error:
            self._site.judge.note(self.name, "agi ended", request.uniqueid, repr(error))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._site.judge.wrong(f"the script {request.script} raised {error!r}")
        finally:
            session.close()
            self._sessions.pop(session, None)


@dataclass(eq=False)
class Body:
    """One life of a process: what it heard is its own, and ends with it. `idle_at`: the last moment
    at which everything that it knew was on record."""

    process: Process
    alive: bool = True
    idle_at: float = 0.0

    @property
    def name(self) -> str:
        return self.process.name


class _Parts:
    """What a process is made of, as `app.server.running` puts it together."""

    def __init__(self, process: Process, body: Body, site: Site, chance: Chance) -> None:
        self.body = body
        self._process = process
        self._judge = site.judge
        books = Connection(site.store, site.database, chance, body)
        catalog = FixedCatalog(site.catalog)
        nodes = [
            AmiNode(name, name, 5038, "astcredit", "")
            for name in site.servers
            if name not in site.unlinked
        ]
        self.links = AmiLinks(nodes, {}, cast(Metrics, _NoMetrics()))
        ledger = Ledger(books, catalog, site.policy, process.now_ms, links=self.links)
        observer = _Observer(body)
        self.batcher = Batcher(
            ledger.apply, self._orphan, observer, most_operations=256, event_delay=EVENT_DELAY_S
        )
        self.controller = Controller(
            self.batcher,
            books,
            catalog,
            site.policy,
            ANSWERS,
            process.now_ms,
            observer,
            self.links,
        )
        ids = CallIds(process.now_ms)
        self.scripts = Scripts(self.controller, new_call_id=ids, now_ms=process.now_ms)
        self._recovery = Recovery(books, self.controller.submit)
        self._housekeeping: asyncio.Task[None] | None = None

    def _orphan(self, request: CallRequest, decision: Decision) -> None:
        self.controller.orphaned(request, decision)

    async def run(self) -> None:
        """Start everything, then sweep for ever."""
        self.batcher.start()
        await self.links.start(self.controller, self._recovery)
        self._housekeeping = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            try:
                await self.controller.expire()
            except StorageError as error:
                self._judge.note(self._process.name, "sweep failed", repr(error))
            await asyncio.sleep(SWEEP_SECONDS)

    async def stop(self) -> None:
        """In the server's order: first the questions, then the events, last the books."""
        await asyncio.sleep(STOP_SECONDS)  # connections that are open finish
        await self.scripts.drain(STOP_SECONDS)
        await self.links.stop()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        await self.batcher.stop(FLUSH_SECONDS)


class _Observer:
    """Knows when everything that the process was told is on record."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._waiting = 0

    def batch_done(self, operations: int, seconds: float) -> None:
        if not self._waiting:
            self._body.idle_at = asyncio.get_running_loop().time()

    def batch_failed(self, error: Exception) -> None: ...

    def queue_length(self, operations: int) -> None:
        self._waiting = operations

    def authorized(self, status: AuthStatus, seconds: float) -> None: ...

    def settled(self, settlement: Settlement) -> None: ...


class _NoMetrics:
    """Metrics that nobody reads."""

    @property
    def ami_up(self) -> _NoMetrics:
        return self

    def labels(self, *_names: str) -> _NoMetrics:
        return self

    def set(self, _value: float) -> None: ...


def current_now_ms() -> int:
    """In the place of `astcredit.app.clock.now_ms`: the clock of the process whose task runs."""
    process = CURRENT.get()
    assert process is not None
    return process.now_ms()


def task_factory(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: Context | None = None
) -> asyncio.Task[Any]:
    """Makes tasks, and lets the process to which they belong know of them."""
    task = asyncio.Task(work, loop=loop, context=context)
    process = CURRENT.get() if context is None else context.get(CURRENT)
    if process is not None:
        process.track(task)
    return task
