"""The controller: what the dialplan asks and what Asterisk reports, brought to the books."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol

from astcredit.domain.calls import (
    Authorization,
    AuthStatus,
    CallRequest,
    ChannelEnded,
    Funds,
    HangupReport,
    LegAnswered,
    Origin,
    RouteRequest,
)
from astcredit.domain.decisions import CAUSES, CallPolicy, Decision
from astcredit.domain.dialing import limit_option
from astcredit.domain.money import MICROS, amount_text
from astcredit.domain.screening import identify
from astcredit.domain.settlement import Settlement
from astcredit.domain.states import CallEvent, CallState
from astcredit.service.batcher import Batcher
from astcredit.service.errors import StorageError, TransientError
from astcredit.service.operations import (
    Changed,
    Expire,
    Gone,
    NoFurtherRoute,
    Operation,
    Outcome,
    Rerouted,
    Undelivered,
)
from astcredit.service.ports import Books, CatalogSource

log = logging.getLogger(__name__)

# One sweep closes so many reservations that nobody ended; the next sweep takes the rest, so
# that a long outage does not come back as one endless transaction.
EXPIRED_AT_ONCE = 500

# Who closes calls of which Asterisk did not say that they are over: their Dial may go on.
UNTOLD = frozenset({"expiry", "recovery", "undelivered", "reconcile"})

# Reports that wait for the listener's word, at most: hours of calls, should it never come.
MOST_REPORTS = 10_000

# What a postpaid client without a credit limit has available: a number that a dialplan can
# compare, larger than any balance can be.
UNLIMITED = 999_999_999_999 * MICROS


class Legs(Protocol):
    """Who can end a leg on an Asterisk server."""

    async def end(self, node: str, uniqueid: str) -> None:
        """End it, if it is there; as soon as the server can be reached. Does not raise."""

    def look(self, node: str) -> None:
        """Compare the open calls of a server with what lives there, soon."""


class CallObserver(Protocol):
    """Told what becomes of calls, for metrics."""

    def authorized(self, status: AuthStatus, seconds: float) -> None: ...

    def settled(self, settlement: Settlement) -> None: ...


@dataclass(frozen=True, slots=True)
class AnswerPolicy:
    """How calls are answered to the dialplan.

    `deadline_seconds`: the longest that an answer may take; `warn_seconds` and
    `repeat_seconds`: when the caller is told that the time runs out (0: never).
    """

    deadline_seconds: float
    warn_seconds: int
    repeat_seconds: int


class Controller:
    """Authorizes and settles calls. One for each server process.

    Offers `CallControl` to the AGI scripts and `LegEvents` to the AMI listeners.
    """

    def __init__(
        self,
        batcher: Batcher,
        books: Books,
        catalog: CatalogSource,
        policy: CallPolicy,
        answers: AnswerPolicy,
        now_ms: Callable[[], int],
        observer: CallObserver,
        legs: Legs | None = None,
    ) -> None:
        self._batcher = batcher
        self._books = books
        self._catalog = catalog
        self._policy = policy
        self._answers = answers
        self._now_ms = now_ms
        self._observer = observer
        self._legs = legs
        self._background: set[asyncio.Task[None]] = set()
        self._reports: dict[str, HangupReport] = {}
        self._keep: Callable[[HangupReport], None] = self.keep_report

    def leave_reports_to(self, listener: Callable[[HangupReport], None]) -> None:
        """Another process listens: reports on calls whose end is for it to tell go there."""
        self._keep = listener

    async def authorize(self, request: CallRequest) -> Authorization:
        """Reserve the most that the call can cost; answers after commit, or with ERROR."""
        began = asyncio.get_running_loop().time()
        try:
            decision = await self._decided(request)
        except StorageError as error:
            answer = self._fault(request, str(error))
        else:
            answer = self._answer(request, decision)
        self._observer.authorized(answer.status, asyncio.get_running_loop().time() - began)
        return answer

    async def _decided(self, request: CallRequest) -> Decision:
        future = self._batcher.submit(request)
        try:
            outcome = await self._outcome(future)
        except asyncio.CancelledError:
            self._give_up(request, future)
            raise
        assert isinstance(outcome, Decision)
        return outcome

    async def _outcome(self, future: asyncio.Future[Outcome]) -> Outcome:
        """What comes of a question within the deadline. Raises StorageError."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        # An answer that came together with the deadline is an answer, it is booked: what is done
        # cannot be cancelled.
        deadline = loop.call_later(self._answers.deadline_seconds, future.cancel)
        try:
            return await future
        except StorageError:
            raise
        except asyncio.CancelledError:
            if task is not None and task.cancelling():
                raise  # nobody waits any more
            raise TransientError("the database did not answer in time") from None
        except Exception as error:
            raise StorageError("the request could not be decided") from error
        finally:
            deadline.cancel()

    def _give_up(self, request: CallRequest, future: asyncio.Future[Outcome]) -> None:
        """Nobody waits for the answer any more; if it is there already, it is given back."""
        if future.cancel() or future.cancelled() or future.exception():
            return
        outcome = future.result()
        if isinstance(outcome, Decision):
            self.orphaned(request, outcome)

    def _answer(self, request: CallRequest, decision: Decision) -> Authorization:
        available = decision.client.available if decision.client else 0
        return Authorization(
            status=decision.status,
            reason=decision.reason,
            call_id=request.call_id,
            seconds=decision.seconds,
            options=self._options(decision.seconds) if decision.allowed else "",
            dial=decision.route.dial if decision.route else "",
            callerid=decision.callerid,
            rate=decision.rate.rate_per_minute if decision.rate else 0,
            reserved=decision.reserved,
            available=available if available is not None else UNLIMITED,
            cause=CAUSES[decision.status],
            number=self._dialled(request, decision),
            payer=decision.account.name if decision.account else "",
        )

    def _dialled(self, request: CallRequest, decision: Decision) -> str:
        """The number to dial where the dialplan names the trunk."""
        rest = decision.identified.number if decision.identified else request.number
        # A tech prefix with which an emergency number begins is not taken off it.
        emergency = self._policy.emergency_number
        return emergency(request.number) or emergency(rest) or rest

    def _fault(self, request: CallRequest, reason: str) -> Authorization:
        if self._policy.emergency_number(request.number):
            log.warning(
                "emergency call without a record",
                extra={"action": "emergency_unrecorded", "call_id": request.call_id},
            )
            decision = Decision(
                AuthStatus.ALLOWED,
                "emergency number",
                callerid=request.callerid,
                seconds=self._policy.max_seconds,
            )
            return self._answer(request, decision)
        return self._failed(request.call_id, reason)

    def _failed(self, call_id: str, reason: str) -> Authorization:
        log.error(
            "call refused for a fault",
            extra={"action": "authorize_error", "call_id": call_id, "error": reason},
        )
        return _refused(AuthStatus.ERROR, reason, call_id)

    def _options(self, seconds: int) -> str:
        return limit_option(seconds, self._answers.warn_seconds, self._answers.repeat_seconds)

    async def next_route(self, request: RouteRequest) -> Authorization:
        """The next route of the same reservation; NOROUTE where there is none, or ERROR."""
        future = self._batcher.submit(request)
        try:
            outcome = await self._outcome(future)
        except asyncio.CancelledError:
            future.cancel()
            raise
        except StorageError as error:
            return self._failed(request.call_id, str(error))
        if isinstance(outcome, Rerouted):
            return self._rerouted(outcome)
        assert isinstance(outcome, NoFurtherRoute)
        return _refused(AuthStatus.NOROUTE, outcome.reason, request.call_id)

    def _rerouted(self, outcome: Rerouted) -> Authorization:
        call = outcome.call
        available = outcome.client.available
        return Authorization(
            status=AuthStatus.ALLOWED,
            reason="",
            call_id=call.call_id,
            seconds=call.seconds,
            options=self._options(call.seconds),
            dial=outcome.route.dial,
            callerid=call.callerid,
            rate=call.rate.rate_per_minute,
            reserved=call.reserved,
            available=available if available is not None else UNLIMITED,
        )

    async def report_hangup(self, report: HangupReport) -> None:
        """Settle what the `h` extension reports, unless the AMI link of the call's node will.

        Returns after commit, or when the deadline is over; the report is booked all the same.
        """
        await asyncio.wait({self._submit(report)}, timeout=self._answers.deadline_seconds)

    async def funds(self, origin: Origin, number: str = "") -> Funds | None:
        """Balance and free funds of the account's client; None for an unknown account."""
        try:
            async with asyncio.timeout(self._answers.deadline_seconds):
                catalog = await self._catalog.at_least(await self._books.catalog_version())
                found = identify(catalog, origin, number, self._policy.numbering)
                if found is None:
                    return None
                client = catalog.client_of(found.account)
                books = await self._books.client_books(client.id)
        except TimeoutError:
            raise TransientError("the database did not answer in time") from None
        available = books.available
        free = UNLIMITED if available is None else available
        return Funds(client.name, client.currency, books.balance, free)

    def abandon(self, call_id: str) -> None:
        """Release the call's reservation: the dialplan never got the answer."""
        self._submit(Undelivered(call_id, self._now_ms()))

    def orphaned(self, request: CallRequest, decision: Decision) -> None:
        """A request was committed after whoever asked had gone: give it back."""
        if decision.allowed and decision.client is not None:
            self.abandon(request.call_id)

    def leg_answered(self, event: LegAnswered) -> None:
        """An outbound leg was answered."""
        self._submit(event)

    def channel_ended(self, event: ChannelEnded) -> None:
        """A channel was hung up: settles or releases the call that it carried, if any."""
        self._submit(event)

    def submit(self, operation: Operation) -> None:
        """Take an operation that nobody waits for; it is booked as soon as that is possible."""
        if isinstance(operation, Gone):
            operation = replace(operation, report=self._reports.get(operation.call_id))
        self._submit(operation)

    async def expire(self) -> int:
        """Close reservations past their last possible second; how many there were."""
        now_ms = self._now_ms()
        call_ids = await self._books.expired(now_ms, EXPIRED_AT_ONCE)
        for call_id in call_ids:
            self._submit(Expire(call_id, now_ms))
        return len(call_ids)

    async def _end_unreserved(self, event: LegAnswered) -> None:
        """End a leg that was answered for a call that is over: nothing is held for it.

        Not one of a call that is not on record, nor one to an emergency number: those talk without
        a reservation and rightly so. Nor after a refusal or the reported failure of all attempts:
        what the dialplan dials then, perhaps a colleague or a hotline, is its own affair.
        """
        try:
            ended = await self._books.ended(event.call_id)
        except StorageError as error:
            extra = {"action": "unreserved_unknown", "error": str(error)}
            log.warning("call of an unreserved leg not read", extra=extra)
            return
        if ended is None or ended.settled_by not in UNTOLD:
            return
        if not self._policy.emergency_number(ended.number):
            self._end_leg(event.node, event.leg_uniqueid)

    def _end_expired(self, settlement: Settlement) -> None:
        """A call past its last second whose leg may still be up must not talk on for nothing."""
        call = settlement.call
        if settlement.ending.event is CallEvent.EXPIRE and call.leg_uniqueid:
            self._end_leg(call.node, call.leg_uniqueid)

    def _end_leg(self, node: str, leg_uniqueid: str) -> None:
        if self._legs is not None:
            self._in_background(self._legs.end(node, leg_uniqueid))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _submit(self, operation: Operation) -> asyncio.Future[Outcome]:
        future = self._batcher.submit(operation)
        future.add_done_callback(self._note)
        return future

    def _note(self, future: asyncio.Future[Outcome]) -> None:
        if future.cancelled() or future.exception():
            return  # the batcher has logged why
        outcome = future.result()
        if isinstance(outcome, Changed):
            if outcome.unreserved is not None:
                _log_unreserved(outcome.unreserved)
                self._in_background(self._end_unreserved(outcome.unreserved))
            if outcome.left is not None:
                self._keep(outcome.left)
            if outcome.unclear and self._legs is not None:
                self._legs.look(outcome.unclear)
            for settlement in outcome.settled:
                self._reports.pop(settlement.call.call_id, None)
                self._observer.settled(settlement)
                _log_settlement(settlement)
                self._end_expired(settlement)

    def keep_report(self, report: HangupReport) -> None:
        """Should the listener turn out to have been deaf, it tells how long the call was.

        The oldest are forgotten once there are MOST_REPORTS.
        """
        self._reports[report.call_id] = report
        if len(self._reports) > MOST_REPORTS:
            del self._reports[next(iter(self._reports))]


def _refused(status: AuthStatus, reason: str, call_id: str) -> Authorization:
    return Authorization(status, reason, call_id, cause=CAUSES[status])


def _log_unreserved(event: LegAnswered) -> None:
    """People talk on money that is not held: the call was over for us, and Asterisk went on."""
    log.error(
        "leg answered without a reservation",
        extra={
            "action": "answered_unreserved",
            "call_id": event.call_id,
            "node": event.node,
            "leg": event.leg_uniqueid,
        },
    )


def _log_settlement(settlement: Settlement) -> None:
    if not log.isEnabledFor(logging.INFO):
        return
    completed = settlement.state is CallState.COMPLETED
    log.info(
        "call settled" if completed else "call released",
        extra={
            "action": "settled" if completed else "released",
            "call_id": settlement.call.call_id,
            "by": settlement.ending.settled_by,
            "billsec": settlement.billsec,
            "price": amount_text(settlement.price),
        },
    )
