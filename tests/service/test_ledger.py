"""Operations on the books: what each does, alone, in a batch with others, late and twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.catalog import Catalog, ClientKind
from astcredit.domain.decisions import Decision
from astcredit.service.ledger import Ledger
from astcredit.service.operations import Changed, Expire, Operation, Outcome, Undelivered
from support.core import (
    NOW_MS,
    Clock,
    FixedCatalog,
    answered,
    call_id,
    caller_ended,
    catalog_of,
    hangup,
    identified,
    leg_ended,
    policy,
    postpaid,
    prepaid,
    request,
)
from support.memory_books import CdrRow, Fault, MemoryBooks, Snapshot, audit

FUNDS = 10_000_000


class World:
    """Books of two clients and a ledger on them; each `play` is a batch."""

    def __init__(self, books: MemoryBooks | None = None, *, denied_cdr: bool = True) -> None:
        self.books = books or MemoryBooks([prepaid(1, FUNDS), prepaid(2, FUNDS)])
        self.clock = Clock()
        self.ledger = Ledger(
            self.books, FixedCatalog(), policy(), self.clock, denied_cdr=denied_cdr
        )

    def play(self, *operations: Operation) -> list[Outcome]:
        """Apply the operations in one transaction; the books must be right after it."""
        outcomes: list[Outcome] = []
        asyncio.run(self.ledger.apply(operations, {}, outcomes))
        assert audit(self.now) == []
        return outcomes

    @property
    def now(self) -> Snapshot:
        return self.books.snapshot()

    def cdr(self, number: int = 1) -> CdrRow:
        return self.now.cdr(call_id(number))


def play(operations: Sequence[Operation], together: bool) -> World:
    """A new world after the operations, in one batch or each in its own."""
    world = World()
    if together:
        world.play(*operations)
    else:
        for operation in operations:
            world.play(operation)
    return world


one_or_many = pytest.mark.parametrize("together", [False, True], ids=["single", "together"])


@one_or_many
def test_a_call_from_authorization_to_settlement(together: bool) -> None:
    at_ms = NOW_MS + 8_000
    world = play([request(), answered(at_ms=at_ms), leg_ended(at_ms=at_ms + 2_003)], together)
    cdr = world.cdr()
    assert (cdr.status, cdr.talk_ms, cdr.billsec, cdr.price) == ("completed", 2_003, 3, 3_000)
    assert (cdr.answered_at_ms, cdr.ended_at_ms) == (at_ms, at_ms + 2_003)
    assert (cdr.leg_uniqueid, cdr.settled_by, cdr.estimated) == ("leg-1", "ami", False)
    assert world.now.client(1).balance == FUNDS - 3_000
    assert world.now.reservations == ()


@one_or_many
@pytest.mark.parametrize("by_id", [True, False], ids=["by id", "by channel"])
def test_the_answered_leg_is_known_by_the_calls_id_or_by_its_channel(
    by_id: bool, together: bool
) -> None:
    world = play([request(1), request(2), answered(1, by_id=by_id)], together)
    assert (world.cdr(1).status, world.cdr(2).status) == ("answered", "open")


@one_or_many
def test_without_an_id_the_newest_call_of_the_channel_is_meant(together: bool) -> None:
    """A channel whose first call failed without a word makes a second one."""
    first, second = request(1, channel="c"), request(2, channel="c")
    world = play([first, second, answered(2, channel="c", by_id=False)], together)
    assert (world.cdr(1).status, world.cdr(2).status) == ("open", "answered")


@one_or_many
def test_a_channel_of_the_same_name_on_another_server_is_another(together: bool) -> None:
    world = play([request(1, node="pbx2"), answered(1, by_id=False), caller_ended(1)], together)
    assert world.cdr().status == "open"


@one_or_many
def test_a_late_answer_of_the_first_call_is_not_the_second_ones(together: bool) -> None:
    """Two processes listen to one Asterisk. The slower one tells of the channel's first call when
    its second is being set up: that must be billed from its own leg."""
    first: list[Operation] = [answered(1, channel="c"), leg_ended(1, NOW_MS + 5_000)]
    second: list[Operation] = [
        answered(2, NOW_MS + 60_000, channel="c"),
        leg_ended(2, NOW_MS + 160_000),
    ]
    late = [request(2, channel="c"), *first, *second]
    world = play([request(1, channel="c"), *first, *late], together)
    assert (world.cdr(1).price, world.cdr(2).price) == (5_000, 100_000)


@one_or_many
def test_a_late_hangup_report_names_the_call_that_it_ends(together: bool) -> None:
    done: list[Operation] = [request(1), answered(1), leg_ended(1, NOW_MS + 5_000)]
    second = request(2, channel="caller-1")
    world = play([*done, second, hangup(1, talk_ms=5_000)], together)
    assert (world.cdr(1).status, world.cdr(2).status) == ("completed", "open")


@one_or_many
def test_the_callers_end_does_not_end_an_answered_leg(together: bool) -> None:
    """After a blind transfer the caller is gone and the carrier's meter runs on."""
    start: list[Operation] = [
        request(),
        answered(),
        caller_ended(at_ms=NOW_MS + 1_000, dialstatus="ANSWER"),
    ]
    assert play(start, together).cdr().status == "answered"
    ended = play([*start, leg_ended(at_ms=NOW_MS + 90_000)], together)
    assert (ended.cdr().talk_ms, ended.cdr().price) == (90_000, 90_000)


