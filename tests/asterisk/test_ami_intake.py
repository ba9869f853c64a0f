"""What waits to be handled: all of it in order, in slices, and said when it waits for long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.asterisk import ami_intake
from astcredit.asterisk.ami_intake import BEHIND_SECONDS, SLICE_SECONDS, Intake
from support.ami_scene import logged


class Wire(asyncio.Transport):
    """A transport that only knows whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self._reading = True
        self.closing = False

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def is_reading(self) -> bool:
        return self._reading

    def is_closing(self) -> bool:
        return self.closing


class Stage:
    """An intake with a clock that a message moves: each takes `cost` seconds to handle."""

    def __init__(self, cost: float = 0.0) -> None:
        self.now = 100.0
        self.cost = cost
        self.wire = Wire()
        self.done: list[bytes] = []
        self.turns: list[int] = []
        """How much was done at each turn that something else had."""
        self.then: Callable[[bytes], None] = lambda _: None
        self.intake = Intake("pbx1", self.wire, _cut, self._take, lambda: self.now)

    def put(self, *messages: bytes) -> None:
        """A piece with these messages."""
        self.intake.put(b" ".join(messages))

    async def idle(self, rounds: int = 1_000) -> None:
        """Until nothing waits; what else has to be done has its turn in between."""
        for _ in range(rounds):
            if not self.intake.waiting_bytes:
                return
            self.turns.append(len(self.done))
            await asyncio.sleep(0)
        raise AssertionError("it does not come to an end")

    def _take(self, message: bytes) -> None:
        self.now += self.cost
        self.done.append(message)
        self.then(message)


def _cut(data: bytes) -> list[bytes]:
    return data.split()


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await scene()

    asyncio.run(run())


def numbered(count: int) -> list[bytes]:
    return [b"%06d" % n for n in range(count)]


# --- in slices, all of it ----------------------------------------------------------------------


@given(
    st.lists(st.lists(st.just(b"x"), max_size=5), max_size=12),
    st.sampled_from([0.0, SLICE_SECONDS / 3, 2 * SLICE_SECONDS]),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_nothing_is_dropped_and_the_order_stays(
    sizes: list[list[bytes]], cost: float, waits: list[bool]
) -> None:
    async def scene() -> None:
        stage, sent = Stage(cost), []
        for number, (size, wait) in enumerate(zip(sizes, waits, strict=False)):
            messages = [b"%d.%d" % (number, n) for n in range(len(size))]
            stage.put(*messages)
            sent += messages
            if wait:
                await asyncio.sleep(0)
        await stage.idle()
        assert stage.done == sent
        assert (stage.intake.waiting_bytes, stage.intake.behind_seconds) == (0, 0.0)

    play(scene)


def test_others_have_their_turn_after_each_slice() -> None:
    async def scene() -> None:
        stage = Stage(cost=SLICE_SECONDS / 8)
        stage.put(*numbered(60))
        stage.put(*numbered(40))
        assert not stage.done  # nor is anything handled while more arrives
        await stage.idle()
        steps = [b - a for a, b in zip(stage.turns, [*stage.turns[1:], 100], strict=True)]
        assert max(steps) <= 9
        assert len(steps) >= 11

    play(scene)


def test_a_slice_does_not_grow_when_more_arrives_meanwhile() -> None:
    async def scene() -> None:
        stage = Stage(cost=SLICE_SECONDS)
        stage.put(*numbered(3))
        for _ in range(5):
            stage.put(*numbered(3))
        await asyncio.sleep(0)
        assert len(stage.done) == 2

    play(scene)


# --- bounded memory ----------------------------------------------------------------------------


def test_reading_stops_when_much_waits_and_goes_on_when_half_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ami_intake, "MOST_WAITING_BYTES", 60)

    async def scene() -> None:
        stage = Stage(cost=2 * SLICE_SECONDS)
        for message in numbered(10):
            stage.put(message)
        assert stage.wire.is_reading()
        stage.put(b"000010")
        assert not stage.wire.is_reading()
        waiting = []
        while not stage.wire.is_reading():
            waiting.append(stage.intake.waiting_bytes)
            await asyncio.sleep(0)
        assert stage.intake.waiting_bytes <= 30 < min(waiting)
        await stage.idle()
        assert stage.done == numbered(11)

    play(scene)


