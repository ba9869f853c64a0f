"""The manager interface under fire: a session and the tracker of legs, then a whole link."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from astcredit.asterisk.ami import AmiLink, AmiNode, LiveChannel
from astcredit.asterisk.ami_session import MAX_MESSAGE_BYTES, AmiError, AmiSession, AmiTimes
from astcredit.asterisk.legs import HeaderValue, LegTracker, Seen
from astcredit.domain.calls import ChannelEnded, LegAnswered
from fuzz.fake_network import Connection, FakeNetwork, bytes_held
from fuzz.pieces import WHOLE_BYTES, demand, in_pieces, inflated, same_for_all_cuts
from support.fake_ami import lines

NODE: Final = AmiNode("pbx1", "127.0.0.1", 5038, "astcredit", "s3cr3t")

MOST_TRACKED: Final = 40
"""Of a tracker in these tests: what is to be bounded has to be reached."""

FLOOD_EVERY: Final = 256
FLOOD_BYTES: Final = 4 * 1_024 * 1_024
MOST_HELD: Final = 3 * 1_024 * 1_024
"""What a session may hold: a message at its largest, an answer in parts, a queue of pieces."""

GREETING: Final = b"Asterisk Call Manager/11.0.0\r\n"
END: Final = b"\r\n\r\n"
_ACTION: Final = re.compile(rb"Action: ([A-Za-z]+)\r\n")
_ACTION_ID: Final = re.compile(rb"ActionID: ([^\r\n]+)\r\n")
_OPEN_LIST: Final = b"{id}"
"""In an input: the id of the action that waits for its list."""

_network = FakeNetwork()


def session(data: bytes) -> None:
    """`AmiSession`: events, lists and ends, and the same ones however the bytes are cut."""
    stream = inflated(data)
    same_for_all_cuts(stream, lambda pieces: _network.play(lambda _: _listen(pieces)))
    draw = zlib.crc32(data)
    if draw % FLOOD_EVERY == 0 and stream:
        # Half of them without an end of a message anywhere.
        endless = stream.replace(END, b" ") if draw & FLOOD_EVERY else stream
        _network.play(lambda _: _flood(endless))


async def _listen(pieces: Sequence[bytes]) -> object:
    events: list[Mapping[str, HeaderValue]] = []
    session = AmiSession(NODE, events.append, AmiTimes())
    peer = await _logged_in(session)
    listing = asyncio.ensure_future(session.request_list("CoreShowChannels"))
    await _network.idle()
    own = _ids(peer)[-1]
    # The id of an action is new each time, and as long as this.
    for piece in _with_id(pieces, own):
        peer.deliver(piece)
    await _network.idle()
    ended = session.reason if session.closed.is_set() else None
    strays = session.strays if ended is None else None  # after its end it may stop counting
    session.close()
    answer = await _outcome(listing)
    await _network.idle()
    return _neutral((_plain(events), _legs_of(events), strays, ended, answer), own)


def _legs_of(events: Iterable[Mapping[str, HeaderValue]]) -> object:
    """What the tracker makes of events. A session would take its errors for a broken message's."""
    tracker = LegTracker("pbx1", MOST_TRACKED)
    seen: list[Seen] = []
    for event in events:
        seen += tracker.feed(event, received_ms=1_000)
        demand(len(tracker.known()) <= 4 * MOST_TRACKED, "the tracker remembers all")
    return seen, tracker.tampered


def _plain(messages: Iterable[Mapping[str, HeaderValue]]) -> list[dict[str, HeaderValue]]:
    return [{name.lower(): value for name, value in message.items()} for message in messages]


async def _logged_in(session: AmiSession) -> Connection:
    opening = asyncio.ensure_future(session.open())
    await _network.idle()
    peer = _network.connection
    assert peer is not None
    peer.deliver(GREETING + _success(_ids(peer)[-1]))
    await opening
    return peer


async def _outcome(listing: asyncio.Future[list[Mapping[str, HeaderValue]]]) -> object:
    """The items of a list, or the name of the error."""
    try:
        items = await listing
    except AmiError as error:
        demand(len(str(error)) <= 2 * MAX_MESSAGE_BYTES, "an error's text without an end")
        return type(error).__name__
    return _plain(items)


