"""Mutations of the real code: what the simulation must find, and with which faults.

Each is a patch of one rule, as somebody might get it wrong; `finds` is what the auditor says of it.
Where the rule is in a part that the simulation replaces (SQL, the manager protocol), the patch has
the replacement answer as the real part would without it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from astcredit.asterisk.ami import AmiLink, LinkPhase
from astcredit.asterisk.ami_session import AmiIncompleteError
from astcredit.domain import settlement
from astcredit.domain.books import ClientBooks
from astcredit.domain.calls import ChannelEnded, RouteRequest
from astcredit.domain.capacity import Limit
from astcredit.domain.decisions import CallPolicy
from astcredit.domain.dialing import limit_option
from astcredit.domain.quotas import Usage
from astcredit.domain.rating import Rate, price
from astcredit.domain.states import CallEvent, CallState
from astcredit.service import controller, recovery
from astcredit.service.batch import Batch
from astcredit.service.batcher import _Item
from astcredit.service.endings import end_of_channel
from astcredit.service.errors import StorageError
from astcredit.service.ledger import Ledger
from astcredit.service.open_calls import OpenCalls
from astcredit.service.operations import Changed
from astcredit.service.ports import Changes, Channel, Locked, Wanted
from simulation.ami_line import SimulatedSession
from simulation.database import Connection, Transaction
from simulation.run import Options


@dataclass(frozen=True, slots=True)
class Mutation:
    """A planted fault. `options`: runs in which nothing is wrong without it."""

    name: str
    finds: tuple[str, ...]
    plant: Callable[[], AbstractContextManager[object]]
    options: Options


MUTATIONS: list[Mutation] = []
GOES_ON = "while Asterisk goes on with it"


def _planted(
    *finds: str, faults: str = "", transfers: float = 0.0, controllers: int = 2, calls: int = 80
) -> Callable[[Callable[[], Iterator[None]]], None]:
    """Take a function for a mutation; its docstring says what is got wrong."""
    kinds = frozenset(faults.split())
    options = Options(calls, controllers, faults=kinds, transfers=transfers, linked=True)

    def add(plant: Callable[[], Iterator[None]]) -> None:
        name = plant.__name__.strip("_").replace("_", " ")
        MUTATIONS.append(Mutation(name, finds, contextmanager(plant), options))

    return add


@_planted("charged twice", faults="events-late")
def _settle_twice() -> Iterator[None]:
    """A settled call stays in the batch, and the ledger's reference would let it pass."""
    post = ClientBooks.post

    def post_again(self: ClientBooks, *args: Any, reference: str, **rest: Any) -> Any:
        return post(self, *args, reference=f"{reference}:{self.ledger_seq}", **rest)

    with (
        patch.object(OpenCalls, "remove", lambda self, call: None),
        patch.object(ClientBooks, "post", post_again),
    ):
        yield


@_planted(GOES_ON, "not held", faults="link-cuts")
def _release_on_link_loss() -> Iterator[None]:
    """A link that is down is taken for an Asterisk without calls."""
    enter = AmiLink._enter

    def enter_and_release(self: AmiLink, phase: LinkPhase, reason: str = "") -> None:
        enter(self, phase, reason)
        if phase is LinkPhase.DOWN:
            for uniqueid in sorted(self._tracker.known()):
                self._deliver(ChannelEnded(self.node.name, uniqueid, self._now_ms()))

    with patch.object(AmiLink, "_enter", enter_and_release):
        yield


@_planted("1:", "2:", "3:")
def _decide_in_one_transaction_and_write_in_another() -> Iterator[None]:
    """The rows are unlocked between reading and writing."""

    transaction = Connection.transaction

    @asynccontextmanager
    async def in_two(self: Connection) -> AsyncIterator[Transaction]:
        kept: list[Changes] = []

        async def keep(changes: Changes) -> None:
            kept.append(changes)

        async with transaction(self) as reading:
            reading.write = keep  # type: ignore[method-assign]
            yield reading
        async with transaction(self) as writing:
            for changes in kept:
                await writing.write(changes)

    with patch.object(Connection, "transaction", in_two):
        yield


@_planted(GOES_ON, transfers=0.5)
def _bill_the_callers_channel() -> Iterator[None]:
    """A call is taken to last as long as the channel that made it."""

    def channel_ended(self: Batch, event: ChannelEnded) -> Changed:
        settled = []
        for call in self._calls.of_channel(Channel(event.node, event.uniqueid)):
            answered = call.state is CallState.ANSWERED
            what = CallEvent.END if answered else CallEvent.RELEASE
            settled.append(self._settle(call, end_of_channel(event, what)))
        return Changed(settled=tuple(s for s in settled if s is not None))

    with patch.object(Batch, "_channel_ended", channel_ended):
        yield


@_planted("due")
def _forget_the_increment() -> Iterator[None]:
    """Every rate is charged by the second."""

    def by_the_second(rate: Rate, seconds: int) -> int:
        return price(replace(rate, first_increment=1, next_increment=1), seconds)

    with patch.object(settlement, "price", by_the_second):
        yield


