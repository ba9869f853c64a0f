"""The table of states: every pair of a state and an event, written out a second time."""

from __future__ import annotations

from itertools import product

import pytest

from astcredit.domain.states import RESERVED_STATES, TRANSITIONS, CallEvent, CallState, after

# One line for each state, one column for each event; a dot: the event changes nothing.
TABLE = """
            answer     end         release   expire
open        answered   completed   failed    failed
answered    .          completed   .         completed
completed   .          .           .         .
failed      .          .           .         .
denied      .          .           .         .
"""


def cells() -> list[tuple[CallState, CallEvent, CallState | None]]:
    head, *lines = TABLE.strip().splitlines()
    events = [CallEvent(name) for name in head.split()]
    return [
        (CallState(state), event, None if cell == "." else CallState(cell))
        for state, *row in map(str.split, lines)
        for event, cell in zip(events, row, strict=True)
    ]


@pytest.mark.parametrize(("state", "event", "then"), cells())
def test_every_state_and_event(state: CallState, event: CallEvent, then: CallState | None) -> None:
    assert after(state, event) is then


def test_the_table_has_every_pair() -> None:
    assert [(s, e) for s, e, _ in cells()] == list(product(CallState, CallEvent))


def test_what_has_ended_stays_so() -> None:
    """A state without a reservation is left by no event, and an end always leaves the reserved."""
    for state in CallState:
        followers = [then for (s, _), then in TRANSITIONS.items() if s is state]
        assert bool(followers) == (state in RESERVED_STATES)
    for state in RESERVED_STATES:
        assert after(state, CallEvent.END) not in RESERVED_STATES
        assert after(state, CallEvent.EXPIRE) not in RESERVED_STATES
