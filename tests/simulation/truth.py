"""What truly happened to the calls, and whether the books say the same.

The simulated Asterisk servers tell it everything at once, without any network between; the store
tells it of every commit. During the run it sees to it that nobody talks, or is about to talk, on
money that is not held. At the end it recomputes what each client must have paid.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from astcredit.domain.settlement import Settlement
from simulation.ami_line import Process
from simulation.asterisk import Chan, Event
from simulation.call_plans import CallPlan
from simulation.database import TRANSACTION_SECONDS
from simulation.store import Cdr, Store
from simulation.tariffs import Tariff, tariff_of
from simulation.world import EMERGENCY

SETTLED_WITHIN = 10.0
"""Seconds after its end in which a call that nothing has disturbed is on record."""
NEAR_MS = 10
"""By so much the caller's channel may be answered, and end, later than the leg."""
ENDED_WITHIN_MS = 5_000
"""A leg without a reservation, where nothing keeps a controller from seeing and ending it."""
FREE = Tariff("", 0)


@dataclass(slots=True)
class Hearing:
    """What controllers got to hear of an event: which life of which one, and when."""

    process: Process
    at: float


@dataclass(slots=True)
class TrueLeg:
    """An outbound leg that was answered, by Asterisk's clock."""

    uniqueid: str
    answered_ms: int
    answered_at: float
    ended_ms: int | None = None
    ended_at: float = 0.0
    heard_answer: list[Hearing] = field(default_factory=list)
    heard_end: list[Hearing] = field(default_factory=list)

    @property
    def talk_ms(self) -> int:
        assert self.ended_ms is not None
        return self.ended_ms - self.answered_ms


