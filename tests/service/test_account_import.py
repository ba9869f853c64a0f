"""What a file of accounts would change, held against what is there."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from astcredit.domain.accounts import IdentKind
from astcredit.domain.deck import DeckErrors
from astcredit.service.account_csv import read_accounts, write_accounts
from astcredit.service.account_import import Imported, Known, Plan, plan_import
from astcredit.service.account_ports import Account, Termination
from astcredit.service.admin_ports import Client, RateTableHead

FIRST = Account("first", "acme", ("a", "b"), id=1)
SECOND = Account("second", "beta", ("10.0.0.1",), id=2, ident_by=IdentKind.IP)
CARRIER = Account("carrier", "beta", ("c",), id=3, termination=Termination("cost", host="h"))

KNOWN = Known(
    {"acme": Client("acme"), "beta": Client("beta")},
    {
        "retail": RateTableHead("retail"),
        "cost": RateTableHead("cost", "USD"),
    },
    {"plan"},
    {account.name: account for account in (FIRST, SECOND, CARRIER)},
)


def plan(text: str) -> Plan:
    return plan_import(read_accounts(io.StringIO(text, newline="")), KNOWN)


def errors(text: str) -> list[str]:
    with pytest.raises(DeckErrors) as refused:
        plan(text)
    return list(map(str, refused.value.errors))


def test_a_file_as_it_was_written_changes_nothing() -> None:
    found = plan("".join(write_accounts(KNOWN.accounts.values())))
    assert not found
    assert found.summary == Imported(0, 0, 3, [])


def test_new_names_are_added_and_known_ones_changed() -> None:
    found = plan(
        "name,client,ident_by,ident,tag,id\nfirst,acme,name,a;b,x,1\n"
        "third,acme,ani,+44207*,y,\nsecond,beta,ip,10.0.0.1/32,,2\n"
    )
    assert found.added == [Account("third", "acme", ("44207*",), tag="y", ident_by=IdentKind.ANI)]
    assert found.changed == [(FIRST, replace(FIRST, tag="x"))]
    assert found.summary == Imported(1, 1, 1, [])


def test_a_file_may_have_only_some_columns() -> None:
    found = plan("name,orig_capacity\nfirst,5\nsecond,\n")
    assert found.changed == [(FIRST, replace(FIRST, orig_capacity=5))]


def test_a_terminator_is_made_switched_and_taken_away() -> None:
    made = plan("name,proxy\nfirst,peer\n")
    assert made.changed[0][1].termination == Termination(proxy="peer")
    assert made.summary.need_term_rates == ["first"]
    off = plan("name,term_enabled\ncarrier,false\n")
    assert off.changed[0][1].termination == Termination("cost", host="h", enabled=False)
    gone = "".join(write_accounts([replace(CARRIER, termination=None)]))
    assert plan(gone).changed == [(CARRIER, replace(CARRIER, termination=None))]


def test_accounts_may_swap_what_identifies_them() -> None:
    """What counts is that nobody ties when all is done."""
    found = plan("name,ident_by,ident\nfirst,ip,10.0.0.1\nsecond,name,a;b\n")
    assert len(found.changed) == 2


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("name,client\nfirst,beta\n", "client", "'acme': the client of an account cannot change"),
        ("name,ident_by,ident\nx,name,x\n", "client", "the client of the new account"),
        ("name,client,ident_by,ident\nx,acmee,name,x\n", "client", "the nearest is 'acme'"),
        ("name,client,ident\nx,acme,x\n", "ident_by", "name, ip or ani"),
        ("name,client,ident_by\nx,acme,ip\n", "ident", "at least one"),
        ("name,ident\nfirst,\n", "ident", "at least one"),
        ("name,ident\nsecond,acme\n", "ident", "an address or a network"),
        ("name,ident_by\nfirst,ip\n", "ident_by", "together with it"),
        ("name,id\nfirst,2\n", "id", "1, the id of account 'first'"),
        ("name,client,ident_by,ident,id\nx,acme,name,x,9\n", "id", "gets its id"),
        ("name,rate_table\nfirst,retial\n", "rate_table", "the nearest is 'retail'"),
        ("name,rate_table\nfirst,cost\n", "rate_table", "this one is in USD"),
        ("name,routing_plan\nfirst,plam\n", "routing_plan", "the nearest is 'plan'"),
        ("name,term_rate_table,host\nfirst,none,h\n", "term_rate_table", "a rate table"),
        ("name,src_policy\nfirst,reject\n", "src_policy", "at least one DID"),
        ("name,term_enabled\nfirst,true\n", "term_enabled", "a host, proxy or routing IP"),
        ("name,host\ncarrier,\n", "term_enabled", "a host, proxy or routing IP"),
        ("name,ident\nfirst,c\n", "ident", "'first' and 'carrier' are both"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_column(text: str, column: str, words: str) -> None:
    (error,) = errors(text)
    assert error.startswith(f"line 2, column {column}: ")
    assert words in error


def test_two_lines_of_a_file_can_tie_and_the_later_one_is_named() -> None:
    new, old = "x,acme,name,z\n", "first,acme,name,a;z\n"
    (error,) = errors(f"name,client,ident_by,ident\n{new}{old}")
    assert error.startswith("line 3, column ident: ")
    assert "'first' and 'x'" in error
    (error,) = errors(f"name,client,ident_by,ident\n{old}{new}")
    assert error.startswith("line 3, column ident: ")
    assert "'x' and 'first'" in error


def test_what_could_not_be_read_is_not_missed_as_well() -> None:
    (error,) = errors("name,term_enabled,host\nfirst,true,a b\n")
    assert error.startswith("line 2, column host: ")


def test_errors_of_cells_and_of_what_they_refer_to_come_together_in_order() -> None:
    found = errors(
        "name,client,ident_by,ident,rate_table,port\n"
        "x,nobody,name,x;x,none,0\n"
        "first,acme,name,c,,\n"
        "y,acme,ip,10.0.0.1/8,retail,99999\n"
    )
    assert [error.split(":")[0] for error in found] == [
        "line 2, column port",
        "line 2, column client",
        "line 2, column rate_table",
        "line 2, column ident",
        "line 3, column ident",
        "line 4, column port",
        "line 4, column ident",
    ]


def test_a_file_full_of_errors_is_not_read_to_its_end() -> None:
    text = "name,client\n" + "".join(f"x{number},nobody\n" for number in range(500))
    with pytest.raises(DeckErrors) as refused:
        plan(text)
    assert refused.value.more
    assert len(refused.value.errors) == 100
