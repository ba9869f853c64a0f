"""From Asterisk's events to what is billed: which leg was answered for whom, and what ended.

The problem
-----------
What costs money is an answered outbound leg, from its answer to its own hangup. Asterisk tells
of it in three events, seen here as Asterisk 22 sends them. U is the channel that dials (the
caller's), D and E are channels that it dials (the carrier's). Every channel has a unique id.

An answered call. The two hangups come in either order:

    DialBegin  U→D
    DialEnd    U→D ANSWER          LegAnswered(U, D)
    Hangup     D  cause 16         ChannelEnded(D)      settles
    Hangup     U  cause 16         ChannelEnded(U)      nothing left to do

Busy (or CONGESTION, NOANSWER, CHANUNAVAIL; CANCEL when the caller gives up while it rings):

    DialBegin  U→D
    DialEnd    U→D BUSY
    Hangup     D  cause 17         nothing: D was not answered, and U may still try elsewhere
    Hangup     U  cause 17         ChannelEnded(U, BUSY, 17)      releases

Failover, one call on two routes: DialBegin U→D, DialEnd U→D CONGESTION, Hangup D cause 34,
then DialBegin U→E … as above. U is one call all the time; if E fails too, E tells why.

Two legs forked by Dial(D&E): two DialBegin, then `DialEnd U→D CANCEL` *before*
`DialEnd U→E ANSWER`, then Hangup D cause 26 (answered elsewhere).

Blind transfer: U is gone while D costs money, and D dials by itself.

    DialEnd    U→D ANSWER          LegAnswered(U, D)
    Hangup     U                   ChannelEnded(U)      settles nothing: U is no outbound leg
    DialBegin  D→E                 D is now a caller too
    DialEnd    D→E ANSWER          LegAnswered(D, E)
    Hangup     E                   ChannelEnded(E)      settles the call that D made
    Hangup     D                   ChannelEnded(D)      settles the call that U made

Attended transfer: U and V are calls of one telephone, to D and to E. Both U and V hang up in the
middle, D and E talk to one another and end when they end; there are no other events.

A Dial that finds no channel to dial (unknown trunk) sends no dial event at all: only the
caller's hangup, whose own cause then tells why.

Local channels
--------------
A Local channel is no carrier's leg. It has two ends, L1 (its name ends in `;1`), which is dialled,
and L2 (`;2`), where a dialplan runs that may dial in turn:

    DialBegin  U→L1
    DialBegin  L2→D                these two come in either order
    DialEnd    L2→D ANSWER
    DialEnd    U→L1 ANSWER         LegAnswered(U, D), answered when D was

So D is U's leg, unless L2 made a call of its own (it has its own AC_CALL): then that call has the
leg, LegAnswered(L2, D), and U's call has none; U ends as FORWARDED, which releases it. Through
several Local channels in a row D belongs to the nearest that made a call, or else to U. D counts
as answered for U when all between them have answered: of Dial(Local/a&Local/b) one does. L2 may
also answer first and dial later.

A carrier that redirects (SIP 302) leads to a Local channel, too: `DialEnd U→D CANCEL` with a header
Forward, then `DialBegin U→L1`.

When people talk Asterisk takes Local channels out of the way ("optimises" them, unless dialled with
`/n`): L1 and L2 hang up, U and D go on.

Where events do not tell AC_CALL (no `channelvars=AC_CALL` in manager.conf) L2 is taken to have made
a call of its own.

The rules
---------
Every Hangup is reported unless the channel is known to be a leg that was not answered: after
a restart this tracker knows nothing, but the database does, and finds whether it matters.
Nothing is kept for a channel after its Hangup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from astcredit.asterisk.dial_events import (
    ANSWER,
    Dial,
    Hangup,
    HeaderValue,
    TamperedError,
    call_variable,
    read_event,
)
from astcredit.domain.calls import ChannelEnded, LegAnswered

__all__ = ["FORWARDED", "HeaderValue", "LegTracker", "Seen", "call_variable"]

Seen = LegAnswered | ChannelEnded

FORWARDED: Final = "FORWARDED"
"""In place of ANSWER: whom a Local channel led to, another call pays for. Not a word of Dial's."""

MAX_TRACKED: Final = 100_000
"""Callers, legs and Local channels remembered at most. Far above what one Asterisk carries (some
thousands of channels); it only bounds memory, to some 50 MB, if hangups get lost for weeks."""

MOST_HOPS: Final = 50
"""Local channels in a row: a dialplan has two or three. It bounds what an event can cost."""

_V = TypeVar("_V")


class _Carrier(NamedTuple):
    """A carrier's leg that was answered."""

    uniqueid: str
    trunk: str
    answered_at_ms: int


