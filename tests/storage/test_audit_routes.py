"""`astcredit audit` on capacity and routes: each kind of fault is found, and only where it is."""

from __future__ import annotations

import asyncio

import pytest

from astcredit.storage.audit import CAPACITY, PLACES, SqlAuditor
from support.calls import query
from support.core import opened
from support.faults import Fault, as_expected, planted
from support.routed_calls import ROUTED, fill_routed


def of(account: str, status: str, terminator: str | None) -> str:
    """The id of the first call of an account with that status and terminator."""
    return next(
        call.id
        for call in ROUTED
        if (call.account, call.status, call.terminator) == (account, status, terminator)
    )


OPEN = of("anna-desk", "open", "ca")
COMPLETED = of("anna-desk", "completed", "ca")
FAILED = of("anna-desk", "failed", "ca")
TRUNK = of("bert", "completed", None)
BERT, CB, SOUTH, LONGHAUL = 5, 7, 2, 5
"""Ids in the order in which support.routed_calls makes accounts, resellers and clients."""

COUNTERS = {
    "reseller:1:orig": 2,
    "account:1:orig": 1,
    "account:2:orig": 1,
    "account:5:orig": 1,
    "route:1:term": 1,
    "route:2:term": 1,
    "account:6:term": 1,
    "account:7:term": 1,
    "client:4:term": 2,
    "reseller:3:term": 2,
}
"""The calls that are up in support.routed_calls, at every level."""

COUNTER = "a counter is the number of reservations at its level"
NAMED = "a counter has the name of what it counts"
ACCOUNT = "a reservation has the account of its call"
RESELLER = "a reservation has the reseller of its call"
ROUTE = "a reservation has the route of its call"
TERMINATOR = "a reservation has the terminator of its call"
TERM_CLIENT = "a reservation has the client of its terminator"
OF_ROUTE = "a call has the terminator of its route"
BOTH = "a call has a terminator and its rate, or neither"
OURCOST = "a call has ourcost once it is completed and has a terminator's rate"

DRIFTS = [
    Fault(
        f"{key} {by:+}",
        [f"UPDATE astcapacity SET calls = calls + {by} WHERE id = '{key}'"],
        {COUNTER: {f"counter {key}"}},
    )
    for key in COUNTERS
    for by in (1, -1)
]