@one_or_many
def test_a_caller_that_was_not_answered_is_released(together: bool) -> None:
    world = play([request(), caller_ended(at_ms=NOW_MS + 9_000)], together)
    cdr = world.cdr()
    assert (cdr.status, cdr.dialstatus, cdr.price, cdr.billsec) == ("failed", "BUSY", 0, 0)
    assert cdr.dialed_at_ms == NOW_MS + 6_000
    assert (world.now.client(1).balance, world.now.client(1).reserved) == (FUNDS, 0)


@one_or_many
def test_a_transferred_leg_is_the_first_calls_leg_and_the_second_ones_caller(
    together: bool,
) -> None:
    """Its end settles the call that it was the leg of, and leaves the one that it made."""
    start: list[Operation] = [request(1), answered(1, leg="x"), request(2, channel="x")]
    both: list[Operation] = [
        *start,
        answered(2, NOW_MS + 1_000, channel="x"),
        leg_ended(1, NOW_MS + 4_000, "x"),
    ]
    world = play(both, together)
    assert (world.cdr(1).status, world.cdr(2).status) == ("completed", "answered")
    world.play(leg_ended(2, NOW_MS + 9_000))
    assert (world.cdr(1).price, world.cdr(2).price) == (4_000, 8_000)
    unanswered = play([*start, leg_ended(1, NOW_MS + 4_000, "x")], together)
    assert (unanswered.cdr(1).status, unanswered.cdr(2).status) == ("completed", "failed")


AMI_END: Operation = leg_ended(at_ms=NOW_MS + 10_000)
H_END: Operation = hangup(at_ms=NOW_MS + 10_004, talk_ms=9_001)


@one_or_many
@pytest.mark.parametrize(
    ("ends", "by", "price"),
    [
        ([AMI_END, H_END], "ami", 10_000),
        ([H_END, AMI_END], "hangup", 10_000),
        ([AMI_END, AMI_END], "ami", 10_000),
        ([H_END, H_END], "hangup", 10_000),
        ([AMI_END, H_END, AMI_END, Undelivered(call_id(1), NOW_MS)], "ami", 10_000),
    ],
)
def test_whoever_comes_second_changes_nothing(
    ends: list[Operation], by: str, price: int, together: bool
) -> None:
    world = play([request(), answered(), ends[0]], together=False)
    settled = world.now
    if together:
        outcomes = world.play(*ends[1:])
    else:
        outcomes = [outcome for end in ends[1:] for outcome in world.play(end)]
    assert world.now == settled
    assert all(outcome == Changed() for outcome in outcomes)
    assert (world.cdr().settled_by, world.cdr().price) == (by, price)