def test_a_connection_that_closes_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami_intake, "MOST_WAITING_BYTES", 5)

    async def scene() -> None:
        stage = Stage()
        stage.put(*numbered(2))
        stage.wire.closing = True
        await stage.idle()
        assert not stage.wire.is_reading()

    play(scene)


# --- how far behind ----------------------------------------------------------------------------


def test_behind_is_what_the_oldest_has_waited() -> None:
    async def scene() -> None:
        stage = Stage()
        intake = stage.intake
        assert (intake.behind_seconds, intake.waiting_bytes) == (0.0, 0)
        stage.put(b"one")
        stage.now += 3
        stage.put(b"four")
        stage.now += 1
        assert (intake.behind_seconds, intake.waiting_bytes) == (4.0, 7)
        stage.cost = 2 * SLICE_SECONDS  # one message a slice
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert stage.done == [b"one", b"four"]
        assert intake.behind_seconds == pytest.approx(1.0 + 4 * SLICE_SECONDS)
        assert intake.waiting_bytes == 4  # in whole pieces
        await stage.idle()
        assert (intake.behind_seconds, intake.waiting_bytes) == (0.0, 0)

    play(scene)


def test_being_behind_is_said_once_and_so_is_having_caught_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        stage = Stage(cost=2 * SLICE_SECONDS)
        stage.put(*numbered(2))
        stage.now += BEHIND_SECONDS / 2
        await stage.idle()
        assert not logged(caplog)
        stage.put(*numbered(5))
        stage.now += 2 * BEHIND_SECONDS
        await stage.idle()
        assert logged(caplog) == ["ami_behind", "ami_caught_up"]
        record = caplog.records[0].__dict__
        assert (record["node"], record["seconds"], record["bytes"]) == ("pbx1", 2.0, 34)
        stage.put(b"x")
        stage.now += 2 * BEHIND_SECONDS
        await stage.idle()
        assert logged(caplog) == ["ami_behind", "ami_caught_up"] * 2

    with caplog.at_level(logging.INFO, "astcredit"):
        play(scene)


# --- the end -----------------------------------------------------------------------------------


def test_the_end_comes_after_all_that_was_said_before_it() -> None:
    async def scene() -> None:
        stage, ends = Stage(cost=SLICE_SECONDS), []
        stage.put(*numbered(5))
        stage.intake.finish(lambda: ends.append((1, len(stage.done))))
        stage.intake.finish(lambda: ends.append((2, len(stage.done))))
        assert not ends
        await stage.idle()
        await asyncio.sleep(0)
        assert ends == [(1, 5)]

    play(scene)


def test_the_end_comes_at_once_where_nothing_waits() -> None:
    async def scene() -> None:
        stage, ends = Stage(), []
        stage.intake.finish(lambda: ends.append(1))
        assert ends == [1]

    play(scene)


def test_what_waits_can_be_handled_at_once() -> None:
    async def scene() -> None:
        stage = Stage(cost=SLICE_SECONDS)
        stage.put(*numbered(50))
        stage.intake.drain()
        assert stage.done == numbered(50)
        await asyncio.sleep(0)
        assert (len(stage.done), stage.intake.waiting_bytes) == (50, 0)

    play(scene)


def test_what_follows_something_incomprehensible_is_forgotten() -> None:
    async def scene() -> None:
        stage, ends = Stage(), []
        stage.then = lambda message: stage.intake.drop() if message == b"000002" else None
        stage.put(*numbered(5))
        stage.put(*numbered(5))
        await stage.idle()
        stage.intake.finish(lambda: ends.append(1))
        assert stage.done == numbered(3)
        stage.put(b"new")
        await stage.idle()
        assert stage.done == [*numbered(3), b"new"]
        assert (ends, stage.intake.behind_seconds) == ([1], 0.0)

    play(scene)
