"""`astcredit audit` finds each kind of fault, and only there where it is."""

from __future__ import annotations

import asyncio

from astcredit.service.audit import MOST_FINDINGS, AuditResult
from astcredit.storage.audit import CALLS as ABOUT_CALLS
from astcredit.storage.audit import CAPACITY, CHECKS, CLIENTS, PLACES, SqlAuditor
from astcredit.storage.audit_corrections import CORRECTIONS
from astcredit.storage.audit_quotas import QUOTAS
from support.calls import BOOKINGS, CALLS, call_id, fill
from support.core import opened
from support.faults import Fault, as_expected, planted


def of(account: str, status: str, at: str = "") -> str:
    """The id of the first call of an account with that status."""
    return next(
        call_id(made)
        for made in CALLS
        if made.account == account and made.status == status and made.at.startswith(at)
    )


COMPLETED = of("anna-desk", "completed")
FAILED = of("anna-desk", "failed")
ANSWERED = of("anna-desk", "answered")
OPEN = of("anna-mobile", "open")
ANNA = "(SELECT id FROM astclient WHERE name = 'anna')"
BERT = "(SELECT id FROM astclient WHERE name = 'bert')"


SUM = "balance is the sum of the ledger"
LAST = "balance is the last balance_after"
COUNTED = "ledger rows are counted"
NUMBERED = "ledger rows are numbered 1, 2, 3 without a gap"
CHAIN = "each balance_after is the one before it plus the amount"
RESERVED = "reserved is the sum of the reservations"
ACTIVE = "active_calls counts the reservations"
PREPAID = "a prepaid client has no less than nothing"
LIMITED = "a prepaid client has a credit limit"
ONCE = "a call is charged at most once"
MOST = "a call costs no more than was reserved"
CHARGED = "a completed call is charged its price to its client"
COMPLETE = "what is charged is a completed call"
HELD = "a reservation has a call that is open or answered"
UNHELD = "a call that is open or answered has a reservation"
AMOUNT = "a reservation has the amount of its call"
OWNER = "a reservation has the client of its call"
COUNTER = "a counter is the number of reservations at its level"

FAULTS = (
    Fault(
        "a balance changed without a booking",
        ["UPDATE astclient SET balance = balance + 1 WHERE name = 'anna'"],
        {SUM: {"client anna"}, LAST: {"client anna"}},
    ),
    Fault(
        "the last booking lost, and the counter with it",
        [
            f"DELETE FROM astledger WHERE client_id = {ANNA} AND seq ="
            " (SELECT ledger_seq FROM astclient WHERE name = 'anna')",
            "UPDATE astclient SET ledger_seq = ledger_seq - 1 WHERE name = 'anna'",
        ],
        {SUM: {"client anna"}, LAST: {"client anna"}},
    ),
    Fault(
        "all bookings lost",
        ["DELETE FROM astledger WHERE reference = 'PAY-2'"],
        {SUM: {"client cara"}, COUNTED: {"client cara"}, NUMBERED: {"*"}, CHAIN: {"*"}},
    ),
    Fault(
        "a booking changed afterwards",
        ["UPDATE astledger SET amount = amount + 1 WHERE reference = 'PAY-1'"],
        {SUM: {"client anna"}, CHAIN: {"*"}},
    ),
    Fault(
        "a booking numbered anew",
        ["UPDATE astledger SET seq = 1000 WHERE reference = 'PAY-4'"],
        {LAST: {"client anna"}, NUMBERED: {"*"}, CHAIN: {"*"}},
    ),
    Fault(
        "two bookings swapped in amount, the sum as before",
        [
            "UPDATE astledger SET amount = amount + 1 WHERE reference = 'PAY-1'",
            "UPDATE astledger SET amount = amount - 1 WHERE reference = 'PAY-4'",
        ],
        {CHAIN: {"*"}},
    ),
    Fault(
        "the counter of bookings moved",
        ["UPDATE astclient SET ledger_seq = ledger_seq + 1 WHERE name = 'bert'"],
        {COUNTED: {"client bert"}},
    ),
    Fault(
        "a reservation leaked: the client's sum was not given back",
        ["UPDATE astclient SET reserved = reserved + 1 WHERE name = 'bert'"],
        {RESERVED: {"client bert"}},
    ),
    Fault(
        "the count of active calls drifted",
        ["UPDATE astclient SET active_calls = active_calls - 1 WHERE name = 'anna'"],
        {ACTIVE: {"client anna"}},
    ),
    Fault(
        "a prepaid client whose limit no longer covers its balance",
        ["UPDATE astclient SET credit_limit = -100000 WHERE name = 'cara'"],
        {PREPAID: {"client cara"}},
    ),
    Fault(
        "a prepaid client without a limit",
        ["UPDATE astclient SET credit_limit = NULL WHERE name = 'cara'"],
        {LIMITED: {"client cara"}},
    ),
    Fault(
        "a call charged twice",
        [
            "INSERT INTO astledger (client_id, seq, kind, amount, balance_after, call_id,"
            " reference, actor, note, date_created)"
            " SELECT c.id, c.ledger_seq + 1, 'charge', l.amount, c.balance + l.amount, l.call_id,"
            " 'again', 'x', '', l.date_created FROM astledger l JOIN astclient c"
            f" ON c.id = l.client_id WHERE l.call_id = '{COMPLETED}'",
            "UPDATE astclient SET ledger_seq = ledger_seq + 1, balance = balance +"
            f" (SELECT SUM(amount) / 2 FROM astledger WHERE call_id = '{COMPLETED}')"
            " WHERE name = 'anna'",
        ],
        {ONCE: {f"call {COMPLETED}"}},
    ),
    Fault(
        "a call that cost more than was reserved",
        [f"UPDATE astcdr SET reservedamount = price / 2 WHERE id = '{COMPLETED}'"],
        {MOST: {f"call {COMPLETED}"}},
    ),
    Fault(
        "a price that is not what was charged",
        [f"UPDATE astcdr SET price = price / 2 WHERE id = '{COMPLETED}'"],
        {CHARGED: {f"call {COMPLETED}"}},
    ),
    Fault(
        "a completed call without a price",
        [f"UPDATE astcdr SET price = NULL WHERE id = '{COMPLETED}'"],
        {CHARGED: {f"call {COMPLETED}"}},
    ),
    Fault(
        "a charge on another client",
        [f"UPDATE astcdr SET client_id = {BERT} WHERE id = '{COMPLETED}'"],
        {CHARGED: {f"call {COMPLETED}"}},
    ),
    Fault(
        "a completed call whose charge is another call's",
        [f"UPDATE astledger SET call_id = '{FAILED}' WHERE call_id = '{COMPLETED}'"],
        {CHARGED: {f"call {COMPLETED}"}, COMPLETE: {"*"}},
    ),
    Fault(
        "a charge without any call",
        [f"UPDATE astledger SET call_id = NULL WHERE call_id = '{COMPLETED}'"],
        {CHARGED: {f"call {COMPLETED}"}, COMPLETE: {"*"}},
    ),
    Fault(
        "a call that ended and kept its reservation",
        [f"UPDATE astcdr SET status = 'failed' WHERE id = '{OPEN}'"],
        {HELD: {f"reservation {OPEN}"}},
    ),
    Fault(
        "a reservation without a call",
        [f"DELETE FROM astcdr WHERE id = '{ANSWERED}'"],
        {HELD: {f"reservation {ANSWERED}"}},
    ),
    Fault(
        "a call whose reservation is gone",
        [
            "UPDATE astclient SET active_calls = active_calls - 1, reserved = reserved -"
            f" (SELECT reservedamount FROM astcreditres WHERE call_id = '{OPEN}')"
            " WHERE name = 'anna'",
            f"DELETE FROM astcreditres WHERE call_id = '{OPEN}'",
        ],
        {UNHELD: {f"call {OPEN}"}, COUNTER: {"*"}},
    ),
    Fault(
        "a reservation of another amount than its call's",
        [f"UPDATE astcdr SET reservedamount = reservedamount * 2 WHERE id = '{OPEN}'"],
        {AMOUNT: {f"reservation {OPEN}"}},
    ),
    Fault(
        "a reservation of another client than its call's",
        [f"UPDATE astcdr SET client_id = {BERT} WHERE id = '{OPEN}'"],
        {OWNER: {f"reservation {OPEN}"}},
    ),
    Fault(
        "a reservation of no client",
        [
            f"UPDATE astcdr SET client_id = 999999 WHERE id = '{OPEN}'",
            f"UPDATE astcreditres SET client_id = 999999 WHERE call_id = '{OPEN}'",
        ],
        {OWNER: {f"reservation {OPEN}"}, RESERVED: {"client anna"}, ACTIVE: {"client anna"}},
    ),
)


