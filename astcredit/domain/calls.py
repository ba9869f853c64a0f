"""What is said about a call: requests and reports that come in, answers that go out.

Every text here may come from a caller's telephone and is hostile until proven otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from astcredit.domain.money import Micros
from astcredit.domain.records import record

_PJSIP = re.compile(r"PJSIP/(.+)-[0-9a-f]{8}", re.ASCII)


class AuthStatus(StrEnum):
    """Outcomes of an authorization, AC_STATUS of the dialplan.

    The refusals stand in their order of precedence: the first that applies is the answer.
    """

    ALLOWED = "ALLOWED"
    NOACCOUNT = "NOACCOUNT"
    DISABLED = "DISABLED"
    SRCREJECT = "SRCREJECT"
    BLOCKED = "BLOCKED"
    INVALID = "INVALID"
    NOROUTE = "NOROUTE"
    CAPACITY = "CAPACITY"
    QUOTA = "QUOTA"
    NOCREDIT = "NOCREDIT"
    ERROR = "ERROR"


@record
class Origin:
    """Where a call comes from: what an account can be recognised by.

    `account` is what the dialplan names; then nothing else counts. `endpoint` is the PJSIP endpoint
    of the channel. `source` is the address from which the signalling really came, as
    "ADDRESS[:PORT]", "[IPV6]:PORT" or empty. `callerid` is the caller's number (ANI).
    """

    node: str
    account: str = ""
    accountcode: str = ""
    endpoint: str = ""
    source: str = ""
    callerid: str = ""


@record
class CallRequest:
    """A dialplan's question before Dial: may this channel call this number?

    `account` and `source` are as in `Origin`.
    """

    call_id: str
    node: str
    uniqueid: str
    linkedid: str
    channel: str
    accountcode: str
    callerid: str
    number: str
    account: str = ""
    source: str = ""

    @property
    def origin(self) -> Origin:
        """Where the call comes from."""
        return Origin(
            self.node,
            self.account,
            self.accountcode,
            endpoint_of(self.channel),
            self.source,
            self.callerid,
        )


def endpoint_of(channel: str) -> str:
    """The PJSIP endpoint of a channel's name, `alice` of `PJSIP/alice-0000001a`; else empty."""
    match = _PJSIP.fullmatch(channel)
    return match[1] if match else ""


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """A dialplan's question after a failed attempt: what is the next route of this call?

    `dialstatus` and `hangupcause` (Q.850) tell how the attempt ended. `ask_id` is of this question
    alone: asked again after a lost answer, it gets the same route and not the one after it.
    """

    call_id: str
    node: str
    uniqueid: str
    ask_id: str
    dialstatus: str = ""
    hangupcause: int = 0


@record
class Authorization:
    """The answer to a `CallRequest`, as the dialplan gets it in its AC_ variables.

    `number` is the one to dial on the dialplan's own trunk: as dialled, without a tech prefix.
    `payer` is the name of the account that was recognised.
    """

    status: AuthStatus
    reason: str
    call_id: str
    seconds: int = 0
    options: str = ""
    dial: str = ""
    callerid: str = ""
    rate: Micros = 0
    reserved: Micros = 0
    available: Micros = 0
    cause: int = 0
    number: str = ""
    payer: str = ""

    @property
    def allowed(self) -> bool:
        return self.status is AuthStatus.ALLOWED


@record
class LegAnswered:
    """Asterisk saw an outbound leg being answered: from here on it costs money.

    `call_id` is empty when the event did not carry the channel variable AC_CALL; then the
    newest open call of the channel `caller_uniqueid` is meant.
    """

    node: str
    caller_uniqueid: str
    leg_uniqueid: str
    answered_at_ms: int
    call_id: str = ""
    trunk: str = ""
    dialed_at_ms: int | None = None


@record
class ChannelEnded:
    """Asterisk hung up a channel.

    An answered call whose outbound leg it was is settled; a call not answered whose calling
    channel it was is released. `hangupcause` is Q.850, `dialstatus` that of the last attempt of
    which it was the calling channel; empty if none was heard.
    """

    node: str
    uniqueid: str
    ended_at_ms: int
    hangupcause: int = 0
    dialstatus: str = ""
    dialed_at_ms: int | None = None


@record
class HangupReport:
    """What the `hangup` script read from a channel in its `h` extension.

    `talk_ms` is CDR(billsec,f): the time from answer to end, 0 when not answered.
    `blind_transfer` is BLINDTRANSFER: when it is not empty the outbound leg lives on.
    """

    node: str
    uniqueid: str
    call_id: str
    ended_at_ms: int
    talk_ms: int
    dialed_ms: int | None
    dialstatus: str
    hangupcause: int
    blind_transfer: str = ""

    @property
    def answered(self) -> bool:
        """Whether the channel's outbound leg was answered, as far as the report can tell.

        What Dial said counts: CDR(billsec) runs from the channel's own answer, which may be long
        before a callee who was busy. Without a word of Dial's, talk is taken for an answer.
        """
        return self.dialstatus == "ANSWER" or (not self.dialstatus and self.talk_ms > 0)


@dataclass(frozen=True, slots=True)
class Funds:
    """The balance of an account's client and what of it is free for further calls."""

    client: str
    currency: str
    balance: Micros
    available: Micros
