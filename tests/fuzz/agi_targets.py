"""AGI under fire: the parsers by themselves, and the FastAGI server behind a connection."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import count
from typing import Final

from astcredit.asterisk.agi import (
    HEADER_BYTES,
    HEADER_LINES,
    LINE_BYTES,
    AgiError,
    AgiReply,
    AgiRequest,
    HeaderParser,
    ReplyParser,
)
from astcredit.asterisk.fastagi import FastAgiServer, Limits, Outcome
from astcredit.asterisk.scripts import Scripts
from astcredit.domain.calls import CallRequest
from fuzz.fake_network import Connection, FakeNetwork, bytes_held
from fuzz.pieces import WHOLE_BYTES, cuts, demand, in_pieces, inflated, same_for_all_cuts
from support.agi_fakes import FakeControl
from support.fastagi_peer import Counts

MOST_COMPLAINT: Final = 300
"""Characters of an error's text: it goes into a log line, and quotes a stranger."""

SLACK_BYTES: Final = 4 * 1_024
"""Names of attributes, and what else an object holds besides what it was given."""

FLOOD_EVERY: Final = 512
"""One input in so many is repeated up to FLOOD_BYTES, and what the server holds is measured."""
FLOOD_BYTES: Final = 1_024 * 1_024
MOST_HELD: Final = 512 * 1_024
"""What one connection may hold: a block and a reply at their largest, and some pieces of 64 kB."""

LIMITS: Final = Limits()
PATIENCE: Final = LIMITS.total_seconds + 5

Parsed = tuple[AgiRequest | None, bytes, str]
"""A request, what follows it, or the name of the error; none of them while it goes on."""

_network = FakeNetwork()


def request_block(data: bytes) -> None:
    """`HeaderParser`: a request or an AgiError, and the same one however the bytes are cut."""
    request, _, _ = same_for_all_cuts(inflated(data), _request_of)
    if request is not None:
        demand(len(request.headers) <= HEADER_LINES, "more headers than the limit")
        values = list(request.headers.values())
        demand(all(len(value) <= 4 * LINE_BYTES for value in values), "a value above the limit")
        demand(not any("\n" in text for text in (*request.headers, *values)), "a line end in it")


def _request_of(pieces: Sequence[bytes]) -> Parsed:
    parser = HeaderParser()
    given = 0
    for number, piece in enumerate(pieces):
        given += len(piece)
        try:
            request = parser.feed(piece)
        except AgiError as error:
            _check_complaint(error)
            return None, b"", type(error).__name__
        if request is not None:
            return request, parser.rest + b"".join(pieces[number + 1 :]), ""
        demand(given <= HEADER_BYTES + HEADER_LINES, "it takes more than the limit")
    return None, b"", ""


def replies(data: bytes) -> None:
    """`ReplyParser`: replies or an AgiError, and the same ones however the bytes are cut."""
    same_for_all_cuts(inflated(data), _replies_of)


def _replies_of(pieces: Sequence[bytes]) -> tuple[list[AgiReply], bool, str]:
    """What is read, and the error's name. What a reply leaves behind is less than one line."""
    parser = ReplyParser()
    found: list[AgiReply] = []
    for piece in pieces:
        parser.feed(piece)
        try:
            while (reply := parser.next_reply()) is not None:
                found.append(reply)
        except AgiError as error:
            _check_complaint(error)
            return found, parser.hung_up, type(error).__name__
    demand(bytes_held(parser) <= LINE_BYTES + SLACK_BYTES, "an unfinished line above the limit")
    return found, parser.hung_up, ""


def _check_complaint(error: AgiError) -> None:
    text = str(error)
    demand(text.isprintable(), "control characters in an error's text")
    demand(len(text) <= MOST_COMPLAINT, "an error's text without an end")


# ---- the server


