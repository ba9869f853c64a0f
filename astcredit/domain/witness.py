"""What Asterisk's own call records say of a call whose end we did not hear. Pure.

Asterisk writes a record for each pair of channels: the calling channel with each outbound leg that
it dialled. Several records of one calling channel are attempts one after the other, forks, or one
call after the other; a leg that was handed on to somebody else (a transfer) has further records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

ANSWERED: Final = "ANSWERED"

DIALSTATUSES: Final = {
    ANSWERED: "ANSWER",
    "NO ANSWER": "NOANSWER",
    "BUSY": "BUSY",
    "CONGESTION": "CONGESTION",
    "FAILED": "",
    "UNKNOWN": "",
}
"""Asterisk's dispositions, and the DIALSTATUS that each was; empty where several could be."""

LOCAL: Final = "Local/"
"""What the names of channels begin with that lead back into the dialplan and to no carrier."""

NEAR_MS: Final = 300_000
"""How far a record may be from the call that it is of. Clocks of servers differ by seconds; the
time zones of the world by a quarter of an hour at least, so that a wrong one is noticed."""

HANDOVER_MS: Final = 2_000
"""A transferred leg's next record begins as its last one ends; files with whole seconds blur it."""


@dataclass(frozen=True, slots=True)
class AsteriskRecord:
    """One of Asterisk's call records. `channel` called, `dstchannel` is the leg that was dialled,
    empty where none was; `uniqueid` is the calling channel's, empty in files that leave it out.

    Instants are milliseconds since 1970 UTC, `talk_ms` is from answer to end. Where the file has
    whole seconds, `blur_ms` is by how much instants and talk can be longer than they say. A local
    time that a clock showed twice is the first one; all may be `later_ms` later then.
    """

    uniqueid: str
    channel: str
    dstchannel: str
    dst: str
    disposition: str
    start_ms: int
    answer_ms: int | None
    end_ms: int
    talk_ms: int = 0
    blur_ms: int = 0
    later_ms: int = 0

    @property
    def key(self) -> str:
        """What a call is found by."""
        return self.uniqueid or self.channel

    @property
    def answered(self) -> bool:
        """Whether the leg was answered. A channel that answered by itself has no leg, or one that
        was busy."""
        return self.disposition == ANSWERED and self.answer_ms is not None and self.dstchannel != ""

    def near(self, instants: Iterable[int]) -> AsteriskRecord:
        """The record, read so that it is as near as can be to one of the instants."""
        if not self.later_ms:
            return self
        later = self._shifted(self.later_ms)
        distances = [(abs(r.start_ms - at), r) for at in instants for r in (self, later)]
        return min(distances, key=lambda pair: pair[0], default=(0, self))[1]

    def covers(self, instant_ms: int) -> bool:
        """Whether the calling channel can have asked for its call at that instant."""
        began_ms, ended_ms = self.start_ms - NEAR_MS, self.end_ms + self.blur_ms + NEAR_MS
        return began_ms <= instant_ms <= ended_ms

    def _shifted(self, by_ms: int) -> AsteriskRecord:
        answer_ms = None if self.answer_ms is None else self.answer_ms + by_ms
        return replace(
            self,
            start_ms=self.start_ms + by_ms,
            answer_ms=answer_ms,
            end_ms=self.end_ms + by_ms,
            later_ms=0,
        )


@dataclass(frozen=True, slots=True)
class ChannelCall:
    """A call that a calling channel made: enough to tell which records are of it."""

    call_id: str
    node: str
    uniqueid: str
    created_at_ms: int
    dialled: str


@dataclass(frozen=True, slots=True)
class Witness:
    """What Asterisk's records say of one call: when its leg was answered (None: nobody answered)
    and ended (not answered: when the last attempt ended), and how long it lasted, `blur_ms` more
    at most. `transferred`: the leg went on when the caller had gone, and this is its own end."""

    disposition: str
    ended_at_ms: int
    answered_at_ms: int | None = None
    talk_ms: int = 0
    blur_ms: int = 0
    transferred: bool = False

    @property
    def answered(self) -> bool:
        return self.answered_at_ms is not None

    @property
    def dialstatus(self) -> str:
        """DIALSTATUS of the last attempt, as far as it can be told."""
        return DIALSTATUSES.get(self.disposition, "")


@dataclass(frozen=True, slots=True)
class Unclear:
    """Why records do not tell what became of a call."""

    reason: str


def call_of(record: AsteriskRecord, calls: Sequence[ChannelCall]) -> str:
    """The id of the call that the record is of, among those of its calling channel, oldest first.

    Of those to the record's number, if there are any, it is the last that was asked for before the
    record's end: a channel asks for its next call when the one before is over.
    """
    meant = [call for call in calls if call.dialled == record.dst] or calls
    asked = [call for call in meant if call.created_at_ms <= record.end_ms]
    return (asked[-1] if asked else meant[0]).call_id


def witness_of(
    created_at_ms: int,
    records: Sequence[AsteriskRecord],
    of_legs: Mapping[str, Iterable[AsteriskRecord]],
) -> Witness | Unclear:
    """What the records of a call say of it. `of_legs` are, by the name of a leg, all records in
    which it takes part, whoever called."""
    if not any(record.covers(created_at_ms) for record in records):
        return Unclear("Asterisk's record of this channel is of another time: is --timezone right?")
    answered = sorted(
        (record for record in records if record.answered), key=lambda record: record.start_ms
    )
    if not answered:
        last = max(records, key=lambda record: (record.dstchannel != "", record.end_ms))
        ended_at_ms = max(record.end_ms for record in records)
        return Witness(last.disposition, ended_at_ms, blur_ms=last.blur_ms)
    if any(record.dstchannel.startswith(LOCAL) for record in answered):
        return Unclear("it was dialled through a Local channel: which leg is a carrier's is unsure")
    first = answered[0]
    end_ms = _end_of_leg(first, of_legs.get(first.dstchannel, ()))
    talk_ms, transferred = first.talk_ms, end_ms > first.end_ms
    if transferred:
        talk_ms = max(talk_ms, end_ms - (first.answer_ms or 0) - first.blur_ms)
    return Witness(
        ANSWERED, end_ms, first.answer_ms, talk_ms, first.blur_ms, transferred=transferred
    )


def _end_of_leg(first: AsteriskRecord, of_leg: Iterable[AsteriskRecord]) -> int:
    """When the leg ended: with its last record that begins where the one before has ended."""
    end_ms = first.end_ms
    read = [record.near((end_ms,)) for record in of_leg]
    for record in sorted(read, key=lambda record: record.start_ms):
        began_in_time = first.start_ms <= record.start_ms <= end_ms + HANDOVER_MS
        if began_in_time and record.end_ms > end_ms:
            end_ms = record.end_ms
    return end_ms
