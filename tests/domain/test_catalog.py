"""Who pays for an account, by which rates and routes, within which limits, and what is off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from astcredit.domain.accounts import Account, AmbiguousAccountsError
from astcredit.domain.calls import Origin
from astcredit.domain.catalog import Catalog, Reseller
from support.core import account, catalog_of, identified, rate_table, settings
from support.plans import ACCOUNTS, ALICE_TO_C1, CLIENTS, routed


def of(catalog: Catalog, name: str) -> Account:
    found = identified(catalog, name)
    assert found is not None
    return found


def test_an_account_is_recognised_by_each_of_its_names() -> None:
    catalog = catalog_of([settings(1)], [account("alice", idents=("alice", "a-2"))])
    for name in ("alice", "a-2"):
        found = of(catalog, name)
        assert found.name == "alice"
        assert catalog.client_of(found).name == "client1"


@pytest.mark.parametrize("name", ["", "Alice", "alice ", "ALICE", "bob", "alice;a-2", "alicé"])
def test_names_are_recognised_letter_by_letter(name: str) -> None:
    catalog = catalog_of([settings(1)], [account("alice", idents=("alice", "a-2"))])
    assert identified(catalog, name) is None
    assert catalog.identify(Origin("pbx1", account=name, endpoint=name)) is None


def test_two_accounts_with_one_name_are_refused_and_both_are_named() -> None:
    one, two = account("alice", idents=("x", "shared")), account("bob", id=2, idents=("shared",))
    with pytest.raises(AmbiguousAccountsError, match=r"'alice' and 'bob'.*'shared'"):
        catalog_of([settings(1)], [one, two])


def test_an_account_may_say_a_name_twice() -> None:
    catalog = catalog_of([settings(1)], [account("alice", idents=("alice", "alice"))])
    assert identified(catalog, "alice") is not None


def test_nobody_is_recognised_by_an_empty_name() -> None:
    """A slip in a list of names ("alice;") must not make every nameless call alice's."""
    catalog = catalog_of([settings(1)], [account("alice", idents=("alice", ""))])
    assert identified(catalog, "") is None


@pytest.mark.parametrize(
    ("of_account", "of_client", "used"),
    [
        (None, None, None),
        (None, 1, "one"),
        (2, 1, "two"),
        (2, None, "two"),
        (None, 9, None),  # disabled tables are not in the catalog
        (9, 1, None),  # the account's own table is disabled: its client's does not step in
    ],
)
def test_the_accounts_rate_table_comes_before_its_clients(
    of_account: int | None, of_client: int | None, used: str | None
) -> None:
    tables = [rate_table(id=1, name="one"), rate_table(id=2, name="two")]
    catalog = catalog_of(
        [settings(1, rate_table_id=of_client)], [account("a", rate_table_id=of_account)], tables
    )
    table = catalog.rate_table_for(of(catalog, "a"))
    assert (table.name if table else None) == used


@pytest.mark.parametrize(
    ("of_account", "of_client", "used"), [(None, None, None), (None, 1, 1), (2, 1, 2), (2, None, 2)]
)
def test_the_accounts_routing_plan_comes_before_its_clients(
    of_account: int | None, of_client: int | None, used: int | None
) -> None:
    client = replace(settings(1), routing_plan_id=of_client)
    catalog = catalog_of([client], [replace(account("a"), routing_plan_id=of_account)])
    assert catalog.routing_plan_id_for(of(catalog, "a")) == used


LIMITS = {key: number for number, key in enumerate(ALICE_TO_C1)}


def test_every_level_has_its_limit_the_widest_first() -> None:
    catalog = routed(LIMITS)
    alice, c1 = of(catalog, "alice"), catalog.accounts[11]
    assert [(x.level.key, x.name, x.most) for x in catalog.orig_limits(alice)] == [
        ("reseller:1:orig", "north", 0),
        ("client:1:orig", "client1", 1),
        ("account:1:orig", "alice", 2),
    ]
    assert [(x.level.key, x.name, x.most) for x in catalog.term_limits(c1)] == [
        ("reseller:2:term", "south", 3),
        ("client:3:term", "client3", 4),
        ("account:11:term", "c1", 5),
    ]


def test_the_directions_of_one_object_have_limits_of_their_own() -> None:
    """A terminator may be an originator, too: the one number says nothing about the other."""
    both = {"reseller:1:term": 9, "client:1:term": 8, "account:1:term": 7}
    catalog = routed(LIMITS | both)
    assert [x.most for x in catalog.orig_limits(of(catalog, "alice"))] == [0, 1, 2]
    assert [x.most for x in catalog.term_limits(of(catalog, "alice"))] == [9, 8, None]


def test_a_client_of_no_reseller_has_two_levels() -> None:
    alone = [replace(client, reseller_id=None) for client in CLIENTS]
    catalog = routed(LIMITS, clients=alone)
    assert [x.most for x in catalog.orig_limits(of(catalog, "alice"))] == [1, 2]
    assert [x.most for x in catalog.term_limits(catalog.accounts[11])] == [4, 5]


@pytest.mark.parametrize(
    ("off_account", "off_client", "off_reseller", "why"),
    [
        (False, False, False, ""),
        (True, False, False, "account 'alice' is disabled"),
        (False, True, False, "client 'client1' is disabled"),
        (False, False, True, "reseller 'north' is disabled"),
        (True, True, True, "account 'alice' is disabled"),
        (False, True, True, "client 'client1' is disabled"),
    ],
)
def test_what_is_off_and_the_nearest_reason(
    off_account: bool, off_client: bool, off_reseller: bool, why: str
) -> None:
    catalog = routed(
        accounts=[replace(a, enabled=not off_account) for a in ACCOUNTS],
        clients=[replace(c, enabled=not off_client) for c in CLIENTS],
    )
    north = Reseller(1, "north", enabled=not off_reseller)
    catalog = replace(catalog, resellers={1: north})
    assert catalog.off(of(catalog, "alice")) == why


def test_the_side_of_an_account_is_not_the_whole_account() -> None:
    """An account that may not call is asked for its terminator side all the same."""
    catalog = routed(accounts=[replace(a, orig_enabled=False) for a in ACCOUNTS])
    assert catalog.off(of(catalog, "alice")) == ""


def test_a_reseller_that_is_not_in_the_catalog_is_none() -> None:
    """A row that somebody deleted by hand must not stop its clients' calls with an exception."""
    catalog = replace(routed(), resellers={})
    alice = of(catalog, "alice")
    assert catalog.off(alice) == ""
    assert [x.level.key for x in catalog.orig_limits(alice)] == ["client:1:orig", "account:1:orig"]
