"""Who is calling, who pays, and by which rates."""

from __future__ import annotations

import pytest

from astcredit.domain.catalog import AmbiguousAccountsError
from support.core import account, catalog_of, rate_table, settings


def test_an_account_is_recognised_by_each_of_its_names() -> None:
    catalog = catalog_of([settings(1)], [account("alice", idents=("alice", "a-2"))])
    for name in ("alice", "a-2"):
        found = catalog.identify(name)
        assert found is not None
        assert found.name == "alice"
        assert catalog.client_of(found).name == "client1"


@pytest.mark.parametrize("name", ["", "Alice", "alice ", "ALICE", "bob", "alice;a-2", "alicé"])
def test_names_are_recognised_letter_by_letter(name: str) -> None:
    catalog = catalog_of([settings(1)], [account("alice", idents=("alice", "a-2"))])
    assert catalog.identify(name) is None


def test_two_accounts_with_one_name_are_refused_and_both_are_named() -> None:
    one, two = account("alice", idents=("x", "shared")), account("bob", id=2, idents=("shared",))
    with pytest.raises(AmbiguousAccountsError, match=r"'alice' and 'bob'.*'shared'"):
        catalog_of([settings(1)], [one, two])


def test_an_account_may_say_a_name_twice() -> None:
    catalog = catalog_of([settings(1)], [account("alice", idents=("alice", "alice"))])
    assert catalog.identify("alice") is not None


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
    found = catalog.identify("a")
    assert found is not None
    table = catalog.rate_table_for(found)
    assert (table.name if table else None) == used


def test_nobody_is_recognised_by_an_empty_name() -> None:
    """A slip in a list of names ("alice;") must not make every nameless call alice's."""
    catalog = catalog_of([settings(1)], [account("alice", idents=("alice", ""))])
    assert catalog.identify("") is None
