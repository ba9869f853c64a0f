"""The AGI scripts: what a dialplan asks, in FastAGI and classic AGI alike.

    authorize[,NUMBER[,ACCOUNT[,NODE[,SOURCE[,LINKEDID]]]]]
                         before Dial: may this call be made, how long?
    next-route[,NODE]    after a failed attempt: the next route
    hangup[,NODE]        in `h`: what became of the call
    balance[,ACCOUNT]    AC_BALANCE and AC_AVAILABLE

An argument that is empty or missing has its default: the channel's extension, the account that is
recognised, the node that the connection comes from, the address from which the signalling of a
PJSIP channel came, the channel's own LINKEDID. The last two Asterisk has to be asked for, which
takes a round trip.

**The caller waits.** Whatever `CallControl` does, the dialplan has its answer within
ANSWER_SECONDS, AC_STATUS=ERROR if there is no other. A question that is given up is not cancelled
(its transaction may commit at any moment) but watched: if it is allowed after all, the
reservation is abandoned. So it is if Asterisk ends the connection before it has taken an allowed
call's answer. Each call is abandoned at most once.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from astcredit.asterisk.agi import AgiError, AgiHungUp, AgiPeerGone, AgiRequest
from astcredit.asterisk.dial_results import (
    HANGUP_VARIABLES,
    ROUTE_VARIABLES,
    call_id_of,
    cause_of,
    dialstatus_of,
    hangup_report,
)
from astcredit.asterisk.variables import UnsafeValue, clean_number, clean_text, exact
from astcredit.domain.calls import (
    Authorization,
    AuthStatus,
    CallRequest,
    Origin,
    RouteRequest,
    endpoint_of,
)
from astcredit.domain.money import amount_text
from astcredit.domain.records import record
from astcredit.domain.text import printable
from astcredit.service.errors import AstcreditError, StorageError
from astcredit.service.ports import CallControl

ANSWER_SECONDS = 1.9
"""How long a dialplan waits at most: the two seconds that a caller is promised, less a tenth for
the round trips to Asterisk (0.3 ms each) on a busy machine."""

CANCEL_SECONDS = 1.0
"""How long a cancelled question may take to end: it does so at once unless it is stuck."""

ERROR_CAUSE = 38
"""Q.850 network out of order: the call failed for a reason that is ours."""

LINKEDID = "CHANNEL(linkedid)"
SOURCE = "CHANNEL(pjsip,remote_addr)"
"""Where the signalling really came from, as ADDRESS:PORT: no header of the caller's. Asterisk
knows it of PJSIP channels only, and complains about others."""
PJSIP = "PJSIP/"
NEXT_ROUTE = "next-route"
_NODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)

_log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")


class AgiSession(Protocol):
    """The channel whose dialplan runs the script."""

    @property
    def hung_up(self) -> bool:
        """Asterisk has told that the channel is hung up."""

    async def get_variables(self, names: Sequence[str]) -> dict[str, str]:
        """The values of channel variables and functions; empty if not set. Raises AgiError."""

    async def set_variables(self, values: Mapping[str, str]) -> None:
        """Set all, and return when Asterisk has said that it did. Raises AgiError."""


class ScriptFailed(AstcreditError):  # noqa: N818 - an outcome, the cause is chained
    """A script met an error of this program; the dialplan was told ERROR if it asked."""


class UnknownScript(AstcreditError):  # noqa: N818 - an outcome
    """There is no script of that name; AC_STATUS is ERROR and AC_REASON says so."""


class Scripts:
    """Runs the scripts against a `CallControl`. One object serves all connections.

    `new_call_id` makes the id of a call, `now_ms` is the clock (UTC), `answer_seconds` how long
    a dialplan waits at most.
    """

    NAMES = ("authorize", "next-route", "hangup", "balance")

    def __init__(
        self,
        control: CallControl,
        *,
        new_call_id: Callable[[], str],
        now_ms: Callable[[], int],
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._control = control
        self._new_call_id = new_call_id
        self._now_ms = now_ms
        self._answer_seconds = answer_seconds
        self._late: set[asyncio.Future[Any]] = set()
        self._scripts = {
            "authorize": self._authorize,
            "next-route": self._next_route,
            "hangup": self._hangup,
            "balance": self._balance,
        }

    @property
    def late(self) -> int:
        """Questions that were given up and are not yet known to have ended."""
        return len(self._late)

    async def run(self, request: AgiRequest, session: AgiSession, node: str) -> None:
        """Run the script that `request` names; `node` is where the connection comes from.

        Raises AgiError when the channel cannot be reached, ScriptFailed for an error of ours,
        UnknownScript. When a question was asked it has been answered, if that is possible.
        """
        script = self._scripts.get(request.script)
        if script is None:
            await session.set_variables(_unknown_variables(request.script))
            raise UnknownScript(printable(request.script))
        deadline = asyncio.get_running_loop().time() + self._answer_seconds
        try:
            await script(_Visit(request, session, node, deadline))
        except (AgiError, ScriptFailed):
            raise
        except Exception as error:
            _log_failure(request.script, "", error)
            await session.set_variables(_failed_variables(request.script))
            raise ScriptFailed from error

    async def drain(self, seconds: float) -> None:
        """Wait for questions that were given up; after `seconds` the rest is cancelled and
        counts as undelivered. To be called before the control's own end."""
        if self._late:
            await asyncio.wait(set(self._late), timeout=seconds)
        for asked in set(self._late):
            asked.cancel()
        if self._late:
            await asyncio.wait(set(self._late), timeout=CANCEL_SECONDS)

    async def _authorize(self, visit: _Visit) -> None:
        request = visit.request
        source, linkedid = request.argument(3), request.argument(4)
        unknown = [] if linkedid else [LINKEDID]
        if not source and request.channel.startswith(PJSIP):
            unknown.append(SOURCE)
        found = await visit.session.get_variables(unknown) if unknown else {}
        call = CallRequest(
            call_id=self._new_call_id(),
            node=visit.node_argument(2),
            uniqueid=request.uniqueid,
            linkedid=linkedid or found[LINKEDID] or request.uniqueid,
            channel=request.channel,
            accountcode=request.accountcode,
            callerid=request.callerid,
            number=request.argument(0) or request.extension,
            account=request.argument(1),
            source=source or found.get(SOURCE, ""),
        )
        await self._answer(visit, self._control.authorize(call), call.call_id)

    async def _next_route(self, visit: _Visit) -> None:
        values = await visit.session.get_variables(ROUTE_VARIABLES)
        call_id = call_id_of(values["AC_CALL"])
        asked = RouteRequest(
            call_id=call_id,
            node=visit.node_argument(0),
            uniqueid=visit.request.uniqueid,
            ask_id=self._new_call_id(),
            dialstatus=dialstatus_of(values),
            hangupcause=cause_of(values),
        )
        await self._answer(visit, self._control.next_route(asked), call_id)

    async def _hangup(self, visit: _Visit) -> None:
        values = await visit.session.get_variables(HANGUP_VARIABLES)
        report = hangup_report(
            visit.node_argument(0), visit.request.uniqueid, self._now_ms(), values
        )
        asked = asyncio.create_task(self._control.report_hangup(report))
        if not await self._in_time(asked, visit.deadline, _late_report):
            _log.warning("AGI answer late", extra={"action": "agi_late", "script": "hangup"})
            return
        await asked

    async def _balance(self, visit: _Visit) -> None:
        request = visit.request
        asks = not request.argument(0) and request.channel.startswith(PJSIP)
        found = await visit.session.get_variables([SOURCE]) if asks else {}
        origin = Origin(
            visit.node,
            request.argument(0),
            request.accountcode,
            endpoint_of(request.channel),
            found.get(SOURCE, ""),
            request.callerid,
        )
        try:
            async with asyncio.timeout_at(visit.deadline):
                funds = await self._control.funds(origin, request.extension)
        except (StorageError, TimeoutError) as error:
            _log_failure("balance", "", error)
            values = _no_balance(AuthStatus.ERROR, "the balance cannot be read at the moment")
        else:
            named = request.argument(0) or request.accountcode
            values = _no_balance(AuthStatus.NOACCOUNT, f"no account {printable(named)}")
            if funds is not None:
                values = {
                    "AC_BALANCE": amount_text(funds.balance),
                    "AC_AVAILABLE": amount_text(funds.available),
                }
        await visit.session.set_variables(values)

    async def _answer(
        self, visit: _Visit, question: Awaitable[Authorization], call_id: str
    ) -> None:
        """Ask, and give the dialplan the answer, or ERROR if there is none in time."""
        asked = asyncio.ensure_future(question)  # a future already costs no task
        if not await self._in_time(asked, visit.deadline, partial(self._late_answer, call_id)):
            extra = {"action": "agi_late", "script": visit.request.script, "call_id": call_id}
            _log.warning("AGI answer late", extra=extra)
            await visit.session.set_variables(visit.told(error_answer(call_id)))
            return
        error = _error_of(asked)
        if error is None:
            await self._deliver(visit, asked.result(), call_id)
            return
        _log_failure(visit.request.script, call_id, error)
        self._abandon(call_id)  # it may have been committed before it failed
        await visit.session.set_variables(visit.told(error_answer(call_id)))
        raise ScriptFailed from error

    async def _deliver(self, visit: _Visit, answer: Authorization, call_id: str) -> None:
        """Tell the dialplan, or take back the reservation that it will never use.

        Asterisk acknowledges the variables before it closes, so a connection that ends without
        that was not listened to any more. When nothing comes at all it may have taken them: then
        the reservation stays until the channel's end is reported, for a call must not talk on
        money that was given back.
        """
        session, call_id = visit.session, answer.call_id or call_id
        try:
            if session.hung_up:
                raise AgiHungUp("hung up before the answer")
            await session.set_variables(visit.told(answer, call_id))
            if session.hung_up:
                raise AgiHungUp("hung up during the answer")
        except UnsafeValue as error:
            _log_failure("answer", call_id, error)
            if answer.allowed:
                self._abandon(call_id)
            await session.set_variables(visit.told(error_answer(call_id)))
            raise ScriptFailed from error
        except AgiPeerGone:
            if answer.allowed:
                self._abandon(call_id)
            raise

    async def _in_time(
        self,
        asked: asyncio.Future[_Answer],
        deadline: float,
        when_late: Callable[[asyncio.Future[_Answer]], None],
    ) -> bool:
        """Wait until `asked` is done or the deadline is over.

        If it is over, or this is cancelled, `when_late` is called once with it when it ends.
        """
        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        wake = partial(_wake, woken)
        asked.add_done_callback(wake)
        timer = loop.call_at(deadline, wake)
        delivered = False
        try:
            await woken
            delivered = asked.done()
        finally:
            timer.cancel()
            if not delivered:
                self._late.add(asked)
                asked.add_done_callback(self._late.discard)
                asked.add_done_callback(when_late)
        return delivered

    def _late_answer(self, call_id: str, asked: asyncio.Future[Authorization]) -> None:
        """A question that was given up has ended: nobody may keep what it reserved."""
        error = _error_of(asked)
        if error is not None:
            _log_failure("late answer", call_id, error)
        if error is not None or asked.result().allowed:
            self._abandon(call_id)

    def _abandon(self, call_id: str) -> None:
        if not call_id:
            return
        extra = {"action": "agi_abandoned", "call_id": call_id}
        _log.warning("call abandoned, its answer was not delivered", extra=extra)
        self._control.abandon(call_id)


