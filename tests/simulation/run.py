"""One simulated run: from a seed to what was found wrong.

simulate(42)                       a run; equal seeds give equal runs
simulate(42, Options(calls=50))    a shorter one
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from astcredit.app import links
from astcredit.asterisk import ami
from astcredit.domain.books import LedgerKind, OpenCall
from astcredit.service import ids
from astcredit.service.ports import Changes
from simulation import virtual_time
from simulation.agi_line import AgiLine
from simulation.ami_line import Process as Life
from simulation.ami_line import SimulatedSession
from simulation.asterisk import Asterisk, Chan, Event
from simulation.auditor import Auditor
from simulation.call_plans import draw_plan
from simulation.chance import Chance
from simulation.dialplan import Bench, customer
from simulation.faults import Climate, Faults, Scene, draw_kinds
from simulation.process import Process, Site, current_now_ms, task_factory
from simulation.store import Store
from simulation.truth import Truth
from simulation.virtual_time import VirtualLoop
from simulation.world import SETUP_SECONDS, books_of, catalog_of, draw_world, policy_of

EXPIRY_SLACK = 60.0
SWEEPS = 90.0
"""What is past its last second is found by one of the next sweeps."""
LOOK_SECONDS = 5.0
"""How often it is looked whether the run is over."""
WARM_UP = 1.0
"""Seconds until all links are up."""


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run. `faults` None: drawn by the seed."""

    calls: int = 250
    controllers: int = 2
    servers: int = 2
    faults: frozenset[str] | None = None
    transfers: float | None = None
    linked: bool | None = None
    """Whether every server has AMI links; else the last one has none. None: drawn by the seed."""


@dataclass(slots=True)
class Result:
    """What came of a run. `problems` is empty if nothing was wrong; `digest` is that of everything
    that happened; `log` has all its steps."""

    seed: int
    faults: frozenset[str]
    problems: list[str]
    calls: int
    counts: Counter[str]
    digest: int
    seconds: float
    log: list[str]


def simulate(seed: int, options: Options | None = None) -> Result:
    """Play a run."""
    options = options or Options()
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        bits = SimpleNamespace(randbits=Chance(seed, "ids").bits)
        stack.enter_context(patch.object(ids, "secrets", bits))
        stack.enter_context(patch.object(ami, "AmiSession", SimulatedSession))
        stack.enter_context(patch.object(links, "now_ms", current_now_ms))
        return virtual_time.run(lambda loop: Simulation(seed, options, loop).play())


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


