"""What runs on the simulated Asterisk's channels: dialplan/astcredit.conf, step by step.

`customer` is a call from its first to its last step. The carrier's leg that a customer transfers
blindly goes on alone and runs the same steps for itself.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Protocol

from simulation.agi_line import AgiLine
from simulation.asterisk import BUSY, CONGESTION, LOST, NO_ANSWER, NORMAL, Asterisk, Chan
from simulation.call_plans import Attempt, CallPlan, Finish

RING_SECONDS = 60.0
LIMIT_LATE = (0.001, 0.009)
"""Dial's limit cuts some milliseconds late."""
GOSUB_SECONDS = (0.002, 0.03)
"""Between the answer and the conversation Dial's U() runs on the leg."""
ABSOLUTE_SLACK = 0.5
"""The dialplan sets a timeout on the carrier's leg itself, a little behind Dial's limit: that one
belongs to the bridge and is gone after a transfer."""
MOST_TRIES = 20
CONSULT_SECONDS = 90.0

CAUSES = {"BUSY": BUSY, "NOANSWER": NO_ANSWER, "CONGESTION": CONGESTION, "CHANUNAVAIL": LOST}

_LIMIT = re.compile(r"L\(([0-9]+)")


class Observer(Protocol):
    """Who is told what the dialplan is about to do."""

    def told(self, chan: Chan, plan: CallPlan) -> None:
        """The channel has its answer to `authorize`."""

    def dials(self, chan: Chan, plan: CallPlan) -> None:
        """The channel dials a carrier with the call that it holds."""

    def done(self, call_id: str) -> None:
        """The channel dials no more with that call."""

    def reports(self, chan: Chan) -> None:
        """The channel is about to report how its call ended."""


@dataclass(slots=True)
class Bench:
    """What all dialplans share."""

    line: AgiLine
    observer: Observer
    consulted: float = 0.0


async def customer(node: Asterisk, plan: CallPlan, bench: Bench) -> None:
    """A customer's channel, from its first to its last step."""
    chan = node.create(f"PJSIP/{plan.account}", plan.account)
    chan.runs_dialplan = True
    await Dialplan(chan, bench).run(plan)