def test_good_books_are_in_order_and_every_planted_fault_is_named(database_url: str) -> None:
    async def run() -> None:
        async with opened(database_url) as database:
            await fill(database)
            clean = await SqlAuditor(database).examine()
            assert clean.findings == []
            charges = sum(made.status == "completed" for made in CALLS)
            assert (clean.clients, clean.calls) == (4, len(CALLS))
            assert clean.ledger_rows == len(BOOKINGS) + charges
            for fault in FAULTS:
                result = await planted(database, fault)
                assert as_expected(fault, result), (fault.what, result.findings)
            assert (await SqlAuditor(database).examine()).in_order

    asyncio.run(run())


def test_every_check_of_money_is_shown_to_bite() -> None:
    """Those of corrections, capacity and routes, and quotas have test modules of their own."""
    shown = {check for fault in FAULTS for check in fault.found} - {COUNTER}
    assert shown == {check.name for check in (*CLIENTS, *ABOUT_CALLS)}
    assert (*CLIENTS, *ABOUT_CALLS, *CORRECTIONS, *CAPACITY, *PLACES, *QUOTAS) == CHECKS
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_a_finding_says_what_was_expected_and_what_found(database_url: str) -> None:
    fault = Fault(
        "",
        ["UPDATE astclient SET reserved = reserved + 1, active_calls = 7 WHERE name = 'cara'"],
        {},
    )

    async def run() -> tuple[AuditResult, str]:
        async with opened(database_url) as database:
            await fill(database)
            return await planted(database, fault), database.engine.dialect.name

    result, kind = asyncio.run(run())
    shown = {f.check: (f.object, f.expected, f.found) for f in result.findings}
    one = "0.000001" if kind == "sqlite" else "1.000000"  # an integer is a millionth
    assert shown[RESERVED] == ("client cara", "0.000000", one)
    assert shown[ACTIVE] == ("client cara", "0", "7")


def test_a_check_with_endless_findings_is_cut_and_says_so(sqlite_url: str) -> None:
    async def run() -> AuditResult:
        async with opened(sqlite_url) as database:
            await fill(database)
            async with database.transaction() as connection:
                await connection.exec_driver_sql(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <"
                    f" {MOST_FINDINGS + 5}) INSERT INTO astclient (name, kind, currency, balance,"
                    " credit_limit, date_created) SELECT 'c' || i, 'prepaid', 'EUR', 1, 0, ''"
                    " FROM n"
                )
            return await SqlAuditor(database).examine()

    result = asyncio.run(run())
    assert result.more
    per_check = {check.name: 0 for check in CHECKS}
    for finding in result.findings:
        per_check[finding.check] += 1
    assert per_check[SUM] == per_check[LAST] == MOST_FINDINGS