class Simulation:
    """All parts of a run. Tells truth and auditor what they must know."""

    def __init__(self, seed: int, options: Options, loop: VirtualLoop) -> None:
        self._seed = seed
        self._options = options
        self._loop = loop
        self._chance = Chance(seed)
        self.problems: list[str] = []
        self._log: list[str] = []
        self._digest = 0
        loop.set_task_factory(task_factory)  # type: ignore[arg-type] # its context may be None
        loop.set_exception_handler(self._unhandled)
        self._kinds = options.faults
        if self._kinds is None:
            self._kinds = draw_kinds(self._chance.stream("kinds"))
        self._world = draw_world(self._chance.stream("world"))
        self._store = Store(books_of(self._world))
        self._auditor = Auditor(self._store, self._world, self.wrong)
        self._store.on_commit = self._committed
        self._climate = Climate()
        linked = options.linked
        if linked is None:
            linked = not self._chance.stream("linked").happens(0.2)
        self._unlinked = frozenset(() if linked else (f"pbx{options.servers}",))
        faultless = not self._kinds
        self._truth = Truth(self._store, self._unlinked, faultless, loop.time, self.wrong)
        self._build(options)

    def _build(self, options: Options) -> None:
        chance = self._chance
        self._servers = [
            Asterisk(f"pbx{n}", chance.stream(f"pbx{n}"), self, chance.whole(-300, 300))
            for n in range(1, options.servers + 1)
        ]
        site = Site(
            self._store,
            {server.name: server for server in self._servers},
            self._unlinked,
            catalog_of(self._world),
            policy_of(self._world),
            self._climate.database,
            self._climate.ami,
            self,
        )
        self._processes = [
            Process(f"controller{n}", site, chance.stream(f"controller{n}"))
            for n in range(1, options.controllers + 1)
        ]
        line = AgiLine(self._processes, self._climate.line, chance.stream("line"), self)
        self._bench = Bench(line, self._truth)
        scene = Scene(self._climate, self._servers, self._processes, self._truth, self.note)
        self._faults = Faults(scene, self._kinds or frozenset(), chance.stream("faults"))

    async def play(self) -> Result:
        """The run, from the first call to the last settlement."""
        for process in self._processes:
            process.start()
        await asyncio.sleep(WARM_UP)
        self._faults.start()
        top_ups = asyncio.create_task(self._top_ups())
        await self._calls()
        await self._until_quiet(60.0)
        await self._faults.stop()
        top_ups.cancel()
        await self._until_quiet(4 * self._world.max_seconds + SETUP_SECONDS)
        await self._until_closed()
        if not self.problems:
            self._truth.audit()
        return self._result()

    async def _calls(self) -> None:
        chance = self._chance.stream("calls")
        pause = chance.pick((0.05, 0.3, 1.0))
        transfers = self._options.transfers
        if transfers is None:
            transfers = chance.pick((0.0, 0.1, 0.4))
        for _ in range(self._options.calls):
            await asyncio.sleep(chance.about(pause))
            server = chance.pick(self._servers)
            often = 0.0 if server.name in self._unlinked else transfers
            plan = draw_plan(self._world, chance, often)
            if server.running:
                server.spawn(customer(server, plan, self._bench))
            if self.problems:
                return

    async def _top_ups(self) -> None:
        chance = self._chance.stream("top-ups")
        number = 0
        while True:
            await asyncio.sleep(chance.about(5))
            number += 1
            await self._top_up(chance.pick((1, 2, 3, 5)), chance.whole(1, 1_000_000), number)

    async def _top_up(self, client_id: int, amount: int, number: int) -> None:
        """What an administrator's command does, in a transaction of its own."""
        key = ("client", client_id)
        await self._store.locks.take(key, self)
        await asyncio.sleep(0.002)
        books, entry = self._store.clients[client_id].post(
            LedgerKind.TOPUP, amount, reference=f"topup:{number}", actor="admin", now_ms=0
        )
        self._store.apply(Changes(ledger=[entry], clients={client_id: books}))
        self._store.locks.release(self, [key])

    async def _until_quiet(self, most: float) -> None:
        end = self._loop.time() + most
        while any(server.busy for server in self._servers) and self._loop.time() < end:
            if self.problems:
                return
            await asyncio.sleep(1.0)

    async def _until_closed(self) -> None:
        """Until the last reservation is gone, at the latest by its expiry."""
        most = SETUP_SECONDS + self._world.max_seconds + EXPIRY_SLACK + SWEEPS
        for _ in range(int(most / LOOK_SECONDS)):
            if not self._store.open or self.problems:
                break
            await asyncio.sleep(LOOK_SECONDS)
        if not self.problems:
            for id in self._store.open:
                self.wrong(f"{id} is still open: {self._store.cdrs[id]}")

    def _result(self) -> Result:
        cdrs = self._store.cdrs.values()
        counts = Counter(cdr.denied or cdr.status for cdr in cdrs)
        counts.update(f"by {cdr.settled_by}" for cdr in cdrs if cdr.settled_by)
        counts["estimated"] = sum(cdr.estimated for cdr in cdrs)
        counts["commits"] = self._store.commits
        counts["legs"] = sum(call.leg is not None for call in self._truth.calls.values())
        return Result(
            self._seed,
            self._kinds or frozenset(),
            self.problems,
            len(self._store.cdrs),
            counts,
            self._digest,
            self._loop.time(),
            self._log,
        )

    # --- what the parts of the run report ------------------------------------------------------

    def wrong(self, what: str) -> None:
        """Something that must not be."""
        self.note("WRONG", what)
        self.problems.append(f"at {self._loop.time():.3f} s: {what}")

    def note(self, *words: object) -> None:
        """A step of the run."""
        line = f"{self._loop.time():10.4f} {' '.join(map(str, words))}"
        self._log.append(line)
        self._digest = zlib.crc32(line.encode(), self._digest)

    def tear(self, call_id: str) -> None:
        """See `Truth.tear`."""
        self._truth.tear(call_id)

    def disturbed(self, what: str, seconds: float, node: str = "") -> None:
        """See `Truth.disturbed`."""
        self._truth.disturbed(what, seconds, node)

    def heard(self, process: Life, event: Event) -> None:
        """See `Truth.heard`."""
        self._truth.heard(process, event)

    def leg_answered(self, leg: Chan, call_id: str, seconds: int) -> None:
        """See `Truth.leg_answered`."""
        self._truth.leg_answered(leg, call_id, seconds)

    def leg_ended(self, leg: Chan) -> None:
        """See `Truth.leg_ended`."""
        self._truth.leg_ended(leg)

    def _committed(self, changes: Changes, before: Mapping[str, OpenCall | None]) -> None:
        for new in changes.calls:
            self.note("book", new.request.call_id, new.decision.status, new.decision.reserved)
        for moved in changes.rerouted:
            self.note("reroute", moved.call.call_id, moved.call.occupancy.route_id)
        for answer in changes.answered:
            self.note("answer", answer.call_id, answer.leg_uniqueid)
        for done in changes.settlements:
            ending = done.ending
            self.note(done.state, done.call.call_id, ending.settled_by, done.price, ending.note)
            self._truth.settled(done)
        self._auditor.committed(changes, before)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        if "never retrieved" not in context["message"]:
            self.wrong(f"unhandled: {context['message']} {error!r}")