def connection(data: bytes) -> None:
    """A connection to the FastAGI server: its end has a name other than `failed`, comes in time,
    and nothing is held without bound.

    The first byte says how the rest is sent. Bit 0: a line for each command that the server sends,
    which is what Asterisk does, so that it must not matter how a line is cut; else all at once. Bit
    1: the peer closes at the end, or is silent.
    """
    manner, stream = (data[0], inflated(data[1:])) if data else (0, b"")
    if manner & 1:
        turns = _turns(stream)
        ends = [
            _network.play(lambda _, c=cut: _visit(c, manner))  # type: ignore[misc]
            for cut in zip(*(list(cuts(turn)) for turn in turns), strict=True)
        ]
        demand(all(end == ends[0] for end in ends), f"cut in another way it ends so: {ends}")
    else:
        for pieces in cuts(stream):
            _network.play(lambda _, c=pieces: _visit([c], manner))  # type: ignore[misc]
    if zlib.crc32(data) % FLOOD_EVERY == 0 and stream:
        _network.play(lambda _: _flood(stream))


def ends_of(data: bytes) -> dict[str, int]:
    """How the server ends a connection that sends these bytes, as `connection` sends them."""
    turns = [in_pieces(turn, WHOLE_BYTES) for turn in _turns(data[1:])]
    return _network.play(lambda _: _visit(turns, data[0]))[0]


def _turns(stream: bytes) -> list[bytes]:
    """The request block up to its empty line, then each line by itself."""
    blank = stream.find(b"\n\n")
    first = blank + 2 if blank >= 0 else len(stream)
    replies = stream[first:].splitlines(keepends=True)[:40]
    return [stream[:first], *replies] if first else [b""]


class _Site:
    """A server with a control that allows everything, and one connection to it."""

    def __init__(self, control: FakeControl) -> None:
        numbers = count(1)
        self.control = control
        self.counts = Counts()
        self.scripts = Scripts(
            control, new_call_id=lambda: f"call-{next(numbers)}", now_ms=lambda: 0
        )
        self.server = FastAgiServer(
            self.scripts, node_of=lambda _: "pbx1", limits=LIMITS, observer=self.counts
        )

    async def visited(self) -> Connection:
        await self.server.start("127.0.0.1", 0)
        return _network.arrive()


Visit = tuple[dict[str, int], list[bytes], list[CallRequest], list[str]]
"""Its ends, the commands that were sent, the questions that were asked, the calls abandoned."""


async def _visit(turns: Sequence[Sequence[bytes]], manner: int) -> Visit:
    site = _Site(FakeControl())
    peer = await site.visited()
    for turn in turns:
        for piece in turn:
            peer.deliver(piece)
        await _network.idle()
    if manner & 2:
        peer.end()
    began = _network.time()
    while not peer.closed and _network.time() < began + PATIENCE:
        await _let_time_pass()
    await _network.idle()
    demand(peer.closed, "the connection is never closed")
    await site.server.stop(0)
    outcomes = dict(site.counts.outcomes)
    demand(sum(outcomes.values()) == 1, f"a connection has {outcomes} ends")
    demand(Outcome.FAILED.value not in outcomes, "an error of this program")
    return outcomes, peer.commands(), site.control.requests, site.control.abandoned


async def _let_time_pass() -> None:
    waited = _network.create_future()
    _network.call_later(1.0, waited.set_result, None)
    await waited


async def _flood(stream: bytes) -> None:
    """The input again and again: refused, unread, or forgotten."""
    site = _Site(FakeControl())
    peer = await site.visited()
    again = stream * (FLOOD_BYTES // len(stream) + 1)
    for piece in in_pieces(again, WHOLE_BYTES):
        if peer.closed or peer.paused:
            break
        peer.deliver(piece)
        await _network.idle()
    held = bytes_held(peer.protocol, site.server)
    demand(held <= MOST_HELD, f"one connection holds {held:,} bytes")
    peer.end()
    await _network.idle()
    await site.server.stop(0)
