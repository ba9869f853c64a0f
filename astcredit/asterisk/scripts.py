"""The AGI scripts: what a dialplan asks, in FastAGI and classic AGI alike.

    authorize[,NUMBER[,ACCOUNT[,NODE]]]   before Dial: may this call be made, and for how long?
    next-route[,NODE]                     after a failed attempt: the next route
    hangup[,NODE]                         in `h`: what became of the call
    balance[,ACCOUNT]                     AC_BALANCE and AC_AVAILABLE

An argument that is empty or missing has its default: the channel's extension, its accountcode, the
node that the connection comes from.

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
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from astcredit.asterisk.agi import AgiError, AgiHungUp, AgiPeerGone, AgiRequest
from astcredit.asterisk.variables import UnsafeValue, clean_number, clean_text, exact
from astcredit.domain.calls import Authorization, AuthStatus, CallRequest, HangupReport
from astcredit.domain.money import amount_text
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
BILLSEC = "CDR(billsec,f)"
HANGUP_VARIABLES = (
    "AC_CALL",
    BILLSEC,
    "DIALEDTIME_MS",
    "HANGUPCAUSE",
    "DIALSTATUS",
    "ANSWEREDTIME_MS",
    "BLINDTRANSFER",
)

_CALL_ID = re.compile(r"[A-Za-z0-9_.:@-]{1,64}", re.ASCII)
_NODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_DIALSTATUS = re.compile(r"[A-Z]{1,20}", re.ASCII)
_SECONDS = re.compile(r"([0-9]{1,7})(?:\.([0-9]{1,9}))?", re.ASCII)
_MILLISECONDS = re.compile(r"[0-9]{1,10}", re.ASCII)
_CAUSE = re.compile(r"[0-9]{1,3}", re.ASCII)
_MOST_CHANNEL_NAME = 255

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
        self._late: set[asyncio.Task[Any]] = set()
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
        for task in set(self._late):
            task.cancel()
        if self._late:
            await asyncio.wait(set(self._late), timeout=CANCEL_SECONDS)

    async def _authorize(self, visit: _Visit) -> None:
        request = visit.request
        found = await visit.session.get_variables([LINKEDID])
        call = CallRequest(
            call_id=self._new_call_id(),
            node=visit.node_argument(2),
            uniqueid=request.uniqueid,
            linkedid=found[LINKEDID] or request.uniqueid,
            channel=request.channel,
            accountcode=request.argument(1) or request.accountcode,
            callerid=request.callerid,
            number=request.argument(0) or request.extension,
        )
        await self._answer(visit, self._control.authorize(call), call.call_id)

    async def _next_route(self, visit: _Visit) -> None:
        found = await visit.session.get_variables(["AC_CALL"])
        call_id = _call_id(found["AC_CALL"])
        asked = self._control.next_route(visit.node_argument(0), visit.request.uniqueid, call_id)
        await self._answer(visit, asked, call_id)

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
        account = visit.request.argument(0) or visit.request.accountcode
        try:
            async with asyncio.timeout_at(visit.deadline):
                funds = await self._control.funds(account)
        except (StorageError, TimeoutError) as error:
            _log_failure("balance", "", error)
            values = _no_balance(AuthStatus.ERROR, "the balance cannot be read at the moment")
        else:
            values = _no_balance(AuthStatus.NOACCOUNT, f"no account {printable(account)}")
            if funds is not None:
                values = {
                    "AC_BALANCE": amount_text(funds.balance),
                    "AC_AVAILABLE": amount_text(funds.available),
                }
        await visit.session.set_variables(values)

    async def _answer(
        self, visit: _Visit, question: Coroutine[Any, Any, Authorization], call_id: str
    ) -> None:
        """Ask, and give the dialplan the answer, or ERROR if there is none in time."""
        asked = asyncio.create_task(question)
        if not await self._in_time(asked, visit.deadline, partial(self._late_answer, call_id)):
            extra = {"action": "agi_late", "script": visit.request.script, "call_id": call_id}
            _log.warning("AGI answer late", extra=extra)
            await visit.session.set_variables(answer_variables(error_answer(call_id)))
            return
        error = _error_of(asked)
        if error is None:
            await self._deliver(visit.session, asked.result(), call_id)
            return
        _log_failure(visit.request.script, call_id, error)
        self._abandon(call_id)  # it may have been committed before it failed
        await visit.session.set_variables(answer_variables(error_answer(call_id)))
        raise ScriptFailed from error

    async def _deliver(self, session: AgiSession, answer: Authorization, call_id: str) -> None:
        """Tell the dialplan, or take back the reservation that it will never use.

        Asterisk acknowledges the variables before it closes, so a connection that ends without
        that was not listened to any more. When nothing comes at all it may have taken them: then
        the reservation stays until the channel's end is reported, for a call must not talk on
        money that was given back.
        """
        call_id = answer.call_id or call_id
        try:
            if session.hung_up:
                raise AgiHungUp("hung up before the answer")
            await session.set_variables(answer_variables(answer, call_id))
            if session.hung_up:
                raise AgiHungUp("hung up during the answer")
        except UnsafeValue as error:
            _log_failure("answer", call_id, error)
            if answer.allowed:
                self._abandon(call_id)
            await session.set_variables(answer_variables(error_answer(call_id)))
            raise ScriptFailed from error
        except AgiPeerGone:
            if answer.allowed:
                self._abandon(call_id)
            raise

    async def _in_time(
        self,
        asked: asyncio.Task[_Answer],
        deadline: float,
        when_late: Callable[[asyncio.Task[_Answer]], None],
    ) -> bool:
        """Wait until `asked` is done or the deadline is over.

        If it is over, or this is cancelled, `when_late` is called once with the task when it ends.
        """
        left = deadline - asyncio.get_running_loop().time()
        delivered = False
        try:
            done, _ = await asyncio.wait({asked}, timeout=max(left, 0))
            delivered = asked in done
        finally:
            if not delivered:
                self._late.add(asked)
                asked.add_done_callback(self._late.discard)
                asked.add_done_callback(when_late)
        return delivered

    def _late_answer(self, call_id: str, asked: asyncio.Task[Authorization]) -> None:
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


@dataclass(frozen=True, slots=True)
class _Visit:
    """One script being run for one channel. `deadline` is on the loop's clock, in seconds."""

    request: AgiRequest
    session: AgiSession
    node: str
    deadline: float

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
        "AC_RATE": amount_text(answer.rate),
        "AC_RESERVED": amount_text(answer.reserved),
        "AC_AVAILABLE": amount_text(answer.available),
        "AC_CALL": exact("AC_CALL", answer.call_id or call_id),
        "AC_CAUSE": str(answer.cause),
    }


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