@one_or_many
@pytest.mark.parametrize(
    ("report", "status", "talk_ms", "estimated"),
    [
        (hangup(talk_ms=2_500), "completed", 2_500, False),
        (hangup(talk_ms=2_500, by_id=False), "completed", 2_500, False),
        (hangup(talk_ms=2_500, dialstatus=""), "completed", 2_500, True),
        (hangup(talk_ms=2_500, transfer="PJSIP/x"), "completed", 2_500, True),
        (hangup(dialstatus="NOANSWER"), "failed", None, False),
        (hangup(dialstatus="CANCEL", transfer="PJSIP/x"), "failed", None, False),
        (hangup(dialstatus=""), "failed", None, False),
    ],
)
def test_where_there_is_no_ami_the_hangup_report_settles(
    report: Operation, status: str, talk_ms: int | None, estimated: bool, together: bool
) -> None:
    cdr = play([request(), report], together).cdr()
    assert (cdr.status, cdr.talk_ms, cdr.estimated) == (status, talk_ms, estimated)
    assert cdr.settled_by == "hangup"


class ListensTo:
    """AMI links to one node."""

    def __init__(self, node: str) -> None:
        self._node = node

    def configured(self, node: str) -> bool:
        return node == self._node

    def up(self, node: str) -> bool:
        return node == self._node


@pytest.mark.parametrize(("listened", "status"), [("pbx1", "answered"), ("other", "completed")])
def test_whether_there_is_a_listener_is_asked_of_the_calls_own_node(
    listened: str, status: str
) -> None:
    """The report may come from an address of another node, or of none."""
    books = MemoryBooks([prepaid(1, FUNDS)])
    world = World(books)
    world.ledger = Ledger(books, FixedCatalog(), policy(), world.clock, links=ListensTo(listened))
    world.play(request(), answered())
    report = replace(hangup(talk_ms=3_000, transfer="PJSIP/x"), node="default")
    world.play(report)
    assert world.cdr().status == status


def test_a_channel_that_goes_on_without_reporting_leaves_no_reservation() -> None:
    """Without a listener nobody else could tell: it is shown to the accountant."""
    clients = MemoryBooks([prepaid(1, 10 * FUNDS), prepaid(2, FUNDS)])
    world = World(clients)
    world.play(request(1, channel="one"), request(2, channel="one"))
    world.play(replace(hangup(2, talk_ms=3_000), uniqueid="one"))
    assert [world.cdr(n).status for n in (1, 2)] == ["failed", "completed"]
    assert [world.cdr(n).estimated for n in (1, 2)] == [True, False]
    assert world.now.client(1).reserved == 0


def test_a_report_from_another_channel_ends_no_other_call() -> None:
    """It names its call; of that call's channel it says nothing."""
    world = World(MemoryBooks([prepaid(1, 10 * FUNDS), prepaid(2, FUNDS)]))
    world.play(request(1, channel="one"), request(2, channel="one"))
    world.play(hangup(2, talk_ms=3_000), answered(9, channel="one"))
    assert [world.cdr(n).status for n in (1, 2)] == ["open", "completed"]


def test_an_answer_of_a_call_that_is_over_is_told() -> None:
    world = play([request(), caller_ended()], True)
    (outcome,) = world.play(answered(by_id=True))
    assert isinstance(outcome, Changed)
    assert outcome.unreserved is not None
    assert world.cdr().status == "failed"


def test_a_release_without_any_dialling_heard_is_shown_to_the_accountant() -> None:
    assert play([request(), caller_ended(dialstatus="")], True).cdr().estimated
    assert not play([request(), caller_ended(dialstatus="BUSY")], True).cdr().estimated