@record
class _Visit:
    """One script being run for one channel. `deadline` is on the loop's clock, in seconds."""

    request: AgiRequest
    session: AgiSession
    node: str
    deadline: float

    def told(self, answer: Authorization, call_id: str = "") -> dict[str, str]:
        """The variables that tell `answer`. The next route of a call is for the same number and on
        the same account: what `authorize` said of them stays. Raises UnsafeValue."""
        values = answer_variables(answer, call_id)
        if self.request.script == NEXT_ROUTE:
            del values["AC_NUMBER"], values["AC_PAYER"]
        return values

    def node_argument(self, position: int) -> str:
        """The node that the dialplan names, else the one that the connection comes from."""
        named = self.request.argument(position)
        if named and not _NODE.fullmatch(named):
            extra = {"action": "agi_bad_node", "value": printable(named)}
            _log.warning("AGI argument is no node", extra=extra)
            return self.node
        return named or self.node


def error_answer(call_id: str) -> Authorization:
    """What the dialplan is told when there is no other answer."""
    reason = "the credit controller has no answer at the moment"
    return Authorization(AuthStatus.ERROR, reason, call_id, cause=ERROR_CAUSE)


def answer_variables(answer: Authorization, call_id: str = "") -> dict[str, str]:
    """All the AC_ variables that tell `answer`; `call_id` if the answer has none of its own.

    Raises UnsafeValue if a dial string, its options or the id cannot be sent unchanged.
    """
    allowed = answer.allowed
    return {
        "AC_STATUS": answer.status.value,
        "AC_REASON": clean_text(answer.reason),
        "AC_SECONDS": str(answer.seconds if allowed else 0),
        "AC_OPTS": exact("AC_OPTS", answer.options if allowed else ""),
        "AC_DIAL": exact("AC_DIAL", answer.dial if allowed else ""),
        "AC_CALLERID": clean_number(answer.callerid),
        "AC_NUMBER": clean_number(answer.number),
        "AC_PAYER": _unchanged(answer.payer),
        "AC_RATE": amount_text(answer.rate),
        "AC_RESERVED": amount_text(answer.reserved),
        "AC_AVAILABLE": amount_text(answer.available),
        "AC_CALL": exact("AC_CALL", answer.call_id or call_id),
        "AC_CAUSE": str(answer.cause),
    }


