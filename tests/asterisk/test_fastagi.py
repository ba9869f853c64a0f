"""The FastAGI server over real sockets: calls, many at once, errors of its own, its end.

Times are limits that a silent peer always reaches, or far beyond what a test can take: nothing
here depends on the speed of the machine.
"""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from dataclasses import replace

import pytest
from panoramisk.fast_agi import Application

from astcredit.asterisk.fastagi import FastAgiServer, Limits, is_allowed, plain_address
from astcredit.asterisk.scripts import Scripts
from support.agi_fakes import ALLOWED, FakeChannel, FakeControl, header_block
from support.fake_transport import FakeTransport
from support.fastagi_peer import PATIENT, Counts, Served, Writer, serving, up_to_the_answer


def test_a_call_is_authorized_over_a_socket() -> None:
    async def scenario() -> None:
        async with serving() as served:
            channel = await served.call()
            assert channel.variables["AC_STATUS"] == "ALLOWED"
            assert channel.variables["AC_OPTS"] == ALLOWED.options
            assert served.control.requests[0].node == "pbx1"
            assert served.counts.outcomes == {"done": 1}
            assert served.counts.scripts == {"authorize": 1}

    asyncio.run(scenario())


def test_every_script_is_served_and_a_wrong_name_is_told() -> None:
    async def scenario() -> None:
        async with serving() as served:
            for script in [*Scripts.NAMES, "authorise"]:
                await served.call(script)
            assert served.counts.outcomes == {"done": 4, "unknown_script": 1}
            assert served.counts.scripts == {**dict.fromkeys(Scripts.NAMES, 1), "": 1}

    asyncio.run(scenario())


def test_addresses_that_are_not_allowed_are_closed_unheard() -> None:
    async def scenario() -> None:
        async with serving(allow=(ipaddress.ip_network("10.0.0.0/8"),)) as served:
            peer = await served.connect()
            assert await peer.closed() == b""
            await served.counts.wait_for("not_allowed")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("192.168.0.1", False),
        ("fd00::1", True),
        ("fe80::1", False),
        ("", False),
        ("/run/socket", False),
    ],
)
def test_networks_decide_who_is_allowed(address: str, allowed: bool) -> None:
    networks = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    assert is_allowed(address, networks) is allowed


def test_more_connections_than_allowed_are_closed() -> None:
    async def scenario() -> None:
        async with serving(limits=Limits(connections=2)) as served:
            first, second = await served.connect(), await served.connect()
            third = await served.connect()
            assert await third.closed() == b""
            await served.counts.wait_for("too_many")
            first.close()
            await served.counts.wait_for("closed_early")
            assert (await served.call()).variables["AC_STATUS"] == "ALLOWED"
            second.close()

    asyncio.run(scenario())


def test_a_slow_peer_and_a_hanging_call_delay_nobody() -> None:
    """200 calls are answered while one request is half sent; then it has its answer too."""

    async def scenario() -> None:
        async with serving() as served:
            slow = await served.connect()
            block = header_block("authorize", accountcode="slow")
            slow.send(block[:40])
            channels = await asyncio.gather(*(served.call() for _ in range(200)))
            assert {channel.variables["AC_STATUS"] for channel in channels} == {"ALLOWED"}
            assert len({channel.variables["AC_CALL"] for channel in channels}) == 200
            slow.send(block[40:])
            channel = await slow.play(FakeChannel())
            assert channel.variables["AC_STATUS"] == "ALLOWED"
            assert served.control.requests[-1].accountcode == "slow"
            assert served.control.abandoned == []

    asyncio.run(scenario())


def test_a_request_that_comes_byte_by_byte_is_served() -> None:
    async def scenario() -> None:
        async with serving() as served:
            peer = await served.connect()
            for byte in header_block("authorize", callerid="\udcff"):
                peer.send(bytes([byte]))
                await peer.writer.drain()
                await asyncio.sleep(0)
            assert (await peer.play(FakeChannel())).variables["AC_STATUS"] == "ALLOWED"
            assert served.control.requests[0].callerid == "\\xff"

    asyncio.run(scenario())