@one_or_many
def test_what_was_not_delivered_is_given_back_unless_it_was_answered(together: bool) -> None:
    gone = Undelivered(call_id(1), NOW_MS + 50)
    released = play([request(), gone, answered()], together)
    assert (released.cdr().status, released.cdr().settled_by) == ("failed", "undelivered")
    assert released.now.client(1).reserved == 0
    assert play([request(), answered(), gone], together).cdr().status == "answered"


@one_or_many
@pytest.mark.parametrize("was_answered", [False, True])
def test_a_reservation_expires_at_its_time_and_not_before(
    was_answered: bool, together: bool
) -> None:
    world = play([request(), answered()] if was_answered else [request()], together)
    expires_at_ms = world.books.calls[call_id(1)].expires_at_ms
    world.clock.now_ms = expires_at_ms - 1
    before = world.now
    world.play(Expire(call_id(1), expires_at_ms))
    assert world.now == before
    world.clock.now_ms = expires_at_ms
    world.play(Expire(call_id(1), expires_at_ms))
    cdr = world.cdr()
    assert (cdr.status, cdr.price) == (("completed", 3_600_000) if was_answered else ("failed", 0))
    assert (cdr.estimated, cdr.settled_by) == (True, "expiry")


@one_or_many
def test_the_report_of_a_leg_is_not_the_report_of_its_call(together: bool) -> None:
    """A transferred leg runs the dialplan, and its `h` extension reports how that went."""
    of_leg = replace(hangup(talk_ms=700_000, by_id=False), uniqueid="leg-1")
    assert play([request(), answered(), of_leg], together).cdr().status == "answered"


def test_what_the_first_took_is_gone_for_the_second() -> None:
    world = World(MemoryBooks([prepaid(1, 5_000_000)]))
    outcomes = world.play(*(request(n) for n in range(1, 4)))
    assert [o.seconds for o in outcomes if isinstance(o, Decision)] == [3_600, 1_400, 0]
    assert world.now.statuses() == {"open": 2, "NOCREDIT": 1}


def test_an_ending_before_a_request_in_the_same_batch_frees_the_money() -> None:
    world = World(MemoryBooks([prepaid(1, 3_600_000)]))
    world.play(request(1))
    outcomes = world.play(caller_ended(1), request(2))
    assert [o.allowed for o in outcomes if isinstance(o, Decision)] == [True]


@pytest.mark.parametrize("number", [1, 2])
def test_refusals_leave_a_row_unless_that_is_switched_off(number: int) -> None:
    ask = request(1, "mallory") if number == 1 else request(1, dialled="sales")
    kept, dropped = World(), World(denied_cdr=False)
    for world in (kept, dropped):
        world.play(ask)
    assert kept.now.statuses() == {"NOACCOUNT" if number == 1 else "INVALID": 1}
    assert dropped.now.cdrs == ()


def test_an_emergency_call_without_an_account_is_allowed_and_no_client_pays() -> None:
    world = World()
    (outcome,) = world.play(request(1, "mallory", "112"))
    assert isinstance(outcome, Decision)
    assert outcome.allowed
    assert world.now.reservations == ()


def test_an_emergency_call_with_an_account_goes_its_way_at_no_charge() -> None:
    world = World(MemoryBooks([prepaid(1, -5)]))
    outcomes: list[Outcome] = []
    asyncio.run(world.ledger.apply([request(1, "alice", "112")], {}, outcomes))
    asyncio.run(world.ledger.apply([answered(), leg_ended(at_ms=NOW_MS + 9_000)], {}, outcomes))
    assert (world.cdr().status, world.cdr().price) == ("completed", 0)
    assert world.now.client(1).balance == -5


class NoCatalog(FixedCatalog):
    """A catalog that cannot be read."""

    async def at_least(self, version: int) -> Catalog:
        raise ValueError("two accounts are identified by one name")


def test_endings_are_settled_while_the_catalog_cannot_be_read() -> None:
    world = World()
    world.play(request(), answered())
    broken = Ledger(world.books, NoCatalog(), policy(), world.clock)
    asyncio.run(broken.apply([leg_ended(at_ms=NOW_MS + 1_000)], {}, []))
    assert world.cdr().price == 1_000