def hangup_report(
    node: str, uniqueid: str, ended_at_ms: int, values: Mapping[str, str]
) -> HangupReport:
    """The report that the variables of a channel in `h` make. Never raises: what is no number is
    taken for absent, and logged."""
    dialstatus = values["DIALSTATUS"]
    answered = dialstatus == "ANSWER"
    cause = _number("HANGUPCAUSE", values, _CAUSE)
    return HangupReport(
        node=node,
        uniqueid=uniqueid,
        call_id=_call_id(values["AC_CALL"]),
        ended_at_ms=ended_at_ms,
        talk_ms=_talk_ms(values, answered),
        dialed_ms=_number("DIALEDTIME_MS", values, _MILLISECONDS),
        dialstatus=dialstatus if _DIALSTATUS.fullmatch(dialstatus) else "",
        hangupcause=cause if cause is not None and cause <= 127 else 0,
        blind_transfer=values["BLINDTRANSFER"][:_MOST_CHANNEL_NAME],
    )


def _talk_ms(values: Mapping[str, str], answered: bool) -> int:
    """CDR(billsec,f) in milliseconds; the part of a millisecond is dropped.

    It runs from the channel's own answer, which may be before Dial; ANSWEREDTIME_MS says too much
    when a warning is played. Neither says too little, so the smaller one counts. Where CDRs are
    switched off only ANSWEREDTIME_MS is left: the call is not given away.
    """
    match = _SECONDS.fullmatch(values[BILLSEC])
    if match:
        talk_ms = int(match[1]) * 1000 + int((match[2] or "")[:3].ljust(3, "0"))
        dial_ms = _number("ANSWEREDTIME_MS", values, _MILLISECONDS) if answered else None
        return min(talk_ms, dial_ms) if dial_ms else talk_ms
    _log_garbage(BILLSEC, values[BILLSEC])
    if not answered:
        return 0
    _log.warning(
        "answered call without CDR(billsec,f)",
        extra={"action": "hangup_without_billsec", "call_id": printable(values["AC_CALL"])},
    )
    return _number("ANSWEREDTIME_MS", values, _MILLISECONDS) or 0


def _number(name: str, values: Mapping[str, str], pattern: re.Pattern[str]) -> int | None:
    if pattern.fullmatch(values[name]):
        return int(values[name])
    _log_garbage(name, values[name])
    return None


def _log_garbage(name: str, value: str) -> None:
    if value:
        extra = {"action": "hangup_bad_number", "variable": name, "value": printable(value)}
        _log.warning("hangup variable is no number", extra=extra)


def _log_failure(script: str, call_id: str, error: BaseException) -> None:
    extra = {"action": "agi_script_failed", "script": script, "call_id": call_id}
    _log.error("AGI script failed", extra=extra, exc_info=error)


def _call_id(text: str) -> str:
    return text if _CALL_ID.fullmatch(text) else ""


def _error_of(asked: asyncio.Task[Any]) -> BaseException | None:
    return asyncio.CancelledError() if asked.cancelled() else asked.exception()


def _late_report(asked: asyncio.Task[None]) -> None:
    error = _error_of(asked)
    if error is not None:
        _log_failure("late hangup", "", error)