def test_a_caller_id_of_ten_thousand_characters_is_served() -> None:
    async def scenario() -> None:
        async with serving() as served:
            peer = await served.connect()
            hostile = '"\\${X}|,(' * 1_200
            peer.send(header_block("authorize", callerid=hostile, calleridname=hostile))
            assert (await peer.play(FakeChannel())).variables["AC_STATUS"] == "ALLOWED"
            assert served.control.requests[0].callerid == hostile

    asyncio.run(scenario())


# Errors of our own


def test_an_exception_is_counted_and_told_and_the_next_call_is_served() -> None:
    async def scenario() -> None:
        control = FakeControl(error=RuntimeError("bug"))
        async with serving(control) as served:
            assert (await served.call()).variables["AC_STATUS"] == "ERROR"
            assert served.counts.outcomes == {"failed": 1}
            control.error = None
            assert (await served.call()).variables["AC_STATUS"] == "ALLOWED"

    asyncio.run(scenario())


def test_an_error_of_the_server_itself_ends_one_connection() -> None:
    def no_node(address: str) -> str:
        raise KeyError(address)

    async def scenario() -> None:
        counts = Counts()
        scripts = Scripts(FakeControl(), new_call_id=lambda: "c", now_ms=lambda: 0)
        server = FastAgiServer(scripts, node_of=no_node, observer=counts)
        await server.start("127.0.0.1", 0)
        peer = await Served(server, FakeControl(), counts).connect()
        peer.send(header_block("authorize"))
        assert await peer.closed() == b""
        assert counts.outcomes == {"failed": 1}
        await server.stop(0)

    asyncio.run(scenario())


def test_a_control_that_hangs_is_an_error_in_time() -> None:
    async def scenario() -> None:
        control = FakeControl(gate=asyncio.Event())
        async with serving(control, answer_seconds=0.01) as served:
            assert (await served.call()).variables["AC_STATUS"] == "ERROR"
            assert control.gate is not None
            control.gate.set()
            await served.server.stop(60)
            assert control.abandoned == ["call-1"]

    asyncio.run(scenario())


# Stopping


def test_stop_finishes_what_is_under_way() -> None:
    async def scenario() -> None:
        control = FakeControl(gate=asyncio.Event())
        limits = replace(PATIENT, silent_seconds=0)  # it has asked: the moment is not for it
        async with serving(control, limits, answer_seconds=60) as served:
            port = served.server.port
            call = asyncio.create_task(served.call())
            await control.asked.wait()
            stopping = asyncio.create_task(served.server.stop(60))
            await asyncio.sleep(0)
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", port)
            assert control.gate is not None
            control.gate.set()
            await stopping
            assert (await call).variables["AC_STATUS"] == "ALLOWED"
            assert served.counts.outcomes == {"done": 1}
            assert control.abandoned == []

    asyncio.run(scenario())


def test_stop_does_not_wait_for_those_who_asked_nothing() -> None:
    async def scenario() -> None:
        limits = Limits(request_seconds=600, total_seconds=600, silent_seconds=0.01)
        async with serving(limits=limits) as served:
            peers = [await served.connect() for _ in range(5)]
            await served.call()  # those before it have been accepted, then
            await served.server.stop(600)
            assert served.counts.outcomes == {"done": 1, "stopped": 5}
            for peer in peers:
                assert await peer.closed() == b""

    asyncio.run(scenario())


def test_stop_cancels_after_its_grace_and_keeps_what_may_be_used() -> None:
    """The answer was sent and not acknowledged: Asterisk may make the call."""

    async def scenario() -> None:
        async with serving() as served:
            peer = await up_to_the_answer(served)
            await served.server.stop(0.01)
            assert served.counts.outcomes == {"stopped": 1}
            assert served.control.abandoned == []
            assert served.server.connections == 0
            peer.close()

    asyncio.run(scenario())


def test_a_server_that_does_not_listen_has_no_port() -> None:
    async def scenario() -> None:
        async with serving() as served:
            await served.server.stop(0)
            with pytest.raises(RuntimeError):
                _ = served.server.port

    asyncio.run(scenario())


# The flaw of panoramisk's loop, and many connections at once


class ClosedReader:
    """A stream whose peer has closed: read() returns nothing, at once, as asyncio's does.

    After `most` reads it raises, so that a loop that would never end shows itself.
    """

    most = 1_000

    def __init__(self, *sent: bytes) -> None:
        self._sent = list(sent)
        self.reads = 0

    async def read(self, size: int) -> bytes:
        self.reads += 1
        if self.reads > self.most:
            raise SpinningError
        return self._sent.pop(0) if self._sent else b""