def _ids(peer: Connection) -> list[bytes]:
    """The ids of the actions that were sent."""
    return _ACTION_ID.findall(peer.written)


def _success(action_id: bytes) -> bytes:
    return b"Response: Success\r\nActionID: " + action_id + b"\r\nMessage: ok\r\n\r\n"


def _with_id(pieces: Sequence[bytes], own: bytes) -> list[bytes]:
    """The pieces with the open action's id in its places; a place that is cut stays what it is in
    all of them, so it is put in before and the pieces are cut where they were."""
    whole = b"".join(pieces)
    if _OPEN_LIST not in whole:
        return list(pieces)
    return in_pieces(whole.replace(_OPEN_LIST, own), max(1, max(map(len, pieces))))


def _neutral(result: object, own: bytes) -> str:
    """As text, without the id."""
    return repr(result).replace(own.decode(), _OPEN_LIST.decode())


async def _flood(stream: bytes) -> None:
    """The input again and again: refused, unread, or forgotten."""

    def forget(_: object) -> None:
        """What a session says, nobody keeps."""

    session = AmiSession(NODE, forget, AmiTimes())
    peer = await _logged_in(session)
    again = stream * (FLOOD_BYTES // len(stream) + 1)
    for piece in in_pieces(again, WHOLE_BYTES):
        if peer.closed or peer.paused:
            break
        peer.deliver(piece)
        await _network.idle()
    held = bytes_held(peer.protocol, session)
    demand(held <= MOST_HELD, f"a session holds {held:,} bytes")
    session.close()
    await _network.idle()


# ---- the link


def link(data: bytes) -> None:
    """`AmiLink` with an Asterisk that answers well until the link is up, and then sends this: what
    it tells of calls, of itself and of channels is the same however the bytes are cut."""
    same_for_all_cuts(inflated(data), lambda pieces: _network.play(lambda _: _follow(pieces)))


@dataclass(slots=True)
class _Calls:
    """What a link told of legs."""

    told: list[LegAnswered | ChannelEnded] = field(default_factory=list)

    def leg_answered(self, event: LegAnswered) -> None:
        self.told.append(event)

    def channel_ended(self, event: ChannelEnded) -> None:
        self.told.append(event)


async def _follow(pieces: Sequence[bytes]) -> object:
    calls = _Calls()
    link = AmiLink(NODE, calls, lambda: 1_795_299_000_000)
    await link.start()
    await _network.idle()
    peer = _network.connection
    assert peer is not None
    peer.deliver(GREETING)
    await _answer_until(peer, link)
    listing = asyncio.ensure_future(link.channels())
    await _network.idle()
    own = _ids(peer)[-1]
    for piece in _with_id(pieces, own):
        peer.deliver(piece)
    await _network.idle()
    up, reason = link.up, link.state.reason
    await link.stop()
    channels = await _result(listing)
    await _network.idle()
    return _neutral((calls.told, up, reason, channels), own)


async def _answer_until(peer: Connection, link: AmiLink) -> None:
    """Answer what a link asks before it is up."""
    answered = 0
    while not link.up:
        asked = list(zip(_ACTION.findall(peer.written), _ids(peer), strict=True))
        demand(len(asked) > answered, "the link asks nothing and is not up")
        for action, action_id in asked[answered:]:
            listing = action == b"CoreShowChannels"
            peer.deliver(_empty_list(action_id) if listing else _success(action_id))
        answered = len(asked)
        await _network.idle()


def _empty_list(action_id: bytes) -> bytes:
    ours = f"ActionID: {action_id.decode()}"
    begin = lines("Response: Success", ours, "EventList: start", "Message: Channels will follow")
    end = ("Event: CoreShowChannelsComplete", ours, "EventList: Complete", "ListItems: 0")
    return begin + lines(*end)


async def _result(listing: asyncio.Future[list[LiveChannel]]) -> object:
    try:
        return await listing
    except AmiError as error:
        return type(error).__name__
