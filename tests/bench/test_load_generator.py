"""The bench's load generator against the real FastAGI server and AMI link: what it plays is what
Asterisk does, and what it counts is what happened."""

from __future__ import annotations

import asyncio
import importlib
import json
import select
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from astcredit.app.clock import now_ms
from astcredit.asterisk.ami import AmiLink, AmiNode
from astcredit.asterisk.fastagi import FastAgiServer
from astcredit.asterisk.scripts import Scripts
from astcredit.domain.calls import Authorization, AuthStatus, CallRequest, ChannelEnded, LegAnswered
from astcredit.service.ids import CallIds
from support.agi_fakes import FakeControl
from support.fake_ami import soon
from support.project import ROOT

GENERATOR = ROOT / "scripts" / "bench.d" / "generator.py"
NODE = "bench"


class Generator:
    """The generator's process, driven as the bench drives it."""

    def __init__(self, process: asyncio.subprocess.Process, ami_port: int) -> None:
        self.process = process
        self.ami_port = ami_port

    async def do(self, what: str, **values: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **values}).encode() + b"\n")
        return await answer_of(self.process)


async def answer_of(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        answer: dict[str, Any] = json.loads(await process.stdout.readline())
    return answer


@asynccontextmanager
async def generating() -> AsyncIterator[Generator]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(GENERATOR), stdin=pipe, stdout=pipe
    )
    try:
        yield Generator(process, (await answer_of(process))["ami_port"])
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


@dataclass
class Heard:
    """What the AMI link brings; `moved` is set with each event."""

    answered: list[LegAnswered] = field(default_factory=list)
    ended: list[ChannelEnded] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def leg_answered(self, event: LegAnswered) -> None:
        self.answered.append(event)
        self.moved.set()

    def channel_ended(self, event: ChannelEnded) -> None:
        self.ended.append(event)
        self.moved.set()

    async def counts(self, answered: int, ended: int) -> None:
        """Return when so many legs were answered and so many channels have ended."""
        async with asyncio.timeout(30):
            while (len(self.answered), len(self.ended)) != (answered, ended):
                self.moved.clear()
                await self.moved.wait()


@asynccontextmanager
async def linked(generator: Generator) -> AsyncIterator[tuple[AmiLink, Heard]]:
    heard = Heard()
    node = AmiNode(NODE, "127.0.0.1", generator.ami_port, "bench", "secret")
    link = AmiLink(node, heard, now_ms)
    await link.start()
    await soon(link.wait_up())
    try:
        yield link, heard
    finally:
        await link.stop()


@asynccontextmanager
async def serving(control: FakeControl) -> AsyncIterator[int]:
    scripts = Scripts(control, new_call_id=CallIds(now_ms), now_ms=now_ms)
    server = FastAgiServer(scripts, node_of=lambda _: NODE)
    await server.start("127.0.0.1", 0)
    try:
        yield server.port
    finally:
        await server.stop(1)


def test_a_call_is_asked_answered_and_ended_as_by_asterisk() -> None:
    async def play() -> tuple[dict[str, Any], FakeControl, Heard]:
        control = FakeControl()
        async with generating() as generator, linked(generator) as (_, heard):
            async with serving(control) as port:
                plan = {"port": port, "calls": 20, "at_once": 4, "accounts": 3, "hold": 0}
                counted = await generator.do("calls", **plan, talk_ms=5_000)
            await heard.counts(20, 40)
        return counted, control, heard

    counted, control, heard = asyncio.run(play())
    assert counted["statuses"] == {"ALLOWED": 20}
    assert counted["faults"] == {}
    requests = {request.uniqueid: request for request in control.requests}
    assert len(requests) == 20
    assert {request.accountcode for request in requests.values()} == {
        "client0",
        "client1",
        "client2",
    }
    for leg in heard.answered:
        request = requests.pop(leg.caller_uniqueid)
        assert as_asked(request)
        assert leg.call_id == request.call_id
        assert leg.trunk == "PJSIP/carrier"
        assert leg.node == NODE
    assert not requests, "calls without an answer"
    assert talk_times(heard) == sorted(serial * 7_919 % 5_001 for serial in range(1, 21))


def as_asked(request: CallRequest) -> bool:
    """Whether a request tells what Asterisk tells of a PJSIP channel."""
    return (
        request.channel.startswith(f"PJSIP/{request.accountcode}-")
        and request.linkedid == request.uniqueid
        and request.source == "192.0.2.7:5060"
        and request.number.startswith("44207123")
        and not request.account
    )