class SpinningError(Exception):
    """Somebody reads a closed stream for ever, and nothing else in the loop ever runs."""


@pytest.mark.parametrize("sent", [(), (b"agi_network: yes\n",)])
def test_a_peer_that_closes_early_stops_panoramisk_and_not_us(sent: tuple[bytes, ...]) -> None:
    async def panoramisk(reader: ClosedReader) -> None:
        await Application(loop=asyncio.get_running_loop()).handler(reader, Writer())

    async def ours(transport: FakeTransport, counts: Counts) -> None:
        scripts = Scripts(FakeControl(), new_call_id=lambda: "c", now_ms=lambda: 0)
        server = FastAgiServer(scripts, node_of=lambda address: "pbx1", observer=counts)
        connection = server.accept()
        connection.connection_made(transport)
        for piece in sent:
            connection.data_received(piece)
        connection.eof_received()
        connection.connection_lost(None)

    with pytest.raises(SpinningError):
        asyncio.run(panoramisk(ClosedReader(*sent)))
    transport, counts = FakeTransport(), Counts()
    asyncio.run(ours(transport, counts))
    assert transport.closed
    assert counts.outcomes == {"closed_early": 1}


def test_a_thousand_silent_connections_cost_no_thread_and_no_task() -> None:
    async def scenario() -> None:
        async with serving() as served:
            threads, tasks = threading.active_count(), len(asyncio.all_tasks())
            for _ in range(1_000):
                served.server.accept().connection_made(FakeTransport())
            assert threading.active_count() == threads
            assert len(asyncio.all_tasks()) == tasks
            assert (await served.call()).variables["AC_STATUS"] == "ALLOWED"
            assert served.server.connections == 1_000
            await served.server.stop(0)
            assert served.counts.outcomes == {"done": 1, "stopped": 1_000}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("peername", "address"),
    [("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("fe80::1%eth0", "fe80::1")],
)
def test_a_node_is_looked_up_by_its_plain_address(peername: str, address: str) -> None:
    assert plain_address(peername) == address


@pytest.mark.parametrize(
    ("peername", "allowed"),
    [
        ("10.0.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        ("fe80::1%eth0", True),
        ("192.0.2.1", False),
        ("", False),
    ],
)
def test_an_address_is_the_same_however_the_system_writes_it(peername: str, allowed: bool) -> None:
    """IPv4 within IPv6 is IPv4, and a zone is no part of it; the second time as the first."""

    async def scenario() -> None:
        networks = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fe80::/10"))
        scripts = Scripts(FakeControl(), new_call_id=lambda: "c", now_ms=lambda: 0)
        server = FastAgiServer(scripts, node_of=lambda address: "pbx1", allow=networks)
        for _ in range(2):
            transport = FakeTransport(peername)
            server.accept().connection_made(transport)
            assert transport.closed is not allowed
        assert server.connections == (2 if allowed else 0)

    asyncio.run(scenario())


def test_two_servers_share_a_port() -> None:
    """Each of two processes listens on it; the kernel gives each connection to one of them."""

    async def scenario() -> None:
        scripts = Scripts(FakeControl(), new_call_id=lambda: "c", now_ms=lambda: 0)
        first, second = (
            FastAgiServer(scripts, node_of=lambda address: "pbx1", observer=Counts())
            for _ in range(2)
        )
        await first.start("127.0.0.1", 0, reuse_port=True)
        await second.start("127.0.0.1", first.port, reuse_port=True)
        assert second.port == first.port
        await first.stop(0)
        served = Served(second, FakeControl(), Counts())
        assert (await served.call()).variables["AC_STATUS"] == "ALLOWED"
        await second.stop(0)

    asyncio.run(scenario())


def test_a_port_is_not_shared_by_accident() -> None:
    async def scenario() -> None:
        async with serving() as served:
            scripts = Scripts(FakeControl(), new_call_id=lambda: "c", now_ms=lambda: 0)
            second = FastAgiServer(scripts, node_of=lambda address: "pbx1")
            with pytest.raises(OSError, match="in use"):
                await second.start("127.0.0.1", served.server.port)

    asyncio.run(scenario())
