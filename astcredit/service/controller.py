"""The controller: what the dialplan asks and what Asterisk reports, brought to the books."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from astcredit.domain.calls import (
    Authorization,
    AuthStatus,
    CallRequest,
    ChannelEnded,
    Funds,
    HangupReport,
    LegAnswered,
)
from astcredit.domain.decisions import CAUSES, CallPolicy, Decision
from astcredit.domain.dialing import limit_option
from astcredit.domain.money import MICROS, amount_text
from astcredit.domain.settlement import Settlement
from astcredit.domain.states import CallState
from astcredit.service.batcher import Batcher
from astcredit.service.errors import StorageError, TransientError
from astcredit.service.operations import Changed, Expire, Operation, Outcome, Undelivered
from astcredit.service.ports import Books, CatalogSource

log = logging.getLogger(__name__)

# One sweep closes so many reservations that nobody ended; the next sweep takes the rest, so
# that a long outage does not come back as one endless transaction.
EXPIRED_AT_ONCE = 500

# What a postpaid client without a credit limit has available: a number that a dialplan can
# compare, larger than any balance can be.
UNLIMITED = 999_999_999_999 * MICROS


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
    ) -> None:
        self._batcher = batcher
        self._books = books
        self._catalog = catalog
        self._policy = policy
        self._answers = answers
        self._now_ms = now_ms
        self._observer = observer

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
            await asyncio.wait({future}, timeout=self._answers.deadline_seconds)
        except asyncio.CancelledError:
            self._give_up(request, future)
            raise
        # An answer that came together with the deadline is an answer: it is booked.
        if not future.done():
            future.cancel()
            raise TransientError("the database did not answer in time")
        try:
            outcome = future.result()
        except StorageError:
            raise
        except Exception as error:
            raise StorageError("the request could not be decided") from error
        assert isinstance(outcome, Decision)
        return outcome

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
            callerid=request.callerid,
            rate=decision.rate.rate_per_minute if decision.rate else 0,
            reserved=decision.reserved,
            available=available if available is not None else UNLIMITED,
            cause=CAUSES[decision.status],
        )

    def _fault(self, request: CallRequest, reason: str) -> Authorization:
        if self._policy.emergency_number(request.number):
            log.warning(
                "emergency call without a record",
                extra={"action": "emergency_unrecorded", "call_id": request.call_id},
            )
            decision = Decision(
                AuthStatus.ALLOWED, "emergency number", seconds=self._policy.max_seconds
            )
            return self._answer(request, decision)
        log.error(
            "call refused for a fault",
            extra={"action": "authorize_error", "call_id": request.call_id, "error": reason},
        )
        return Authorization(
            AuthStatus.ERROR, reason, request.call_id, cause=CAUSES[AuthStatus.ERROR]
        )

    def _options(self, seconds: int) -> str:
        return limit_option(seconds, self._answers.warn_seconds, self._answers.repeat_seconds)

    async def next_route(self, node: str, uniqueid: str, call_id: str) -> Authorization:
        """The next route of the same reservation: none, where there is no routing plan."""
        return Authorization(
            AuthStatus.NOROUTE,
            "the client has no routing plan",
            call_id,
            cause=CAUSES[AuthStatus.NOROUTE],
        )

    async def report_hangup(self, report: HangupReport) -> None:
        """Settle what the `h` extension reports, unless the AMI link of the call's node will.

        Returns after commit, or when the deadline is over; the report is booked all the same.
        """
        await asyncio.wait({self._submit(report)}, timeout=self._answers.deadline_seconds)

    async def funds(self, accountcode: str) -> Funds | None:
        """Balance and free funds of the account's client; None for an unknown account."""
        try:
            async with asyncio.timeout(self._answers.deadline_seconds):
                catalog = await self._catalog.at_least(await self._books.catalog_version())
                account = catalog.identify(accountcode)
                if account is None:
                    return None
                client = catalog.client_of(account)
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

    async def expire(self) -> int:
        """Close reservations past their last possible second; how many there were."""
        now_ms = self._now_ms()
        call_ids = await self._books.expired(now_ms, EXPIRED_AT_ONCE)
        for call_id in call_ids:
            self._submit(Expire(call_id, now_ms))
        return len(call_ids)

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
            for settlement in outcome.settled:
                self._observer.settled(settlement)
                _log_settlement(settlement)


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
    log.info(
        "call settled" if settlement.state is CallState.COMPLETED else "call released",
        extra={
            "action": "settled" if settlement.state is CallState.COMPLETED else "released",
            "call_id": settlement.call.call_id,
            "by": settlement.ending.settled_by,
            "billsec": settlement.billsec,
            "price": amount_text(settlement.price),
        },
    )