def talk_times(heard: Heard) -> list[int]:
    ended = {event.uniqueid: event.ended_at_ms for event in heard.ended}
    return sorted(ended[leg.leg_uniqueid] - leg.answered_at_ms for leg in heard.answered)


def test_a_call_that_is_refused_has_no_events() -> None:
    async def play() -> tuple[dict[str, Any], Heard]:
        refused = FakeControl(answer=Authorization(AuthStatus.NOCREDIT, "no credit", ""))
        async with generating() as generator, linked(generator) as (link, heard):
            async with serving(refused) as port:
                counted = await generator.do("calls", port=port, calls=3, at_once=3, hold=0)
            await link.now_ms()  # what was sent before this answer has been heard
        return counted, heard

    counted, heard = asyncio.run(play())
    assert counted["statuses"] == {"NOCREDIT": 3}
    assert heard.answered == []
    assert heard.ended == []


def test_calls_that_are_up_are_listed_and_end_when_told() -> None:
    async def play() -> None:
        async with generating() as generator, linked(generator) as (link, heard):
            async with serving(FakeControl()) as port:
                held = await generator.do("calls", port=port, calls=2, at_once=1, hold=-1)
            assert held["up"] == 2
            await heard.counts(2, 0)
            channels = {channel.uniqueid: channel for channel in await link.channels()}
            assert len(channels) == 4
            for leg in heard.answered:
                assert channels[leg.caller_uniqueid].call_id == leg.call_id
                assert channels[leg.leg_uniqueid].leg_of == leg.call_id
                assert channels[leg.leg_uniqueid].answered_at_ms == leg.answered_at_ms
            assert await link.limit(channels[heard.answered[0].leg_uniqueid], 10)
            assert await link.hangup(heard.answered[0].caller_uniqueid)
            ended = await generator.do("end", talk_ms=60_000)
            assert ended["up"] == 0
            await heard.counts(2, 4)
            assert await link.channels() == []
            assert talk_times(heard)[-1] == 60_000

    asyncio.run(play())


def test_what_begins_late_is_counted_from_when_it_was_to_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The generator stands still for a second, and has then ten calls to begin that are late."""
    monkeypatch.syspath_prepend(GENERATOR.parent)
    load = importlib.import_module("load")
    clock = [100.0]
    monkeypatch.setattr(load.time, "monotonic", lambda: clock[0])
    with socket.create_server(("127.0.0.1", 0)) as listener, select.epoll() as poller:
        plan = load.Plan(port=listener.getsockname()[1], calls=10, rate=10, hold=0)
        playing = load.Load(plan, poller, {}, bytes, 1, 1_795_292_445)
        clock[0] += 0.95
        playing.turn()
        for _ in range(10):
            listener.accept()[0].close()
        while not playing.done:
            for fd, flags in poller.poll():
                playing.handle(fd, flags)
    outcome = playing.outcome
    assert sorted(outcome.latencies) == pytest.approx([0.05 + n / 10 for n in range(10)])
    assert outcome.late == pytest.approx(0.95)


def test_two_commands_at_once_are_a_fault() -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\n\n")
        writer.write(b'GET FULL VARIABLE "${AC_CALL}"\nEXEC MSet "AC_STATUS=ALLOWED"\n')
        await reader.readline()
        writer.close()

    async def play() -> dict[str, Any]:
        async with generating() as generator:
            server = await asyncio.start_server(hasty, "127.0.0.1", 0)
            async with server:
                port = server.sockets[0].getsockname()[1]
                return await generator.do("calls", port=port, calls=1, at_once=1, hold=0)

    assert "two commands at once" in asyncio.run(play())["faults"]


def test_a_storm_of_events_means_nothing_for_calls() -> None:
    """Events of no use, and attempts that fail: only what was up ends."""

    async def play() -> Heard:
        async with generating() as generator, linked(generator) as (_, heard):
            async with serving(FakeControl()) as port:
                await generator.do("calls", port=port, calls=1, at_once=1, hold=-1)
            await generator.do("blast", noise=1_000, attempts=300)
            await heard.counts(1, 2)
        return heard

    heard = asyncio.run(play())
    assert len(heard.answered) == 1
    leg = heard.answered[0].leg_uniqueid
    # The caller's attempt was answered; the leg dialled nobody.
    assert {event.dialstatus for event in heard.ended if event.uniqueid != leg} == {"ANSWER"}
    assert {event.dialstatus for event in heard.ended if event.uniqueid == leg} == {""}
