"""Accounts go out as CSV and come in again as they were; every wrong cell is named."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.accounts import IdentKind, Protocol, SourcePolicy
from astcredit.domain.deck import DeckErrors
from astcredit.service.account_csv import AccountLine, read_accounts, write_accounts
from astcredit.service.account_ports import COLUMNS, Account, Termination
from astcredit.service.account_rules import AccountChange, TerminationChange
from astcredit.service.catalog_rules import KEEP

HEADER = ",".join(COLUMNS) + "\n"

# What people type into names and notes: nothing that ends a line, no spaces at the ends.
texts = st.text(
    st.characters(exclude_categories=("C", "Z"), include_characters=" ,;\"'=+-@"), max_size=12
).map(str.strip)
names = texts.filter(lambda text: text != "")
idents = names.map(lambda text: text.replace(";", "") or "x").map(str.strip).filter(bool)
digits = st.text("0123456789", min_size=1, max_size=12)

terminations = st.builds(
    Termination,
    texts,
    texts,
    st.none() | st.integers(0, 1_000_000),
    st.sampled_from(Protocol),
    st.sampled_from(("", "sip.example.com", "2001:db8::1")),
    st.none() | st.integers(1, 65_535),
    st.sampled_from(("", "carrier-a", "-a")),
    st.sampled_from(("", "192.0.2.1")),
    st.booleans(),
)

accounts = st.builds(
    Account,
    name=names,
    client=names,
    idents=st.lists(idents, min_size=1, max_size=3, unique=True).map(tuple),
    rate_table=texts,
    tag=texts,
    notes=texts,
    enabled=st.booleans(),
    tech_prefix=st.just("") | digits,
    gateways=st.lists(st.sampled_from(("pbx1", "-pbx", "a.b")), unique=True).map(tuple),
    routing_plan=texts,
    source_policy=st.sampled_from(SourcePolicy),
    dids=st.lists(digits, max_size=3, unique=True).map(tuple),
    orig_enabled=st.booleans(),
    orig_capacity=st.none() | st.integers(0, 1_000_000),
    termination=st.none() | terminations,
)


def read(text: str) -> list[AccountLine]:
    """The lines of a file in which each cell can be read."""
    sheet = read_accounts(io.StringIO(text, newline=""))
    assert not sheet.errors
    return list(sheet.lines)


def errors(text: str) -> list[str]:
    return [str(error) for error in read_accounts(io.StringIO(text, newline="")).errors]


@given(accounts)
def test_what_was_written_is_read_as_the_same_account(account: Account) -> None:
    (line,) = read("".join(write_accounts([account])))
    assert (line.name, line.client, line.sound) == (account.name, account.client, True)
    assert line.no_terminator is (account.termination is None)
    assert line.change.applied_to(Account(account.name, account.client)) == account
    assert line.change.applied_to(account) == account


def test_a_spreadsheet_gets_no_formula_and_the_file_loses_no_sign() -> None:
    tricky = ("=1+1", "+49", "-x", "@x", "'=x", "''@", "'x", "x=")
    written = [Account(name, "acme", (name,)) for name in tricky]
    text = "".join(write_accounts(written))
    cells = [line.split(",")[0] for line in text.splitlines()[1:]]
    assert cells == ["'=1+1", "'+49", "'-x", "'@x", "''=x", "'''@", "'x", "x="]
    assert [line.name for line in read(text)] == list(tricky)


def test_a_column_that_is_missing_changes_nothing() -> None:
    (line,) = read("name\nx\n")
    assert line == AccountLine(2, "x", AccountChange(termination=TerminationChange()))


def test_an_empty_cell_is_what_holds_where_nothing_is_said() -> None:
    (line,) = read("name,enabled,orig_enabled,orig_capacity,src_policy,tag,dids\nx,,,,,,\n")
    assert line.change == AccountChange(
        enabled=True,
        orig_enabled=True,
        orig_capacity=None,
        source_policy=SourcePolicy.ALLOW_ANY,
        tag="",
        dids=(),
    )
    (line,) = read("name,term_capacity,protocol\nx,,\n")
    assert line.change.termination == TerminationChange(capacity=None)
    assert not line.no_terminator


def test_all_terminator_columns_empty_is_no_terminator() -> None:
    (line,) = read(HEADER + "x,acme,name,x" + "," * (len(COLUMNS) - 4) + "\n")
    assert line.no_terminator
    assert line.change.termination == TerminationChange()


def test_lists_may_have_spaces_and_flags_many_forms() -> None:
    (line,) = read('name,ident_by,ident,gateways,enabled\nx,ip,"10.0.0.1; 10.0.0.2",a; b,No\n')
    assert line.change.idents == ("10.0.0.1", "10.0.0.2")
    assert line.change.ident_by is IdentKind.IP
    assert line.change.gateways == ("a", "b")
    assert line.change.enabled is False
    assert line.change.orig_capacity is KEEP


@pytest.mark.parametrize(
    ("columns", "cells", "expected"),
    [
        (["ident_by"], ["phone"], "'phone': expected one of name, ip, ani"),
        (["ident_by"], [""], "'': expected one of name, ip, ani"),
        (["enabled"], ["maybe"], "'maybe': expected true or false"),
        (["term_enabled"], ["2"], "'2': expected true or false"),
        (["tech_prefix"], ["7a"], "'7a': expected at most 20 digits"),
        (["orig_capacity"], ["-1"], "'-1': expected a whole number from 0 to 1000000"),
        (["src_policy"], ["deny"], "'deny': expected one of allow-any, reject, overwrite"),
        (["dids"], ["49;x"], "'x': expected a telephone number"),
        (["gateways"], ["a;a"], "'a': expected each of them once"),
        (["protocol"], ["H323"], "'H323': expected one of PJSIP, SIP, IAX2"),
        (["host"], ["a b"], "'a b': expected a host name"),
        (["port"], ["0"], "'0': expected a port from 1 to 65535"),
        (["proxy"], ["a/b"], "'a/b': expected"),
        (["routing_ip"], ["h"], "'h': expected an IP address"),
        (["notes"], ['"a\nb"'], "expected at most 1000 printable characters"),
        (["tag"], ["x" * 81], "expected at most 80 printable characters"),
    ],
)
def test_a_wrong_cell_is_named(columns: Sequence[str], cells: Sequence[str], expected: str) -> None:
    (error,) = errors(f"name,{','.join(columns)}\nx,{','.join(cells)}\n")
    assert f"column {columns[0]}: " in error
    assert expected in error


def test_all_wrong_cells_of_all_lines_are_named() -> None:
    found = errors("name,host,port,enabled\nx,a b,0,maybe\ny,,,\n,h,1,yes\nx,,,\n")
    assert [error.split(":")[0] for error in found] == [
        "line 2, column enabled",
        "line 2, column host",
        "line 2, column port",
        "line 4, column name",
        "line 5, column name",
    ]
    assert "line 2 has it too" in found[-1]


def test_a_header_with_other_columns_is_refused_at_once() -> None:
    for header in ("name,colour\n", "client,ident\n", "name,name\n", ""):
        with pytest.raises(DeckErrors):
            read_accounts(io.StringIO(header + "x,y\n"))