@_planted("not held", "not on record", faults="commits")
def _believe_a_lost_commit() -> Iterator[None]:
    """What an attempt without an answer would have booked is taken for booked: nobody asks."""

    lock = Transaction.lock

    async def all_recorded(self: Transaction, wanted: Wanted) -> Locked:
        return replace(await lock(self, wanted), recorded=frozenset(wanted.recorded))

    with patch.object(Transaction, "lock", all_recorded):
        yield


@_planted("not held", "not on record", faults="database-errors commits")
def _answer_before_the_commit() -> Iterator[None]:
    """A batch whose commit failed is answered all the same."""
    apply = Ledger.apply

    async def applied(
        self: Ledger, operations: Any, carried: Any, outcomes: list[Any], ahead: bool
    ) -> None:
        try:
            await apply(self, operations, carried, outcomes, ahead)
        except StorageError:
            if len(outcomes) < len(operations):
                raise

    with patch.object(Ledger, "apply", applied):
        yield


@_planted("2: counter")
def _forget_the_counters_on_a_reroute() -> Iterator[None]:
    """A call that goes on to its next route is still counted at the first."""
    reroute = Batch._reroute

    def rerouted(self: Batch, request: RouteRequest) -> Any:
        with patch.object(Batch, "_use", lambda self, occupancy, calls: None):
            return reroute(self, request)

    with patch.object(Batch, "_reroute", rerouted):
        yield


@_planted(GOES_ON, "not held")
def _expire_too_early() -> Iterator[None]:
    """A reservation's last second forgets that the call has to be set up first."""

    def soon(self: CallPolicy, now_ms: int, seconds: int) -> int:
        return now_ms + 1000

    with patch.object(CallPolicy, "expires_at_ms", soon):
        yield


@_planted("4:")
def _charge_above_the_reservation() -> Iterator[None]:
    """What Asterisk cuts too late is charged."""
    with patch.object(settlement, "min", lambda first, *others: first, create=True):
        yield


@_planted(f"recovery {GOES_ON}", faults="lists link-cuts")
def _trust_an_incomplete_list() -> Iterator[None]:
    """Nobody counts whether the list of channels is complete."""
    request_list = SimulatedSession.request_list

    async def some(self: SimulatedSession, action: str) -> Sequence[Any]:
        try:
            return await request_list(self, action)
        except AmiIncompleteError:
            return self._server.listed()[::2]

    with patch.object(SimulatedSession, "request_list", some):
        yield


@_planted("after its end", faults="controller-killed", controllers=1, calls=150)
def _adopt_nothing_after_a_restart() -> Iterator[None]:
    """A process that was restarted does not ask what became of the calls."""

    async def nothing(self: Any, node: str, peer: Any) -> recovery.Recovered:
        return recovery.Recovered()

    with patch.object(recovery.Recovery, "recover", nothing):
        yield


@_planted(f"recovery {GOES_ON}", faults="controller-killed", transfers=0.5, calls=150)
def _take_a_callers_end_for_its_legs() -> Iterator[None]:
    """Recovery looks for the caller's channel and not for the leg's."""
    of = recovery._Legs.of

    def with_caller(self: Any, call: Any) -> Any:
        return of(self, call) if call.uniqueid in self._live else None

    with patch.object(recovery._Legs, "of", with_caller):
        yield


@_planted("quota:")
def _forget_the_reservations_of_a_quota() -> Iterator[None]:
    """Only calls that have ended are counted against a quota."""
    with patch.object(Usage, "reserve", lambda self, *amount: self):
        yield


@_planted(GOES_ON, transfers=0.5)
def _settle_from_every_report() -> Iterator[None]:
    """What `h` reports is taken for the end of the leg, transfers or not."""
    with patch.object(Batch, "_is_listeners", lambda self, call, report: False):
        yield


@_planted("capacity:", calls=200)
def _one_call_more_than_there_is_room() -> Iterator[None]:
    """A capacity of N admits N + 1."""
    refusal = Limit.refusal

    def later(self: Limit, uses: Any) -> str:
        return refusal(replace(self, most=self.most and self.most + 1), uses)

    with patch.object(Limit, "refusal", later):
        yield


@_planted("after its end", "still open")
def _do_only_what_somebody_waits_for() -> Iterator[None]:
    """Ends are dropped: nobody asks whether they were booked."""

    def asked(self: _Item) -> bool:
        return not isinstance(self.operation, ChannelEnded)

    with patch.object(_Item, "wanted", property(asked)):
        yield


@_planted("Dial was told")
def _allow_longer_than_is_reserved() -> Iterator[None]:
    """Dial's limit is a minute longer than what is held."""

    def longer(seconds: int, warn: int, repeat: int) -> str:
        return limit_option(seconds + 60, warn, repeat)

    with patch.object(controller, "limit_option", longer):
        yield
