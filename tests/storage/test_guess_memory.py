"""What is remembered of clients and calls, and when it is taken for granted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from astcredit.domain.books import ClientBooks, OpenCall
from astcredit.domain.capacity import Occupancy
from astcredit.domain.states import CallState
from astcredit.service.ports import Wanted
from astcredit.storage.guesses import LONGEST_PAUSE, MOST_REMEMBERED, Guesses, Memory, Seen
from support.core import NOW_MS, RATE, call_id, prepaid


def call(number: int = 1, client_id: int = 1) -> OpenCall:
    return OpenCall(
        call_id(number), client_id, "pbx", f"caller-{number}", None, CallState.OPEN, RATE, 5, 1,
        NOW_MS, NOW_MS + 1, None, None, Occupancy(client_id),
    )  # fmt: skip


def memory_of(*clients: ClientBooks) -> Memory:
    memory = Memory()
    memory.keep(Seen(7, {client.id: client for client in clients}), Guesses())
    return memory


ASKS = Wanted(guess=True, version=True, clients=[2, 1])


def test_what_was_seen_is_taken_for_granted() -> None:
    guesses = memory_of(prepaid(1), prepaid(2)).guess(ASKS)
    assert guesses.version == 7
    assert list(guesses.clients) == [1, 2]


@pytest.mark.parametrize(
    ("memory", "wanted"),
    [
        (Memory(), ASKS),
        (memory_of(prepaid(1)), ASKS),
        (memory_of(prepaid(1), replace(prepaid(2), monthly_quota=1)), ASKS),
        (memory_of(prepaid(1), replace(prepaid(2), daily_quota=0)), ASKS),
        (memory_of(prepaid(1), replace(prepaid(2), quota_counted=True)), ASKS),
        (memory_of(prepaid(1), prepaid(2)), replace(ASKS, recorded=[call_id(1)])),
        (memory_of(prepaid(1), prepaid(2)), replace(ASKS, nodes=["pbx"])),
        (memory_of(prepaid(1), prepaid(2)), replace(ASKS, calls=[call_id(1)])),
        (memory_of(prepaid(1), prepaid(2)), replace(ASKS, limits=call().occupancy.levels())),
    ],
)
def test_it_is_all_or_nothing(memory: Memory, wanted: Wanted) -> None:
    """One client, or one call, that is not known, or anything that is never remembered."""
    assert memory.guess(wanted) == Guesses()


def test_a_client_that_gets_a_quota_is_forgotten() -> None:
    memory = memory_of(prepaid(1), prepaid(2))
    memory.keep(Seen(clients={1: replace(prepaid(1), monthly_quota=1)}), Guesses())
    assert not memory.guess(ASKS)


def test_what_a_failed_transaction_saw_is_forgotten() -> None:
    """Nobody knows what became of it."""
    memory = memory_of(prepaid(1), prepaid(2))
    memory.forget(Seen(clients={2: prepaid(2)}), Guesses(), outdated=False)
    assert not memory.guess(ASKS)
    assert memory.guess(replace(ASKS, clients=[1]))


def failed(memory: Memory, guesses: Guesses) -> None:
    memory.forget(Seen(), guesses, outdated=True)


def test_who_was_wrong_asks_for_a_while_and_longer_each_time() -> None:
    memory = memory_of(prepaid(1), prepaid(2))
    pauses = []
    for _ in range(8):
        failed(memory, memory.guess(ASKS))
        asked = 0
        while not memory.guess(ASKS):
            asked += 1
        pauses.append(asked)
    assert pauses == [2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    memory.keep(Seen(), memory.guess(ASKS))
    failed(memory, memory.guess(ASKS))
    assert [bool(memory.guess(ASKS)) for _ in range(3)] == [False, False, True]


def test_a_wrong_guess_of_an_answer_is_no_word_against_clients() -> None:
    memory = memory_of(prepaid(1), prepaid(2))
    answers = Wanted(guess=True, answered=[call_id(1)])
    failed(memory, memory.guess(answers))
    assert not memory.guess(answers)
    assert memory.guess(ASKS)


def test_no_more_is_remembered_than_there_is_room_for() -> None:
    memory = memory_of(*map(prepaid, range(MOST_REMEMBERED + 1)))
    assert not memory.guess(replace(ASKS, clients=[0]))
    assert memory.guess(replace(ASKS, clients=[1, MOST_REMEMBERED]))


def test_a_client_that_calls_again_is_remembered_longest() -> None:
    memory = memory_of(*map(prepaid, range(MOST_REMEMBERED)))
    memory.keep(Seen(clients={0: prepaid(0)}), Guesses())
    memory.keep(Seen(clients={-1: prepaid(-1)}), Guesses())
    assert memory.guess(replace(ASKS, clients=[0]))
    assert not memory.guess(replace(ASKS, clients=[1]))