class Dialplan:
    """The steps of one channel."""

    def __init__(self, chan: Chan, bench: Bench, consulting: Consultation | None = None) -> None:
        self._chan = chan
        self._node = chan.node
        self._bench = bench
        self._chance = chan.node.chance
        self._consulting = consulting
        self._peer: Chan | None = None  # DIALEDPEERNAME: the leg that answered

    async def run(self, plan: CallPlan) -> None:
        """Call, perhaps another number after a failure, and hang up."""
        over = await self._place(plan)
        if not over and plan.again is not None and not self._chan.ended:
            await self._place(plan.again)
        await self._finish()

    async def _place(self, plan: CallPlan) -> bool:
        """One call; False when the dialplan goes on after it."""
        chan = self._chan
        chan.variables.update(AC_STATUS="", AC_CALL="", AC_OPTS="", AC_DIAL="")
        if plan.impatient:
            after = self._chance.between(0.0, 0.02)
            chan.set_timer("impatient", after)
        await self._bench.line.ask(chan, "authorize", plan.number, "", self._node.name)
        self._bench.observer.told(chan, plan)
        if chan.variables["AC_STATUS"] != "ALLOWED" or not chan.variables["AC_OPTS"]:
            if chan.variables["AC_STATUS"]:
                chan.variables["AC_REPORTED"] = chan.variables["AC_CALL"]
            return False
        call_id = chan.variables["AC_CALL"]
        try:
            answered = False if chan.ended else await self._try_routes(plan)
        finally:
            self._bench.observer.done(call_id)
        if answered or chan.ended:
            return True
        await self._report()
        chan.variables["AC_REPORTED"] = chan.variables["AC_CALL"]
        return False

    async def _try_routes(self, plan: CallPlan) -> bool:
        """Dial one route after the other; whether one answered."""
        values = self._chan.variables
        for tries in range(MOST_TRIES):
            attempt = plan.attempts[tries % len(plan.attempts)]
            status = await self._dial(plan, attempt)
            if status == "ANSWER" or self._chan.ended:
                return status == "ANSWER"
            if not values["AC_DIAL"] or status not in ("CHANUNAVAIL", "CONGESTION"):
                return False
            values.update(AC_STATUS="", AC_DIAL="")
            await self._bench.line.ask(self._chan, "next-route", self._node.name)
            if values["AC_STATUS"] != "ALLOWED" or not values["AC_DIAL"] or self._chan.ended:
                return False
        return False

    async def _dial(self, plan: CallPlan, attempt: Attempt) -> str:
        chan, node = self._chan, self._node
        self._bench.observer.dials(chan, plan)
        began = node.now_ms
        if attempt.unseen:
            await asyncio.sleep(attempt.ring)
            return self._dialled(attempt.status, began, None)
        leg = node.create("PJSIP/carrier", "", chan.linkedid)
        node.emit_dial("DialBegin", chan, leg)
        status = await self._ring(chan, leg, plan, attempt)
        if status == "ANSWER":
            await self._converse(leg, plan)
            return self._dialled(status, began, leg)
        node.emit_dial("DialEnd", chan, leg, DialStatus=status)
        node.end(leg, CAUSES.get(status, NORMAL))
        return self._dialled(status, began, leg)

    async def _ring(self, chan: Chan, leg: Chan, plan: CallPlan, attempt: Attempt) -> str:
        ring = min(attempt.ring, RING_SECONDS)
        await self._node.until((chan, leg), min(ring, plan.patience))
        if plan.patience < ring:
            self._node.soft_hangup(chan)
        if chan.ended:
            return "CANCEL"
        return "NOANSWER" if attempt.ring > RING_SECONDS else attempt.status

    def _dialled(self, status: str, began_ms: int, leg: Chan | None) -> str:
        """What Dial leaves in the channel's variables."""
        now_ms = self._node.now_ms
        answered_ms = leg.answered_ms if leg is not None else None
        talk_ms = 0 if answered_ms is None else now_ms - answered_ms
        self._chan.variables.update(
            DIALSTATUS=status,
            HANGUPCAUSE=str(CAUSES.get(status, NORMAL)),
            DIALEDTIME_MS=str(now_ms - began_ms),
            ANSWEREDTIME_MS=str(talk_ms),
        )
        return status

    async def _converse(self, leg: Chan, plan: CallPlan) -> None:
        """From the leg's answer until it is over for the caller."""
        chan, node = self._chan, self._node
        match = _LIMIT.search(chan.variables["AC_OPTS"])
        seconds = int(match[1]) // 1000 if match else 0
        node.answer(chan, leg, seconds)
        self._peer = leg
        leg.set_timer("limit", seconds + self._chance.between(*LIMIT_LATE))
        leg.set_timer("absolute", seconds + ABSOLUTE_SLACK)
        if chan.answered_ms is None:
            chan.answered_ms = node.now_ms + self._chance.whole(0, 2)
        await node.until((chan, leg), self._chance.between(*GOSUB_SECONDS))
        if not chan.ended and not leg.ended:
            node.join(chan, leg)
            await node.until((chan, leg), plan.talk)
        if not chan.ended and not leg.ended:
            await self._change(leg, plan)
        if not leg.transferred:
            node.soft_hangup(leg)
        elif leg.alive:
            leg.stop_timer("limit")

    async def _change(self, leg: Chan, plan: CallPlan) -> None:
        """The end of the conversation, if nobody else made one."""
        chan, node = self._chan, self._node
        if self._consulting is not None:
            self._consulting.connect(chan, leg)
        elif plan.finish is Finish.CALLEE or plan.then is None:
            node.soft_hangup(leg if plan.finish is Finish.CALLEE else chan)
        elif plan.finish is Finish.BLIND:
            self._transfer_blindly(leg, plan.then)
        else:
            await self._consult(leg, plan.then)

    def _transfer_blindly(self, leg: Chan, then: CallPlan) -> None:
        chan = self._chan
        chan.variables["BLINDTRANSFER"] = leg.name
        leg.transferred = leg.runs_dialplan = True
        leg.account, leg.bridge, leg.cdr_begun_ms = chan.account, "", self._node.now_ms
        self._node.spawn(Dialplan(leg, self._bench).run(then))
        self._node.soft_hangup(chan)

    async def _consult(self, leg: Chan, then: CallPlan) -> None:
        """The customer calls somebody else on a second line, to connect the two."""
        chan, node = self._chan, self._node
        second = node.create(f"PJSIP/{chan.account}", chan.account)
        second.runs_dialplan = True
        consultation = Consultation(chan, leg)
        node.spawn(Dialplan(second, self._bench, consultation).run(then))
        await node.until((chan, leg), CONSULT_SECONDS)
        node.soft_hangup(chan)

    async def _finish(self) -> None:
        """The hangup handler, and the end of the channel."""
        values = self._chan.variables
        if values.get("AC_CALL") and values["AC_CALL"] != values.get("AC_REPORTED"):
            await self._report()
        self._node.end(self._chan, int(values.get("HANGUPCAUSE") or NORMAL))

    async def _report(self) -> None:
        chan = self._chan
        talk_ms = 0 if chan.answered_ms is None else max(0, self._node.now_ms - chan.answered_ms)
        chan.variables["CDR(billsec,f)"] = f"{talk_ms // 1000}.{talk_ms % 1000:03}000"
        if self._peer is not None and self._peer.alive and self._peer.bridge:
            # It talks to somebody else: Asterisk tells by itself of blind transfers only.
            chan.variables["BLINDTRANSFER"] = self._peer.name
        self._bench.observer.reports(chan)
        await self._bench.line.report(chan)


class Consultation:
    """An attended transfer: both callees are connected, and the customer's two channels end."""

    def __init__(self, chan: Chan, leg: Chan) -> None:
        self._chan = chan
        self._leg = leg

    def connect(self, second: Chan, other: Chan) -> None:
        """Connect the callees, if the first one is still there; else there is nobody to talk to."""
        node = second.node
        if not self._chan.ended and not self._leg.ended:
            for leg in (self._leg, other):
                leg.transferred = True
                leg.stop_timer("limit")
                leg.bridge = f"t{other.uniqueid}"
                leg.linkedid = self._leg.linkedid  # that of the older story
            node.spawn(_together(node, self._leg, other))
            node.soft_hangup(self._chan)
        node.soft_hangup(second)


async def _together(node: Asterisk, one: Chan, other: Chan) -> None:
    """Two legs talk with each other until one of them ends; then the other does, too."""
    await node.until((one, other), node.chance.about(30))
    node.soft_hangup(one)
    await asyncio.sleep(node.chance.between(0.0, 0.01))
    node.soft_hangup(other)