@dataclass(slots=True)
class _Caller:
    """A channel that dials: how its newest attempt goes.

    `local` is the Local channel whose far end it is, `own_call` its AC_CALL (None: not told),
    `carrier` the leg at the end of the Local channels that answered, or its own.
    """

    dialed_at_ms: int | None
    local: str
    own_call: str | None = None
    call_id: str = ""
    dialstatus: str = ""
    cause: int = 0
    carrier: _Carrier | None = None

    @property
    def answered(self) -> bool:
        return self.dialstatus in (ANSWER, FORWARDED)


@dataclass(slots=True)
class _Leg:
    """A channel that is dialled. `dialstatus` is empty as long as it rings; `local` is the Local
    channel whose near end it is."""

    caller: str
    local: str
    dialstatus: str = ""


@dataclass(slots=True)
class _Local:
    """A Local channel: the unique ids of its ends, empty where not known or gone."""

    near: str = ""
    far: str = ""


class LegTracker:
    """Turns one Asterisk server's events, in their order, into answers and endings of legs.

    `node` is that server's name and stands in whatever is returned. No I/O, no clock.
    `tampered` counts the events that were not believed.
    """

    def __init__(self, node: str, max_tracked: int = MAX_TRACKED) -> None:
        self._node = node
        self._max_tracked = max_tracked
        self.tampered = 0
        self._callers: dict[str, _Caller] = {}
        self._legs: dict[str, _Leg] = {}
        self._locals: dict[str, _Local] = {}

    def feed(self, event: Mapping[str, HeaderValue], received_ms: int) -> list[Seen]:
        """Take the next event; return what it means for calls, often nothing.

        Header names are compared without regard to case. Times are Asterisk's own
        (`timestampevents=yes` in manager.conf), else `received_ms`, in ms since 1970.
        """
        try:
            read = read_event(event, received_ms)
        except TamperedError:
            self.tampered += 1
            return []
        if read is None:
            return []
        if isinstance(read, Hangup):
            return self._hangup(read)
        if not read.ended:
            self._dial_begin(read)
            return []
        return self._dial_end(read)

    def known(self) -> frozenset[str]:
        """Unique ids of all channels about which something is remembered."""
        ends = {end for local in self._locals.values() for end in (local.near, local.far) if end}
        return frozenset(self._callers) | frozenset(self._legs) | ends

    def forget(self, uniqueids: Iterable[str]) -> None:
        """Drop what is remembered of channels whose Hangup will not come any more."""
        gone = frozenset(uniqueids)
        for uniqueid in gone:
            self._callers.pop(uniqueid, None)
            self._legs.pop(uniqueid, None)
        for name, local in list(self._locals.items()):
            self._leave(name, local, gone)

    def doubt(self) -> None:
        """Nothing was heard for a time: an attempt that had failed may have been followed by one
        that did not."""
        for caller in self._callers.values():
            if not caller.answered:
                caller.dialstatus, caller.cause = "", 0

    # ---- the three events

    def _dial_begin(self, event: Dial) -> None:
        caller = self._callers.get(event.uniqueid)
        if caller is None or caller.answered:
            # After an answered attempt a new one belongs to another call of the channel.
            self._new_caller(event, event.at_ms)
        self._new_leg(event)

    def _dial_end(self, event: Dial) -> list[Seen]:
        uniqueid = event.uniqueid
        caller = self._callers.get(uniqueid)
        if caller is None:  # its DialBegin was before our time
            caller = self._new_caller(event, None)
        self._new_leg(event)
        if event.dialstatus != ANSWER:
            if not caller.answered:
                caller.dialstatus = event.dialstatus
            return []
        if event.near:
            return self._local_answered(uniqueid, caller, event.near)
        leg = _Carrier(event.leg, event.trunk, event.at_ms)
        return self._rise(uniqueid, leg)

    def _hangup(self, event: Hangup) -> list[Seen]:
        uniqueid, cause = event.uniqueid, event.cause
        leg = self._legs.get(uniqueid)
        if leg is not None and leg.dialstatus != ANSWER and cause:
            self._note_failure(leg.caller, cause)
        caller = self._drop(uniqueid)
        if leg is not None and leg.dialstatus not in ("", ANSWER) and caller is None:
            return []
        # How a leg itself was dialled says nothing of what it may have dialled unheard.
        dialstatus, dialed_at_ms = "", None
        if caller is not None:
            # The leg that failed knows why; the caller's own cause is a copy, if it is set.
            dialstatus, cause = caller.dialstatus, caller.cause or cause
            dialed_at_ms = caller.dialed_at_ms
        return [ChannelEnded(self._node, uniqueid, event.at_ms, cause, dialstatus, dialed_at_ms)]

    # ---- from the carrier's leg up to who pays for it

    def _rise(self, uniqueid: str, leg: _Carrier | None) -> list[Seen]:
        """The leg that `uniqueid` dialled is answered, and so goes to who dialled `uniqueid`, as
        far as all have answered. None: it is another call's leg."""
        for _ in range(MOST_HOPS):
            caller = self._callers.get(uniqueid)
            if caller is None:
                return []
            caller.carrier, caller.cause = leg, 0
            caller.dialstatus = ANSWER if leg else FORWARDED
            above = self._above(caller)
            if above is None:
                return [self._answered(uniqueid, caller, leg)] if leg else []
            if above.dialstatus != ANSWER:
                return []
            uniqueid = above.caller
        return []

    def _local_answered(self, uniqueid: str, caller: _Caller, name: str) -> list[Seen]:
        """The near end of a Local channel was answered for a caller: is there a leg behind it?"""
        caller.dialstatus, caller.cause, caller.carrier = ANSWER, 0, None
        local = self._locals.get(name)
        far = self._callers.get(local.far) if local is not None else None
        if far is None:
            return []
        if far.dialstatus == FORWARDED or _pays_itself(far, caller):
            return self._rise(uniqueid, None)
        if far.carrier is not None and far.carrier.uniqueid in self._legs:
            return self._rise(uniqueid, far.carrier)
        return []

    def _above(self, caller: _Caller) -> _Leg | None:
        """The near end of the Local channel through which somebody else dialled, and pays."""
        local = self._locals.get(caller.local)
        near = self._legs.get(local.near) if local is not None else None
        upper = self._callers.get(near.caller) if near is not None else None
        return None if upper is None or _pays_itself(caller, upper) else near

    def _note_forwarded(self, far: _Caller) -> None:
        """A far end makes a call of its own after it has answered for somebody."""
        local = self._locals.get(far.local)
        near = self._legs.get(local.near) if local is not None else None
        if near is None or near.dialstatus != ANSWER:
            return
        upper = self._callers.get(near.caller)
        if upper is not None and upper.carrier is None and _pays_itself(far, upper):
            self._rise(near.caller, None)

    def _note_failure(self, uniqueid: str, cause: int) -> None:
        for _ in range(MOST_HOPS):
            caller = self._callers.get(uniqueid)
            if caller is None or caller.answered:
                return
            caller.cause = cause
            above = self._above(caller)
            if above is None or above.dialstatus == ANSWER:
                return
            uniqueid = above.caller

    def _answered(self, uniqueid: str, caller: _Caller, leg: _Carrier) -> LegAnswered:
        return LegAnswered(
            node=self._node,
            caller_uniqueid=uniqueid,
            leg_uniqueid=leg.uniqueid,
            answered_at_ms=leg.answered_at_ms,
            call_id=caller.call_id,
            trunk=leg.trunk,
            dialed_at_ms=caller.dialed_at_ms,
        )

    # ---- memory

    def _new_caller(self, event: Dial, dialed_at_ms: int | None) -> _Caller:
        caller = _Caller(dialed_at_ms, event.far)
        self._remember(self._callers, event.uniqueid, caller)
        return caller

    def _new_leg(self, event: Dial) -> None:
        """Note a leg, or what became of it, and what the event tells of its caller."""
        uniqueid, near = event.uniqueid, event.near
        caller = self._callers[uniqueid]
        caller.own_call, caller.call_id = event.own_call, event.call_id
        self._remember(self._legs, event.leg, _Leg(uniqueid, near, event.dialstatus))
        if near:
            self._local(near).near = event.leg
        if caller.local:
            self._local(caller.local).far = uniqueid
            self._note_forwarded(caller)

    def _local(self, name: str) -> _Local:
        if name not in self._locals:
            self._remember(self._locals, name, _Local())
        return self._locals[name]

    def _drop(self, uniqueid: str) -> _Caller | None:
        caller, leg = self._callers.pop(uniqueid, None), self._legs.pop(uniqueid, None)
        for name in (caller.local if caller else "", leg.local if leg else ""):
            if name in self._locals:
                self._leave(name, self._locals[name], {uniqueid})
        return caller

    def _leave(self, name: str, local: _Local, gone: Iterable[str]) -> None:
        """Some ends of a Local channel have hung up."""
        local.near = "" if local.near in gone else local.near
        local.far = "" if local.far in gone else local.far
        if not local.near and not local.far:
            del self._locals[name]

    def _remember(self, where: dict[str, _V], key: str, value: _V) -> None:
        where[key] = value
        if len(where) > self._max_tracked:
            del where[next(iter(where))]  # the oldest: its hangup is the likeliest to be lost


def _pays_itself(far: _Caller, upper: _Caller) -> bool:
    """Whether the far end of a Local channel made another call than who dialled the channel.

    A variable that the dialplan lets Local channels inherit is the same call.
    """
    return far.own_call is None or (far.own_call != "" and far.own_call != upper.own_call)
