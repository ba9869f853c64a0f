"""Accounts that would answer to the same calls.

Two accounts tie that have an ident in common, and two of which one is called as the other is
identified: whoever says that name would mean either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from astcredit.domain import accounts as domain
from astcredit.domain.accounts import IdentKind
from astcredit.domain.identification import conflicts
from astcredit.service.account_ports import Account
from astcredit.service.account_settings import SettingError
from astcredit.service.naming import shown_name


class Claim(NamedTuple):
    """What only one account may have: an ident, under a tech prefix, on a gateway.

    `gateway` is empty for an account that is bound to none: one that is bound comes before it, so
    these two do not tie.
    """

    kind: IdentKind
    ident: str
    tech_prefix: str
    gateway: str


def claims(account: Account) -> Iterator[Claim]:
    """All that the account claims for itself."""
    for ident in account.idents:
        for gateway in account.gateways or ("",):
            yield Claim(account.ident_by, ident, account.tech_prefix, gateway)


def recognised_alike(one: Account, other: Account) -> bool:
    """Whether the same calls are recognised as either: such a change makes no tie."""
    return set(claims(one)) == set(claims(other))


def ties(
    changed: Iterable[Account], others: Iterable[Account]
) -> Iterator[tuple[Account, SettingError]]:
    """Each account of `changed` that ties with one before it or one of `others`, and how.

    Ties among `others` are not looked for. The own name of an account that has an id is no news: an
    old tie does not stand in the way of its further settings.
    """
    changed, others = list(changed), list(others)
    called = {account.name: account for account in (*others, *changed)}
    holders: dict[Claim, Account] = {}
    named: dict[str, Account] = {}
    for account in others:
        for claim in claims(account):
            holders.setdefault(claim, account)
            if claim.kind is IdentKind.NAME:
                named.setdefault(claim.ident, account)
    for account in changed:
        if account.id == 0 and account.name in named:
            yield account, _name_tie(account, named[account.name])
            continue
        for claim in claims(account):
            namesake = called.get(claim.ident) if claim.kind is IdentKind.NAME else None
            if namesake not in (None, account):
                yield account, _ident_tie(account, namesake)
                break
            holder = holders.setdefault(claim, account)
            if holder is not account:
                yield account, _tie(account, holder, claim.ident)
                break


def _tie(account: Account, holder: Account, ident: str) -> SettingError:
    why = conflicts(recognised(account, (ident,)), recognised(holder, (ident,)))
    return SettingError("ident", ident, f"an ident of its own: {why}; {_whose(holder)}")


def _ident_tie(account: Account, namesake: Account) -> SettingError:
    """The account would be identified by the other's name."""
    why = f"account {shown_name(account.name)} would be identified by another account's name"
    expected = f"an ident of its own: {why}; {_whose(namesake)}"
    return SettingError("ident", namesake.name, expected)


def _name_tie(account: Account, holder: Account) -> SettingError:
    """The other is identified by the account's name."""
    why = f"account {shown_name(holder.name)} is identified by the name {shown_name(account.name)}"
    expected = f"a name that no other account is identified by: {why}; {_whose(holder)}"
    return SettingError("name", account.name, expected)


def _whose(account: Account) -> str:
    return f"{shown_name(account.name)} is an account of client {shown_name(account.client)}"


def recognised(account: Account, idents: tuple[str, ...] | None = None) -> domain.Account:
    """The account as calls are recognised by it, or by some of its idents; it has no client."""
    return domain.Account(
        account.id,
        0,
        account.name,
        account.idents if idents is None else idents,
        enabled=account.enabled,
        ident_by=account.ident_by,
        tech_prefix=account.tech_prefix,
        gateways=account.gateways,
        orig_enabled=account.orig_enabled,
    )
