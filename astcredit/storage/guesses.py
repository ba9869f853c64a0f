"""What a transaction takes for granted instead of asking, until the database proves it.

A client's row and a call's are nearly always as the last transaction from here left them, and a
call that is answered is nearly always open and has no leg yet. So none of them is asked for: what
is decided on them is written where they are still so, and if one is not, nothing is (`Outdated`),
and all is done again on rows that were locked and read. The database stays the only truth and the
only lock; what is saved is the round trip in which it would have said what is known.

Where several servers share their clients that fails as a rule. So after each failure nothing is
taken for granted for a while, longer each time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from astcredit.domain.books import ClientBooks, OpenCall
from astcredit.service.ports import Changes, Wanted

MOST_REMEMBERED = 10_000
"""Clients, some 400 bytes each, and calls, up to 1,000 bytes each."""
LONGEST_PAUSE = 64
"""Transactions that ask, after failures that followed one another."""

_Key = TypeVar("_Key")
_Row = TypeVar("_Row")


@dataclass(slots=True)
class Guesses:
    """What one transaction has taken for granted: the catalog's `version` (None: it was not asked
    for), the books of `clients` in the order of their ids, and `calls`, all of them by their ids;
    and that the calls of `answered` are open and have no leg."""

    version: int | None = None
    clients: Mapping[int, ClientBooks] = field(default_factory=dict)
    calls: Mapping[str, OpenCall] = field(default_factory=dict)
    answered: Mapping[str, None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.clients or self.answered)


@dataclass(slots=True)
class Seen:
    """What one transaction has read and then written."""

    version: int | None = None
    clients: dict[int, ClientBooks] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)


class Memory:
    """Clients' books and open calls as the last transactions left them.

    None of a client that has or had a quota: what is counted of that stands in rows of its own.
    """

    def __init__(self) -> None:
        self._version: int | None = None
        self._clients: dict[int, ClientBooks] = {}
        self._calls: dict[str, OpenCall] = {}
        self._trust_clients = _Trust()
        self._trust_calls = _Trust()
        self._trust_answers = _Trust()

    def guess(self, wanted: Wanted) -> Guesses:
        """What of the rows that are wanted need not be asked for."""
        guesses = self._rows(wanted)
        if not wanted.answered:
            return guesses
        # Counters that are read are locked before the answered calls are, and who ends such a call
        # locks it before them.
        in_order = guesses.clients or not wanted.levels
        if not in_order or not self._trust_answers.again():
            return Guesses()
        guesses.answered = dict.fromkeys(wanted.answered)
        return guesses

    def _rows(self, wanted: Wanted) -> Guesses:
        """The version, clients and calls, if all of them are known."""
        version = self._version if wanted.version else None
        unknown = wanted.version and version is None
        if unknown or wanted.limits or wanted.recorded or wanted.nodes:
            return Guesses()
        clients = _all_of(self._clients, sorted(wanted.clients))
        calls = _all_of(self._calls, wanted.calls)
        if not clients or calls is None:
            return Guesses()
        trust = self._trust_calls if calls else self._trust_clients
        return Guesses(version, clients, calls) if trust.again() else Guesses()

    def keep(self, seen: Seen, guesses: Guesses) -> None:
        """A transaction was committed that read and wrote this, and proved those guesses."""
        if seen.version is not None:
            self._version = seen.version
        for books in seen.clients.values():
            self._clients.pop(books.id, None)
            if not books.quotas.kept:
                self._clients[books.id] = books
        self._keep_calls(seen.changes)
        for rows in (self._clients, self._calls):
            while len(rows) > MOST_REMEMBERED:
                del rows[next(iter(rows))]  # type: ignore[arg-type]
        for trust in self._trusts(guesses):
            trust.justified()

    def _keep_calls(self, changes: Changes) -> None:
        calls = self._calls
        for new in changes.calls:
            if new.call is not None:
                calls[new.call.call_id] = new.call
        for event in changes.rerouted:
            calls[event.call.call_id] = event.call
        for answer in changes.answered:
            call = calls.get(answer.call_id)
            if call is not None:
                calls[answer.call_id] = call.answered(
                    answer.leg_uniqueid, answer.dialed_at_ms, answer.answered_at_ms
                )
        for settlement in changes.settlements:
            calls.pop(settlement.call.call_id, None)

    def forget(self, seen: Seen, guesses: Guesses, *, outdated: bool) -> None:
        """A transaction failed; `outdated`: for one of its guesses was wrong."""
        for client_id in seen.clients:
            self._clients.pop(client_id, None)
        answers = [answer.call_id for answer in seen.changes.answered]
        moved = [event.call.call_id for event in seen.changes.rerouted]
        for call_id in (*guesses.calls, *guesses.answered, *answers, *moved):
            self._calls.pop(call_id, None)
        if outdated:
            for trust in self._trusts(guesses):
                trust.betrayed()

    def _trusts(self, guesses: Guesses) -> Iterator[_Trust]:
        # What an answer or an end finds wrong is most likely a call, which another server changed.
        if guesses.calls:
            yield self._trust_calls
        elif guesses.clients:
            yield self._trust_clients
        if guesses.answered:
            yield self._trust_answers


class _Trust:
    """Whether it is worth while to take things of one kind for granted."""

    def __init__(self) -> None:
        self._failures = 0
        self._pause = 0

    def again(self) -> bool:
        """Whether a transaction that begins now may do it."""
        if self._pause:
            self._pause -= 1
            return False
        return True

    def justified(self) -> None:
        """It was so."""
        self._failures = 0

    def betrayed(self) -> None:
        """It was not."""
        self._failures += 1
        self._pause = min(LONGEST_PAUSE, 2**self._failures)


def _all_of(known: Mapping[_Key, _Row], keys: Collection[_Key]) -> dict[_Key, _Row] | None:
    """The rows of these keys; None if one is not known."""
    found = {key: known[key] for key in keys if key in known}
    return found if len(found) == len(keys) else None
