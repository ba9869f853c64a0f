"""The operations on the books, and what comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from astcredit.domain.books import OpenCall
from astcredit.domain.calls import CallRequest, ChannelEnded, HangupReport, LegAnswered
from astcredit.domain.decisions import Decision
from astcredit.domain.settlement import Settlement


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


Operation: TypeAlias = (
    CallRequest | LegAnswered | ChannelEnded | HangupReport | Undelivered | Expire
)


@dataclass(frozen=True, slots=True)
class Answered:
    """An open call was answered: the call as it stands now."""

    call: OpenCall
    trunk: str


@dataclass(frozen=True, slots=True)
class Changed:
    """What an operation that is not a request did; empty when it had nothing to change.

    `unreserved` is an answer that names a call which has no reservation (any more).
    """

    answered: tuple[Answered, ...] = ()
    settled: tuple[Settlement, ...] = ()
    unreserved: LegAnswered | None = None


Outcome: TypeAlias = Decision | Changed