def _unchanged(name: str) -> str:
    """A name that Asterisk gives back as it is; nothing in place of one that it would change."""
    return name if name == clean_text(name) else ""


def _unknown_variables(script: str) -> dict[str, str]:
    """What tells a dialplan author about a wrong name.

    Closing the connection would not: Asterisk then says AGISTATUS=SUCCESS.
    """
    reason = f"there is no AGI script {printable(script)} but {' '.join(Scripts.NAMES)}"
    return {"AC_STATUS": AuthStatus.ERROR.value, "AC_REASON": clean_text(reason)}


def _failed_variables(script: str) -> dict[str, str]:
    """What a script that broke down tells. AC_CALL of an earlier script stays: `h` needs it."""
    if script == "hangup":
        return {}
    if script == "balance":
        return _no_balance(AuthStatus.ERROR, "the balance cannot be read at the moment")
    values = answer_variables(error_answer(""))
    if script != "authorize":
        del values["AC_CALL"]
    return values


def _no_balance(status: AuthStatus, reason: str) -> dict[str, str]:
    return {
        "AC_BALANCE": "",
        "AC_AVAILABLE": "",
        "AC_STATUS": status.value,
        "AC_REASON": clean_text(reason),
    }


def _log_failure(script: str, call_id: str, error: BaseException) -> None:
    extra = {"action": "agi_script_failed", "script": script, "call_id": call_id}
    _log.error("AGI script failed", extra=extra, exc_info=error)


def _error_of(asked: asyncio.Future[Any]) -> BaseException | None:
    return asyncio.CancelledError() if asked.cancelled() else asked.exception()


def _wake(woken: asyncio.Future[None], *_: object) -> None:
    if not woken.done():
        woken.set_result(None)


def _late_report(asked: asyncio.Future[None]) -> None:
    error = _error_of(asked)
    if error is not None:
        _log_failure("late hangup", "", error)
