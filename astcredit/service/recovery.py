"""Finding out, after a time in which nobody listened, what became of the calls of a node.

On every (re)connect, and so on every start: the open calls of the node are read from the books,
**then** Asterisk is asked for all channels that live. Whatever was open when it was asked has a
channel in the list or is over; only a complete list says so, and a link that is down, slow or cut
says nothing. What the list shows:

    answered, its leg lives              adopted: its limit is set again, on the leg itself
    answered, its leg does not           gone: settled with the last instant it is known to be up
    not answered as far as was heard:
      a leg of it lives, with its caller
      or alone (transferred)             answered unheard: adopted
      the caller lives                   still being set up: its events will come
      nothing of it lives                gone: released, marked for the accountant

The calls' ends that were heard meanwhile wait in the same queue before these answers, and whoever
comes second finds nothing left to change. All times are by Asterisk's clock, for it is by that
clock that calls are answered and end: that of this machine may be off.
"""

from __future__ import annotations

import logging
from asyncio import sleep
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from astcredit.domain.calls import LegAnswered
from astcredit.domain.states import CallState
from astcredit.service.operations import Gone, NodeHeard, Operation
from astcredit.service.ports import LiveChannel, OpenOnNode, Peer

log = logging.getLogger(__name__)

LIMIT_SLACK_SECONDS = 2.0
"""A limit that is set again ends the call a little after Dial's own would have: where that still
works it comes first, with its warnings."""

GONE_AFTER_SECONDS = 1.0
"""A call that ends while the list is made has an end that somebody hears: this link, another
controller's, the dialplan's report. That one is exact and must be in the books first."""

UP = "Up"
LOCAL = "Local/"


class OpenCallsOfNodes(Protocol):
    """The books, as far as recovery reads them."""

    async def open_on(self, node: str) -> Sequence[OpenOnNode]:
        """The calls of a node that are open now. Raises StorageError."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found: calls adopted, answered unheard (adopted too), gone, and left alone."""

    adopted: int = 0
    answered: int = 0
    gone: int = 0
    waiting: int = 0


class Recovery:
    """Compares what is open with what lives. `submit` takes operations on the books, in order."""

    def __init__(self, books: OpenCallsOfNodes, submit: Callable[[Operation], object]) -> None:
        self._books = books
        self._submit = submit

    async def recover(self, node: str, peer: Peer) -> Recovered:
        """Bring the books of one node up to date with what lives on it.

        Raises AstcreditError when the books cannot be read, the list is not complete or the link is
        lost: then nothing was taken for gone, and it is to be tried again.
        """
        calls = await self._books.open_on(node)
        asked_at_ms = await peer.now_ms()
        channels = await peer.channels() if calls else ()
        legs = _Legs(calls, channels)
        living = [(call, leg) for call in calls if (leg := legs.of(call)) is not None]
        gone = [call for call in calls if legs.of(call) is None and not legs.is_set_up(call)]
        unheard = [call for call, _ in living if _is_unheard(call)]
        died = [
            call
            for call, leg in living
            if not await self._adopt(node, call, leg, peer, asked_at_ms)
        ]
        if gone or died:
            await sleep(GONE_AFTER_SECONDS)
        self._bury(gone, asked_at_ms)
        self.heard(node, asked_at_ms)
        self._bury(died, asked_at_ms)  # after that, for they were up when Asterisk was asked
        found = Recovered(
            adopted=len(living) - len(unheard),
            answered=len(unheard),
            gone=len(gone),
            waiting=len(calls) - len(living) - len(gone),
        )
        if calls:
            extra = {"action": "recovered", "node": node, "result": repr(found)}
            log.info("calls compared with Asterisk's channels", extra=extra)
        return found

    def heard(self, node: str, until_ms: int) -> None:
        """Note that all that happened on a node until then has been heard."""
        self._submit(NodeHeard(node, until_ms))

    async def _adopt(
        self, node: str, call: OpenOnNode, leg: LiveChannel, peer: Peer, asked_at_ms: int
    ) -> bool:
        """Let the call go on; False if its leg has ended since the list was made.

        The end of a leg that is not yet known to be a call's means nothing to the books. So that
        it is not overlooked, the leg is seen to live once more after it has been made known.
        """
        until_ms = call.until_ms
        if _is_unheard(call):
            # From now on it is billed as any other.
            answered_at_ms = await _answered_at_ms(peer, call, leg, asked_at_ms)
            self._submit(
                LegAnswered(node, call.uniqueid, leg.uniqueid, answered_at_ms, call.call_id)
            )
            until_ms = answered_at_ms + call.seconds * 1000
        if until_ms is None:
            return True
        left_seconds = max(0, until_ms - asked_at_ms) / 1000
        return await peer.limit(leg, left_seconds + LIMIT_SLACK_SECONDS)

    def _bury(self, calls: Sequence[OpenOnNode], asked_at_ms: int) -> None:
        for call in calls:
            self._submit(Gone(call.call_id, asked_at_ms))


