"""The operations on the books, and what comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from astcredit.domain.books import ClientBooks, OpenCall
from astcredit.domain.calls import (
    CallRequest,
    ChannelEnded,
    HangupReport,
    LegAnswered,
    RouteRequest,
)
from astcredit.domain.decisions import Decision
from astcredit.domain.records import record
from astcredit.domain.routing import Route
from astcredit.domain.settlement import Ending, Settlement


@dataclass(frozen=True, slots=True)
class Undelivered:
    """The dialplan never got its answer: the call was not made."""

    call_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Expire:
    """A reservation past its last possible second."""

    call_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Gone:
    """A call of which Asterisk has no channel any more; its end was not heard.

    `asked_at_ms` is when Asterisk said so, `report` what the calling channel said of its end.
    """

    call_id: str
    asked_at_ms: int
    report: HangupReport | None = None


@dataclass(frozen=True, slots=True)
class NodeHeard:
    """All that happened on an Asterisk server up to an instant has been heard.

    It waits in the same queue as what was heard, so that it is never on record before that.
    """

    node: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What Asterisk's own records say of the end of a call that is open here."""

    call_id: str
    ending: Ending


Operation: TypeAlias = (
    CallRequest
    | RouteRequest
    | LegAnswered
    | ChannelEnded
    | HangupReport
    | Undelivered
    | Expire
    | Gone
    | NodeHeard
    | Reconciled
)


@record
class Answered:
    """An open call was answered. No leg: its caller's report alone told of it."""

    call_id: str
    leg_uniqueid: str | None
    trunk: str
    dialed_at_ms: int | None
    answered_at_ms: int


@dataclass(frozen=True, slots=True)
class Rerouted:
    """An open call goes on to its next route: the call and its client's books as they stand."""

    call: OpenCall
    route: Route
    client: ClientBooks


@dataclass(frozen=True, slots=True)
class NoFurtherRoute:
    """There is no next route for a call, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Postponed:
    """A request decided ahead of events that may have given it more: nothing was done. It is to be
    asked again behind them."""


@record
class Changed:
    """What an operation that is not a request did; empty when it had nothing to change.

    `unreserved` is an answer that names a call which has no reservation (any more), `left` a report
    on an answered call whose end is for the listener to tell. `unclear` is a server on which a
    caller ended of whose call no dialling was heard: whether a leg of it lives, its list will tell.
    """

    answered: tuple[Answered, ...] = ()
    settled: tuple[Settlement, ...] = ()
    unreserved: LegAnswered | None = None
    left: HangupReport | None = None
    unclear: str = ""


Outcome: TypeAlias = Decision | Postponed | Rerouted | NoFurtherRoute | Changed