def test_a_failed_transaction_changes_nothing() -> None:
    world = World()
    world.play(request(1))
    before = world.now
    world.books.faults.extend([Fault.TRANSIENT, Fault.LOST_AT_COMMIT])
    for _ in range(2):
        with pytest.raises(Exception, match="staged"):
            world.play(request(2), answered(1), leg_ended(1))
        assert world.now == before


# Any operations, in any order, twice and from several processes, in any batches


def some_operations(numbers: Iterable[int]) -> st.SearchStrategy[Operation]:
    number = st.sampled_from(list(numbers))
    later = st.integers(0, 4_000_000).map(lambda ms: NOW_MS + ms)
    # Legs and callers meet: leg 1 is the calling channel of call 3.
    channels = st.sampled_from(["", "shared", "leg-1"])
    return st.one_of(
        st.builds(answered, number, later, by_id=st.booleans(), channel=channels),
        st.builds(leg_ended, number, later),
        st.builds(caller_ended, number, later, channel=channels),
        st.builds(
            hangup,
            number,
            later,
            talk_ms=st.sampled_from([0, 1, 999, 60_000, 10**7]),
            dialstatus=st.sampled_from(["ANSWER", "BUSY", ""]),
            transfer=st.sampled_from(["", "PJSIP/x"]),
            by_id=st.booleans(),
        ),
        st.builds(Undelivered, number.map(call_id), later),
        st.builds(Expire, number.map(call_id), later),
    )


def calls(numbers: Iterable[int]) -> list[Operation]:
    who, channels = ["alice", "bob", "alan", "mallory"], ["", "shared", "leg-1"]
    return [
        request(n, who[n % 4], "112" if n == 5 else "442071234567", channels[n % 3])
        for n in numbers
    ]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Operation], list[Operation]]:
    """Calls of long ago, and what happens now: new calls, and events of both, some twice."""
    fresh: list[Operation] = draw(st.permutations(calls(range(4, 8))))
    events = draw(st.lists(some_operations(range(1, 9)), max_size=14))
    again = draw(st.lists(st.sampled_from(events), max_size=4)) if events else []
    return calls(range(1, 4)), draw(st.permutations([*fresh, *events, *again]))


def cut(operations: list[Operation], sizes: list[int]) -> list[list[Operation]]:
    """The operations in batches of the sizes, the rest in one."""
    batches = []
    for size in sizes:
        batches.append(operations[:size])
        operations = operations[size:]
    return [batch for batch in [*batches, operations] if batch]


@given(history=histories(), sizes=st.lists(st.integers(1, 8)), limit=st.booleans())
def test_a_batch_is_the_same_as_its_operations_one_by_one(
    history: tuple[list[Operation], list[Operation]], sizes: list[int], limit: bool
) -> None:
    """And after each transaction the books are right, whatever came in whatever order."""
    before, now = history
    worlds = [
        World(MemoryBooks([prepaid(1, 5_000_000), postpaid(2, 0, 9_000_000 if limit else None)]))
        for _ in range(2)
    ]
    outcomes: list[list[Outcome]] = []
    for world, batches in zip(worlds, (cut(now, sizes), cut(now, [1] * len(now))), strict=True):
        for operation in before:
            world.play(operation)
        world.clock.now_ms += 2_000_000
        outcomes.append([outcome for batch in batches for outcome in world.play(*batch)])
    assert outcomes[0] == outcomes[1]
    assert worlds[0].now == worlds[1].now
    assert worlds[0].now.client(1).kind is ClientKind.PREPAID


def test_the_small_world_has_no_ambiguous_account() -> None:
    """What the histories stand on: mallory is nobody, the others are."""
    catalog = catalog_of()
    assert [bool(identified(catalog, n)) for n in ("alice", "bob", "alan", "mallory")] == [
        True,
        True,
        True,
        False,
    ]