class _Legs:
    """Which of the live channels of a node is the outbound leg of which open call."""

    def __init__(self, calls: Sequence[OpenOnNode], channels: Iterable[LiveChannel]) -> None:
        self._live: Mapping[str, LiveChannel] = {c.uniqueid: c for c in channels}
        self._callers = {call.uniqueid for call in calls}
        self._legs: dict[str, LiveChannel] = {}
        known = {call.leg_uniqueid for call in calls}
        free = [c for c in self._live.values() if _may_be_leg(c) and c.uniqueid not in known]
        self._free = sorted(free, key=_age)
        for call in self._by_certainty(calls):
            leg = self._find(call)
            if leg is not None:
                self._legs[call.call_id] = leg

    def of(self, call: OpenOnNode) -> LiveChannel | None:
        """The live outbound leg of a call, if it has one."""
        return self._legs.get(call.call_id)

    def is_set_up(self, call: OpenOnNode) -> bool:
        """Whether its caller lives and may still be waiting for an answer."""
        return call.state is CallState.OPEN and call.uniqueid in self._live

    def _by_certainty(self, calls: Sequence[OpenOnNode]) -> Iterable[OpenOnNode]:
        """Each leg is of one call: first those whose leg is known, then those with a caller, the
        newest first, for it talks in that one."""
        unknown = [call for call in calls if not call.leg_uniqueid]
        yield from (call for call in calls if call.leg_uniqueid)
        yield from (call for call in reversed(unknown) if call.uniqueid in self._live)
        yield from (call for call in unknown if call.uniqueid not in self._live)

    def _find(self, call: OpenOnNode) -> LiveChannel | None:
        if call.leg_uniqueid:
            return self._live.get(call.leg_uniqueid)
        leg = next((c for c in self._free if self._belongs(c, call)), None)
        if leg is not None:
            self._free.remove(leg)
        return leg

    def _belongs(self, channel: LiveChannel, call: OpenOnNode) -> bool:
        """Whether a channel of which nobody heard is a call's leg.

        The dialplan may have noted it there. Else a leg has its call's linkedid. With the caller,
        which makes no later call, it is in the same bridge, or both are in none, in the moment
        after the answer. A leg whose caller has gone may have become a caller itself: then it has
        joined a story that is older than it is.
        """
        if channel.leg_of:
            return channel.leg_of == call.call_id
        if channel.linkedid != call.linkedid or channel.uniqueid == call.uniqueid:
            return False
        caller = self._live.get(call.uniqueid)
        if caller is not None:
            if caller.call_id not in ("", call.call_id):
                return False
            return channel.bridge_id == caller.bridge_id and channel.uniqueid not in self._callers
        return channel.uniqueid not in self._callers or channel.uniqueid != channel.linkedid


def _is_unheard(call: OpenOnNode) -> bool:
    return call.state is CallState.OPEN or not call.leg_uniqueid


def _may_be_leg(channel: LiveChannel) -> bool:
    return channel.state == UP and not channel.name.startswith(LOCAL)


def _age(channel: LiveChannel) -> tuple[int, str]:
    """The oldest first."""
    return (-(channel.seconds or 0), channel.uniqueid)


async def _answered_at_ms(peer: Peer, call: OpenOnNode, leg: LiveChannel, asked_at_ms: int) -> int:
    answered_at_ms = leg.answered_at_ms or await peer.answered_at_ms(leg)
    if answered_at_ms is not None:
        return answered_at_ms
    if call.until_ms is not None:  # its caller reported it, by another clock than Asterisk's
        return min(asked_at_ms, call.until_ms - call.seconds * 1000)
    extra = {"action": "answer_unknown", "leg": leg.uniqueid}
    log.warning("time of an answer not known: taken from the leg's age", extra=extra)
    # That counts the ringing, too: not to the client's advantage, but never free.
    return asked_at_ms - (leg.seconds or 0) * 1000
