"""The states of a call: one table that all code looks up.

    authorize ──> open ──answer──> answered ──end────> completed
                   │                   └─────expire──> completed (estimated)
                   ├──end (answer was not seen)──────> completed
                   ├──release────────────────────────> failed
                   └──expire─────────────────────────> failed (estimated)
    authorize ──> denied

A reservation exists exactly while the call is open or answered. An event that the table does
not have for a state comes too late or twice: it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class CallState(StrEnum):
    """astcdr.status."""

    OPEN = "open"
    ANSWERED = "answered"
    COMPLETED = "completed"
    FAILED = "failed"
    DENIED = "denied"


class CallEvent(StrEnum):
    """What can happen to a call after its authorization."""

    ANSWER = "answer"
    END = "end"
    RELEASE = "release"
    EXPIRE = "expire"


TRANSITIONS: Mapping[tuple[CallState, CallEvent], CallState] = {
    (CallState.OPEN, CallEvent.ANSWER): CallState.ANSWERED,
    (CallState.OPEN, CallEvent.END): CallState.COMPLETED,
    (CallState.OPEN, CallEvent.RELEASE): CallState.FAILED,
    (CallState.OPEN, CallEvent.EXPIRE): CallState.FAILED,
    (CallState.ANSWERED, CallEvent.END): CallState.COMPLETED,
    (CallState.ANSWERED, CallEvent.EXPIRE): CallState.COMPLETED,
}

RESERVED_STATES = frozenset({CallState.OPEN, CallState.ANSWERED})


def after(state: CallState, event: CallEvent) -> CallState | None:
    """The state that follows, or None when the event has nothing left to change."""
    return TRANSITIONS.get((state, event))
