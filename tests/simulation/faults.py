"""What goes wrong in a run, drawn by its seed: which kinds of faults, how often, and when.

Each run has a selection of its own ("swarm testing"): where everything fails all the time, little
of what comes after a success is ever seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from simulation.agi_line import LineWeather
from simulation.ami_line import AmiWeather
from simulation.asterisk import Asterisk
from simulation.chance import Chance
from simulation.database import Weather
from simulation.process import Process

MOST_CLOCK_STEP_MS = 20_000
"""A controller's clock is set by at most so much: the slack of a reservation's expiry is for it."""

MENDING_SECONDS = 30.0
"""After a fault is over it takes so long until everything is heard again."""

KINDS: Final = (
    "database-errors",
    "commits",
    "database-down",
    "database-frozen",
    "link-cuts",
    "link-frozen",
    "events-late",
    "lists",
    "controller-killed",
    "controller-stopped",
    "asterisk-killed",
    "clocks",
    "agi",
    "agi-torn",
    "reports",
)


class Judge(Protocol):
    """Who is told that something went wrong."""

    def disturbed(self, what: str, seconds: float, node: str = "") -> None: ...


@dataclass(slots=True)
class Climate:
    """All weathers of a run."""

    database: Weather = field(default_factory=Weather)
    ami: AmiWeather = field(default_factory=AmiWeather)
    line: LineWeather = field(default_factory=LineWeather)


@dataclass(frozen=True, slots=True)
class Scene:
    """What can be broken."""

    climate: Climate
    servers: Sequence[Asterisk]
    processes: Sequence[Process]
    judge: Judge
    note: Callable[..., None]


def draw_kinds(chance: Chance) -> frozenset[str]:
    """A selection of faults; sometimes none, sometimes all."""
    often = chance.pick((0.0, 0.2, 0.4, 0.6, 1.0))
    return frozenset(kind for kind in KINDS if chance.happens(often))


class Faults:
    """Makes things go wrong until it is told to stop."""

    def __init__(self, scene: Scene, kinds: Collection[str], chance: Chance) -> None:
        self._scene = scene
        self._kinds = kinds
        self._chance = chance
        self._tasks: list[asyncio.Task[None]] = []
        self._set_weather()

    def _set_weather(self) -> None:
        """What can happen at every single await."""
        climate, chance = self._scene.climate, self._chance
        database, ami, line = climate.database, climate.ami, climate.line

        def some(kind: str, most: float) -> float:
            return chance.between(0, most) if kind in self._kinds else 0.0

        database.lost = some("database-errors", 0.02)
        database.slow = some("database-errors", 0.02)
        database.commit_conflict = some("database-errors", 0.05)
        database.commit_lost = some("commits", 0.05)
        database.commit_unheard = some("commits", 0.05)
        database.commit_late = some("commits", 0.05)
        ami.cut = some("link-cuts", 0.02)
        ami.late = some("events-late", 0.2)
        ami.twice = some("events-late", 0.1)
        ami.list_cut = some("lists", 0.3)
        ami.list_incomplete = some("lists", 0.5)
        ami.slow = some("lists", 0.3)
        line.refused = some("agi", 0.05)
        line.cut_asking = some("agi", 0.05)
        line.cut_untaken = some("agi", 0.05)
        line.stall = some("agi", 0.03)
        line.cut_taken = some("agi-torn", 0.05)
        line.report_lost = some("reports", 0.4)
        line.report_late = some("reports", 0.3)
        line.report_twice = some("reports", 0.4)

    def start(self) -> None:
        """Begin."""
        plagues: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "database-down": self._database_down,
            "database-frozen": self._database_frozen,
            "link-cuts": self._link_cut,
            "link-frozen": self._link_frozen,
            "controller-killed": self._controller_killed,
            "controller-stopped": self._controller_stopped,
            "asterisk-killed": self._asterisk_killed,
            "clocks": self._clock_set,
        }
        for kind, strike in plagues.items():
            if kind in self._kinds:
                mean = self._chance.pick((5.0, 15.0, 40.0))
                self._tasks.append(asyncio.create_task(self._plague(mean, strike)))

    async def stop(self) -> None:
        """End all faults and mend what is broken."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._kinds = ()
        self._set_weather()
        climate = self._scene.climate
        climate.database.down_until = climate.database.frozen_until = 0.0
        for server in self._scene.servers:
            if not server.running:
                server.boot()
            for session in tuple(server.sessions):
                session.thaw()
        for process in self._scene.processes:
            if not process.alive:
                process.start()

    async def _plague(self, mean: float, strike: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await asyncio.sleep(self._chance.about(mean))
            await strike()

    def _disturb(self, what: str, seconds: float, node: str = "") -> None:
        self._scene.note("fault", what, node, f"{seconds:.3f}")
        self._scene.judge.disturbed(what, seconds + MENDING_SECONDS, node)

    async def _database_down(self) -> None:
        seconds = self._chance.about(3)
        self._disturb("database", seconds)
        weather = self._scene.climate.database
        weather.down_until = asyncio.get_running_loop().time() + seconds
        await asyncio.sleep(seconds)

    async def _database_frozen(self) -> None:
        seconds = self._chance.about(4)
        self._disturb("database", seconds)
        weather = self._scene.climate.database
        weather.frozen_until = asyncio.get_running_loop().time() + seconds
        await asyncio.sleep(seconds)

    async def _link_cut(self) -> None:
        server = self._chance.pick(self._scene.servers)
        if server.sessions:
            self._disturb("link", 0.0, server.name)
            self._chance.pick(server.sessions).lose("simulated: cut")

    async def _link_frozen(self) -> None:
        server = self._chance.pick(self._scene.servers)
        if server.sessions:
            session = self._chance.pick(server.sessions)
            seconds = self._chance.about(12)
            self._disturb("frozen", seconds, server.name)
            session.freeze()
            await asyncio.sleep(seconds)
            session.thaw()

    async def _controller_killed(self) -> None:
        process = self._chance.pick(self._scene.processes)
        if process.alive:
            seconds = self._chance.about(3)
            self._disturb(f"killed {process.name}", seconds)
            process.kill()
            await asyncio.sleep(seconds)
            process.start()

    async def _controller_stopped(self) -> None:
        process = self._chance.pick(self._scene.processes)
        if process.alive:
            seconds = self._chance.about(2)
            self._disturb(f"stopped {process.name}", seconds + MENDING_SECONDS)
            await process.stop()
            await asyncio.sleep(seconds)
            process.start()

    async def _asterisk_killed(self) -> None:
        server = self._chance.pick(self._scene.servers)
        seconds = self._chance.between(1.1, 10)
        self._disturb("asterisk", seconds, server.name)
        server.crash(silent=self._chance.happens(0.3))
        await asyncio.sleep(seconds)
        server.boot()

    async def _clock_set(self) -> None:
        process = self._chance.pick(self._scene.processes)
        process.clock_ms = self._chance.whole(-MOST_CLOCK_STEP_MS, MOST_CLOCK_STEP_MS)
        self._scene.note("fault", "clock", process.name, process.clock_ms)