FAULTS = (
    *DRIFTS,
    Fault(
        "a counter lost",
        ["DELETE FROM astcapacity WHERE id = 'route:2:term'"],
        {COUNTER: {"counter route:2:term"}},
    ),
    Fault(
        "a counter that nobody is counted by",
        ["INSERT INTO astcapacity VALUES ('route:99:term', 'route', 99, 'term', 1)"],
        {COUNTER: {"counter route:99:term"}},
    ),
    Fault(
        "a counter that a client's row has already",
        ["INSERT INTO astcapacity VALUES ('client:1:orig', 'client', 1, 'orig', 2)"],
        {COUNTER: {"counter client:1:orig"}},
    ),
    *(
        Fault(
            f"a counter of another {column}",
            [f"UPDATE astcapacity SET {column} = {value} WHERE id = 'account:6:term'"],
            {NAMED: {"counter account:6:term"}},
        )
        for column, value in (
            ("scope", "'client'"),
            ("object_id", "7"),
            ("direction", "'orig'"),
        )
    ),
    Fault(
        "a reservation counted for another account than its call's",
        [f"UPDATE astcdr SET account_id = {BERT} WHERE id = '{OPEN}'"],
        {ACCOUNT: {f"reservation {OPEN}"}},
    ),
    Fault(
        "a reservation counted for a reseller, its call for none",
        [f"UPDATE astcdr SET reseller_id = NULL WHERE id = '{OPEN}'"],
        {RESELLER: {f"reservation {OPEN}"}},
    ),
    Fault(
        "a reservation counted for another reseller than its call's",
        [f"UPDATE astcreditres SET reseller_id = {SOUTH} WHERE call_id = '{OPEN}'"],
        {
            RESELLER: {f"reservation {OPEN}"},
            COUNTER: {"counter reseller:1:orig", "counter reseller:2:orig"},
        },
    ),
    Fault(
        "a call moved to another route, its reservation not",
        [f"UPDATE astcdr SET route_id = 2, term_account_id = {CB} WHERE id = '{OPEN}'"],
        {ROUTE: {f"reservation {OPEN}"}, TERMINATOR: {f"reservation {OPEN}"}},
    ),
    Fault(
        "a reservation counted for another client than its terminator's",
        [f"UPDATE astcreditres SET term_client_id = {LONGHAUL} WHERE call_id = '{OPEN}'"],
        {
            TERM_CLIENT: {f"reservation {OPEN}"},
            COUNTER: {"counter client:4:term", "counter client:5:term"},
        },
    ),
    Fault(
        "a completed call owed to another terminator than its route's",
        [f"UPDATE astcdr SET term_account_id = {CB} WHERE id = '{COMPLETED}'"],
        {OF_ROUTE: {f"call {COMPLETED}"}},
    ),
    Fault(
        "a route that is not there",
        [f"UPDATE astcdr SET route_id = 99 WHERE id = '{COMPLETED}'"],
        {OF_ROUTE: {f"call {COMPLETED}"}},
    ),
    Fault(
        "a terminator without its rate",
        [f"UPDATE astcdr SET cost_rate = NULL WHERE id = '{FAILED}'"],
        {BOTH: {f"call {FAILED}"}},
    ),
    Fault(
        "a terminator's rate on the dialplan's own trunk",
        [f"UPDATE astcdr SET cost_rate = 1, ourcost = 1 WHERE id = '{TRUNK}'"],
        {BOTH: {f"call {TRUNK}"}},
    ),
    Fault(
        "a completed call whose cost is not known",
        [f"UPDATE astcdr SET ourcost = NULL WHERE id = '{COMPLETED}'"],
        {OURCOST: {f"call {COMPLETED}"}},
    ),
    Fault(
        "a cost without an answer",
        [f"UPDATE astcdr SET ourcost = 0 WHERE id = '{FAILED}'"],
        {OURCOST: {f"call {FAILED}"}},
    ),
)


def test_good_books_are_in_order_and_every_planted_fault_is_named(database_url: str) -> None:
    async def run() -> None:
        async with opened(database_url) as database:
            await fill_routed(database)
            auditor = SqlAuditor(database)
            assert (await auditor.examine()).findings == []
            rows = await query(database, "SELECT id, calls FROM astcapacity WHERE calls <> 0")
            assert {row["id"]: row["calls"] for row in rows} == COUNTERS
            for fault in FAULTS:
                result = await planted(database, fault)
                assert as_expected(fault, result), (fault.what, result.findings)
            assert (await auditor.examine()).in_order

    asyncio.run(run())


def test_every_check_is_shown_to_bite() -> None:
    shown = {check for fault in FAULTS for check in fault.found}
    assert shown == {check.name for check in (*CAPACITY, *PLACES)}


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        (
            "UPDATE astcapacity SET calls = 3 WHERE id = 'route:2:term'",
            (COUNTER, "counter route:2:term", "1", "3"),
        ),
        (
            "UPDATE astcapacity SET scope = 'client' WHERE id = 'account:6:term'",
            (NAMED, "counter account:6:term", "client:6:term", "account:6:term"),
        ),
        (
            f"UPDATE astcdr SET account_id = NULL WHERE id = '{OPEN}'",
            (ACCOUNT, f"reservation {OPEN}", "none", "1"),
        ),
        (
            f"UPDATE astcdr SET ourcost = NULL WHERE id = '{COMPLETED}'",
            (OURCOST, f"call {COMPLETED}", "an amount", "none"),
        ),
    ],
)
def test_a_finding_says_what_was_expected_and_what_found(
    database_url: str, fault: str, shown: tuple[str, ...]
) -> None:
    async def run() -> list[tuple[str, ...]]:
        async with opened(database_url) as database:
            await fill_routed(database)
            result = await planted(database, Fault("", [fault], {}))
            return [(f.check, f.object, f.expected, f.found) for f in result.findings]

    assert asyncio.run(run()) == [shown]