@dataclass(slots=True)
class TrueCall:
    """A call that a dialplan was allowed to make."""

    id: str
    node: str
    number: str
    seconds: int
    told_at: float
    in_use: bool
    torn: bool = False
    """The connection broke when Asterisk had taken the answer: the controller cannot know."""
    leg: TrueLeg | None = None
    over_at: float = 0.0
    caller_gone_at: float | None = None
    settled_at: float | None = None
    reported_ms: int | None = None
    least: int = 0
    """What an estimate must come to at least."""

    @property
    def emergency(self) -> bool:
        return self.number == EMERGENCY

    @property
    def tariff(self) -> Tariff:
        return FREE if self.emergency else tariff_of(self.number) or FREE


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Something went wrong that may keep an end from being heard; `node` empty: everywhere."""

    what: str
    begin: float
    end: float
    node: str


class Truth:
    """Knows what happened. `clock` is virtual time, `wrong` is told what must not be."""

    def __init__(
        self,
        store: Store,
        unlinked: Collection[str],
        faultless: bool,
        clock: Callable[[], float],
        wrong: Callable[[str], None],
    ) -> None:
        self.calls: dict[str, TrueCall] = {}
        self.unreserved: int = 0
        self._store = store
        self._unlinked = unlinked
        self._faultless = faultless
        self._clock = clock
        self._wrong = wrong
        self._legs: dict[str, TrueCall] = {}
        self._made: dict[str, list[TrueCall]] = {}
        self._torn: set[str] = set()
        self._disturbances: list[Disturbance] = []

    # --- what Asterisk says --------------------------------------------------------------------

    def told(self, chan: Chan, plan: CallPlan) -> None:
        """A dialplan has its answer."""
        values = chan.variables
        status, id = values["AC_STATUS"], values["AC_CALL"]
        if status == "ALLOWED" and values["AC_OPTS"]:
            seconds = int(values["AC_SECONDS"])
            call = TrueCall(id, chan.node.name, plan.number, seconds, self._clock(), not chan.ended)
            call.torn = id in self._torn
            self.calls[id] = call
            self._made.setdefault(chan.uniqueid, []).append(call)
        elif status and plan.emergency:
            self._wrong(f"emergency call {id} was answered {status}")
        elif self._faultless and not chan.ended and status in ("", "ERROR"):
            self._wrong(f"nothing is broken, and {id} was answered {values.get('AC_REASON')}")

    def tear(self, call_id: str) -> None:
        """The connection broke after the answer for a call was taken."""
        self._torn.add(call_id)
        if call_id in self.calls:
            self.calls[call_id].torn = True

    def dials(self, chan: Chan, plan: CallPlan) -> None:
        """A dialplan dials with a call: what it may cost must be held."""
        self._check_held(self.calls[chan.variables["AC_CALL"]], "is dialled")

    def done(self, call_id: str) -> None:
        """A dialplan does not dial with that call any more."""
        call = self.calls[call_id]
        call.in_use = False
        if call.leg is None:
            call.over_at = self._clock()

    def reports(self, chan: Chan) -> None:
        """A dialplan reports how its call ended."""
        call = self.calls.get(chan.variables["AC_CALL"])
        if call is not None and chan.variables.get("DIALSTATUS") == "ANSWER":
            seconds, _, fraction = chan.variables["CDR(billsec,f)"].partition(".")
            call.reported_ms = int(seconds) * 1000 + int(fraction[:3])

    def leg_answered(self, leg: Chan, call_id: str, seconds: int) -> None:
        """A carrier answered: from here on it costs money."""
        call = self.calls[call_id]
        if call.seconds != seconds:
            self._wrong(f"{call_id} was allowed {call.seconds} s, Dial was told {seconds}")
        call.leg = TrueLeg(leg.uniqueid, leg.node.now_ms, self._clock())
        self._legs[leg.uniqueid] = call
        self._check_held(call, "is answered")

    def leg_ended(self, leg: Chan) -> None:
        """A channel ended, a leg or a caller or both."""
        for made in self._made.pop(leg.uniqueid, ()):
            made.caller_gone_at = self._clock()
        call = self._legs.get(leg.uniqueid)
        if call is not None and call.leg is not None:
            call.leg.ended_ms = leg.node.now_ms
            call.leg.ended_at = call.over_at = self._clock()

    # --- what controllers get to hear ----------------------------------------------------------

    def heard(self, process: Process, event: Event) -> None:
        """An event has reached a controller."""
        if event["Event"] == "DialEnd" and event["DialStatus"] == "ANSWER":
            call = self._legs.get(str(event["DestUniqueid"]))
            if call is not None and call.leg is not None:
                call.leg.heard_answer.append(Hearing(process, self._clock()))
        elif event["Event"] == "Hangup":
            call = self._legs.get(str(event["Uniqueid"]))
            if call is not None and call.leg is not None:
                call.leg.heard_end.append(Hearing(process, self._clock()))

    def disturbed(self, what: str, seconds: float, node: str = "") -> None:
        """Something went wrong now, and will be mended in so many seconds."""
        now = self._clock()
        self._disturbances.append(Disturbance(what, now, now + seconds, node))

    # --- what the books do ---------------------------------------------------------------------

    def settled(self, settlement: Settlement) -> None:
        """A call was settled or released."""
        call = self.calls.get(settlement.call.call_id)
        if call is None:
            return
        call.settled_at = self._clock()
        leg = call.leg
        up = call.in_use if leg is None else leg.ended_ms is None
        by = settlement.ending.settled_by
        if up and not call.torn and not call.emergency:
            self._wrong(f"{call.id} was {settlement.state} by {by} while Asterisk goes on with it")
        if leg is not None:
            call.least = self._least(call, leg, settlement)

    def _least(self, call: TrueCall, leg: TrueLeg, settlement: Settlement) -> int:
        """What is surely due when the end was not heard: until it was last known to be up."""
        if settlement.ending.settled_by != "recovery" or settlement.answered_at_ms is None:
            return 0
        heard_ms = self._known_up_to(call.node)
        until_ms = min(heard_ms, leg.ended_ms or heard_ms)
        return call.tariff.price_of_ms(until_ms - leg.answered_ms, call.seconds)

    def _known_up_to(self, node: str) -> int:
        """Up to when all was on record for whatever transaction is committed now."""
        since, known = self._clock() - TRANSACTION_SECONDS, 0
        recent: list[int] = []
        for at, name, heard_ms in reversed(self._store.heard_log):
            if name == node:
                recent.append(heard_ms)
                if at < since:
                    known = min(recent)
                    break
        return known

    def _check_held(self, call: TrueCall, what: str) -> None:
        """Nobody talks on credit that is not there."""
        if call.emergency or call.torn:
            return
        held = self._store.open.get(call.id)
        most = call.tariff.price(call.seconds)
        if held is None or held.reserved < most:
            self._wrong(f"{call.id} {what}, may cost {most}, and that is not held: {held}")

    # --- the end -------------------------------------------------------------------------------

    def audit(self) -> None:
        """Compare every call with the books; to be asked when all calls are over."""
        for id, call in self.calls.items():
            cdr = self._store.cdrs.get(id)
            if cdr is None:
                if not call.emergency:
                    self._wrong(f"{id} was allowed and is not on record")
            elif call.leg is None:
                if cdr.status != "failed" and not cdr.estimated:
                    self._wrong(f"{id} was not answered and is {cdr}")
            else:
                self._audit_leg(call, call.leg, cdr)
            self._audit_delay(call)

    def _audit_leg(self, call: TrueCall, leg: TrueLeg, cdr: Cdr) -> None:
        if call.emergency:
            if cdr.price:
                self._wrong(f"emergency call {call.id} was charged: {cdr}")
            return
        if call.torn and cdr.settled_by == "undelivered":
            self._audit_torn(call, leg)
            return
        if cdr.status == "failed":
            self._audit_forgiven(call, leg, cdr)
        elif cdr.estimated:
            self._audit_estimate(call, leg, cdr)
        else:
            self._audit_price(call, leg, cdr)

    def _audit_torn(self, call: TrueCall, leg: TrueLeg) -> None:
        """Nobody can know of such a call before its leg answers; then it is ended at once."""
        if leg.talk_ms > ENDED_WITHIN_MS and not any(self._near(call)):
            self._wrong(f"{call.id} talked {leg.talk_ms} ms on money that was given back")

    def _audit_price(self, call: TrueCall, leg: TrueLeg, cdr: Cdr) -> None:
        """An end that was heard: exactly the price."""
        exact = cdr.settled_by == "ami" and cdr.answered_at_ms == leg.answered_ms
        near = 0 if exact else NEAR_MS
        talk_ms = leg.talk_ms
        low = call.tariff.price_of_ms(talk_ms - near, call.seconds)
        high = call.tariff.price_of_ms(talk_ms + near, call.seconds)
        if not low <= (cdr.price or 0) <= high:
            self._wrong(f"{call.id} talked {talk_ms} ms, due {low} to {high}, charged: {cdr}")

    def _audit_estimate(self, call: TrueCall, leg: TrueLeg, cdr: Cdr) -> None:
        if (cdr.price or 0) < call.least:
            self._wrong(f"{call.id} was surely due {call.least}: {cdr}")
        self._audit_unheard(call, leg, cdr)

    def _audit_forgiven(self, call: TrueCall, leg: TrueLeg, cdr: Cdr) -> None:
        if not cdr.estimated:
            self._wrong(f"{call.id} talked {leg.talk_ms} ms, was released and not marked: {cdr}")
        waits = any(found.what == "database" for found in self._near(call))
        if any(_kept(hearing) for hearing in leg.heard_answer) and not waits:
            self._wrong(f"the answer of {call.id} was heard, and it is free: {cdr}")
        self._audit_unheard(call, leg, cdr)

    def _audit_unheard(self, call: TrueCall, leg: TrueLeg, cdr: Cdr) -> None:
        """An end that is estimated: it must have been impossible to hear it."""
        if not any(self._disturbing(call)):
            self._wrong(f"nothing disturbed {call.id}, and its end is estimated: {cdr}")

    def _audit_delay(self, call: TrueCall) -> None:
        """Money is held no longer than the call and the trouble around its end last."""
        over_at = call.caller_gone_at if call.leg is None else call.over_at
        if call.settled_at is None or over_at is None or call.torn:
            return
        due = over_at + SETTLED_WITHIN
        for found in self._disturbances:
            if found.node in ("", call.node) and call.told_at <= found.end and found.begin <= due:
                due = max(due, found.end + SETTLED_WITHIN)
                if found.what in ("report", "asterisk") and call.node in self._unlinked:
                    return  # nobody else will ever tell
        if call.settled_at > due:
            late = call.settled_at - over_at
            self._wrong(f"{call.id} was settled {late:.0f} s after its end, due {due:.0f}")

    def _disturbing(self, call: TrueCall) -> Iterator[Disturbance]:
        """What may have kept the end of a call from being heard."""
        return filter(self._deafens, self._near(call))

    def _near(self, call: TrueCall) -> Iterator[Disturbance]:
        """What went wrong during a call or soon after it."""
        begin, end = call.told_at - 2.0, call.over_at + SETTLED_WITHIN
        for found in self._disturbances:
            near = found.begin <= end and found.end >= begin
            if near and found.node in ("", call.node):
                yield found

    def _deafens(self, found: Disturbance) -> bool:
        """A database in trouble only delays; a report that is lost matters where no link is."""
        if found.what == "report":
            return found.node in self._unlinked
        return found.what != "database"


def _kept(hearing: Hearing) -> bool:
    """Whether what a controller has heard was on record before it was killed."""
    body = hearing.process
    return body.alive or body.idle_at > hearing.at
