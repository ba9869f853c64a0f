"""What sipp wrote of the messages that it sent and received (`-trace_msg`).

Standard library only, for `scripts/lab` uses it without a virtual environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_BLOCK = re.compile(r"^-{10,}[ ]([0-9-]{10} [0-9:.]{15})$", re.MULTILINE)
_CALL_ID = re.compile(r"^Call-ID:\s*(\S+)", re.MULTILINE | re.IGNORECASE)
_INVITED = re.compile(r"INVITE sip:([^@]*)@")
_CSEQ_INVITE = re.compile(r"^CSeq:\s*\d+ INVITE", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Traced:
    """A message as sipp saw it, when it did (ms since 1970, by the machine's clock)."""

    at_ms: int
    received: bool
    text: str


@dataclass(frozen=True, slots=True)
class Talk:
    """A call that a carrier answered: the digits dialled, and from its 200 OK to the BYE."""

    dialled: str
    answered_ms: int
    ended_ms: int

    @property
    def ms(self) -> int:
        return self.ended_ms - self.answered_ms


def traced(trace: str) -> Iterator[Traced]:
    """All messages of a trace, in their order."""
    parts = _BLOCK.split(trace)
    for time, block in zip(parts[1::2], parts[2::2], strict=True):
        at = datetime.strptime(time, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
        head, _, message = block.partition("\n\n")
        yield Traced(round(at.timestamp() * 1000), "message received" in head, message.lstrip())


def received(trace: str) -> Iterator[str]:
    """The messages that sipp received."""
    return (message.text for message in traced(trace) if message.received)


def talks(trace: str) -> list[Talk]:
    """What a carrier's trace tells of the calls that it answered and that have ended."""
    dialled: dict[str, str] = {}
    answered: dict[str, int] = {}
    ended: dict[str, int] = {}
    for message in traced(trace):
        call_id = _CALL_ID.search(message.text)
        if call_id is None:
            continue
        if number := _INVITED.match(message.text):
            dialled.setdefault(call_id[1], number[1])
        elif message.text.startswith("SIP/2.0 200") and _CSEQ_INVITE.search(message.text):
            answered.setdefault(call_id[1], message.at_ms)
        elif message.text.startswith("BYE "):
            ended.setdefault(call_id[1], message.at_ms)
    return [
        Talk(number, answered[call], ended[call])
        for call, number in dialled.items()
        if call in answered and call in ended
    ]
