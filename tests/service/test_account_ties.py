"""Accounts that would answer to the same calls, found before they are written."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.accounts import AmbiguousAccountsError, IdentKind
from astcredit.domain.identification import Identities, conflicts
from astcredit.service.account_ports import Account
from astcredit.service.account_ties import recognised, recognised_alike, ties

IDENTS = {
    IdentKind.NAME: ("10.0.0.1", "44", "b"),
    IdentKind.IP: ("10.0.0.1", "10.0.0.0/24", "10.0.0.1:5060"),
    IdentKind.ANI: ("44", "44*"),
}


@st.composite
def accounts(draw: st.DrawFn) -> list[Account]:
    """A few accounts of one client that often want the same."""
    made = []
    for id in range(1, draw(st.integers(1, 5)) + 1):
        kind = draw(st.sampled_from(IdentKind))
        idents = draw(st.lists(st.sampled_from(IDENTS[kind]), min_size=1, unique=True))
        gateways = draw(st.lists(st.sampled_from(("pbx1", "pbx2")), unique=True))
        prefix = draw(st.sampled_from(("", "77")))
        name = f"account{id}"
        made.append(
            Account(
                name,
                "acme",
                tuple(idents),
                id=id,
                ident_by=kind,
                tech_prefix=prefix,
                gateways=tuple(gateways),
            )
        )
    return made


@given(accounts())
def test_ties_are_those_that_the_servers_index_refuses(made: list[Account]) -> None:
    found = list(ties(made, ()))
    try:
        Identities.of(map(recognised, made))
    except AmbiguousAccountsError:
        assert found
    else:
        assert not found


@given(accounts())
def test_one_account_ties_with_another_if_the_domain_says_so(made: list[Account]) -> None:
    first, *others = made
    expected = [one for one in others if conflicts(recognised(first), recognised(one))]
    errors = [error for _, error in ties([first], others)]
    assert bool(errors) == bool(expected)
    for error in errors:
        assert repr(first.name) in str(error)
        assert any(repr(one.name) in str(error) for one in expected)


NAMED = Account("foo", "acme", ("10.0.0.5",), ident_by=IdentKind.IP)


@pytest.mark.parametrize(
    ("changed", "other", "expected"),
    [
        (
            Account("bar", "beta", ("x", "foo")),
            NAMED,
            "ident 'foo': expected an ident of its own: account 'bar' would be identified by"
            " another account's name; 'foo' is an account of client 'acme'",
        ),
        (
            NAMED,
            Account("bar", "beta", ("x", "foo")),
            "name 'foo': expected a name that no other account is identified by: account 'bar' is"
            " identified by the name 'foo'; 'bar' is an account of client 'beta'",
        ),
        # neither tech prefix nor gateway tells who is meant by a name
        (Account("bar", "beta", ("foo",), tech_prefix="77"), NAMED, "'bar' would be identified"),
        (Account("bar", "beta", ("foo",), gateways=("pbx1",)), NAMED, "'bar' would be identified"),
        (NAMED, Account("bar", "beta", ("foo",), tech_prefix="77"), "'bar' is identified"),
        (Account("bar", "beta", ("foo",), id=7), NAMED, "'bar' would be identified"),
    ],
)
def test_no_account_is_called_as_another_is_identified(
    changed: Account, other: Account, expected: str
) -> None:
    ((account, error),) = ties([changed], [other])
    assert account is changed
    assert expected in str(error)
    assert {"'foo'", "'bar'"} <= set(str(error).replace(":", "").split())
    both = [error.column for _, error in ties([other, changed], ())]
    assert len(both) == 1


@pytest.mark.parametrize(
    "other",
    [
        Account("bar", "acme", ("Foo", "foo ")),
        Account("bar", "acme", ("foo",), ident_by=IdentKind.ANI),
        Account("10.0.0.5", "acme", ("bar",)),
    ],
)
def test_a_name_is_another_only_as_an_ident_of_that_kind(other: Account) -> None:
    assert not list(ties([NAMED], [other]))
    assert not list(ties([other], [NAMED]))


def test_an_account_may_be_identified_by_its_own_name() -> None:
    assert not list(ties([Account("foo", "acme", ("foo", "x"))], [Account("bar", "acme", ("b",))]))


def test_an_old_tie_of_its_name_does_not_stand_in_an_accounts_way() -> None:
    """It can get another address, whoever has its name as an ident; that one cannot get more."""
    other = Account("bar", "beta", ("foo",), id=2)
    assert not list(ties([replace(NAMED, id=1, idents=("10.0.0.6",))], [other]))
    assert len(list(ties([replace(other, idents=("foo", "x"))], [replace(NAMED, id=1)]))) == 1


@given(accounts(), st.permutations(["10.0.0.1", "44", "b", "account4", "account5"]))
def test_of_accounts_without_ties_none_is_called_as_another_is_identified(
    made: list[Account], names: list[str]
) -> None:
    kept: list[Account] = []
    for one, name in zip(made, names, strict=False):
        new = replace(one, name=name, id=0)
        if not list(ties([new], kept)):
            kept.append(new)
    for one in kept:
        for other in kept:
            by_name = other is not one and other.ident_by is IdentKind.NAME
            assert not (by_name and one.name in other.idents)


def test_a_tie_names_both_accounts_the_ident_and_the_others_client() -> None:
    first = Account("first", "acme", ("a", "x"))
    second = Account("second", "beta", ("b", "x"))
    ((account, error),) = ties([second], [first])
    assert account is second
    for part in ("'x'", "'first'", "'second'", "client 'acme'"):
        assert part in str(error)
    assert error.column == "ident"


def test_an_account_that_ties_in_many_ways_is_named_once() -> None:
    first = Account("first", "acme", ("x", "y"))
    second = Account("second", "acme", ("x", "y", "z"))
    third = Account("third", "acme", ("z",))
    assert [one.name for one, _ in ties([second, third], [first])] == ["second"]


def test_ties_among_the_others_are_not_reported() -> None:
    """Rows that somebody wrote by hand do not stand in the way of other accounts."""
    others = [Account("one", "acme", ("x",)), Account("two", "acme", ("x",))]
    assert not list(ties([Account("new", "acme", ("y",))], others))


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        (Account("a", "c", ("y", "x"), tag="t", enabled=False), True),
        (Account("a", "c", ("x",)), False),
        (Account("a", "c", ("x", "y"), tech_prefix="7"), False),
        (Account("a", "c", ("x", "y"), gateways=("pbx1",)), False),
        (Account("a", "c", ("x", "y"), ident_by=IdentKind.ANI), False),
    ],
)
def test_only_what_calls_are_recognised_by_can_make_a_tie(other: Account, alike: bool) -> None:
    assert recognised_alike(Account("a", "c", ("x", "y")), other) is alike
