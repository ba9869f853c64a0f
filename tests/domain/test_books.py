"""The books of one client: what is free, and what each change does to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.books import ClientBooks, LedgerKind
from astcredit.domain.catalog import ClientKind
from support.core import NOW_MS, call_id, postpaid, prepaid

amounts = st.integers(-(10**12), 10**12)


@pytest.mark.parametrize(
    ("client", "available"),
    [
        (prepaid(balance=5), 5),
        (prepaid(balance=5, credit_limit=3), 8),
        (prepaid(balance=5, credit_limit=3, reserved=6), 2),
        (prepaid(balance=-5, credit_limit=3), -2),
        (postpaid(balance=-5, credit_limit=10), 5),
        (postpaid(balance=-5), None),
    ],
)
def test_available(client: ClientBooks, available: int | None) -> None:
    assert client.available == available


def test_only_a_postpaid_client_can_be_without_a_limit() -> None:
    """NULL in a prepaid client's row, put there by hand, is no credit and not all credit."""
    careless = ClientBooks(1, ClientKind.PREPAID, 500, None, 100, 1, 1)
    assert careless.available == 400


@given(st.lists(st.integers(0, 10**9), max_size=20))
def test_reserving_and_releasing_are_inverse(held: list[int]) -> None:
    start = books = prepaid()
    for count, amount in enumerate(held, 1):
        books = books.reserve(amount)
        assert (books.reserved, books.active_calls) == (sum(held[:count]), count)
        assert books.balance == start.balance
    for amount in reversed(held):
        books = books.release(amount)
    assert books == start


@given(st.lists(amounts, max_size=20))
def test_the_balance_is_the_sum_of_the_ledger(booked: list[int]) -> None:
    """Rows are numbered without a gap and each says the balance after it."""
    books, entries = prepaid(balance=0), []
    for amount in booked:
        books, entry = books.post(
            LedgerKind.ADJUSTMENT, amount, reference="r", actor="a", now_ms=NOW_MS
        )
        entries.append(entry)
    assert books.balance == sum(entry.amount for entry in entries) == sum(booked)
    assert [entry.seq for entry in entries] == list(range(1, len(booked) + 1))
    assert [entry.balance_after for entry in entries] == [
        sum(booked[:count]) for count in range(1, len(booked) + 1)
    ]
    assert (books.ledger_seq, books.reserved) == (len(booked), 0)


def test_a_ledger_row_says_what_it_was_for() -> None:
    _, entry = prepaid(id=7, balance=10).post(
        LedgerKind.CHARGE,
        -4,
        reference="call:x",
        actor="ami",
        now_ms=NOW_MS,
        call_id=call_id(1),
        note="n",
    )
    assert (entry.client_id, entry.seq, entry.kind) == (7, 1, LedgerKind.CHARGE)
    assert (entry.amount, entry.balance_after, entry.call_id) == (-4, 6, call_id(1))
    assert (entry.reference, entry.actor, entry.note) == ("call:x", "ami", "n")
    assert entry.created_at_ms == NOW_MS
