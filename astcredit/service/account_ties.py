"""Accounts that would answer to the same calls."""

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

    Ties among `others` are not looked for.
    """
    holders: dict[Claim, Account] = {}
    for account in others:
        for claim in claims(account):
            holders.setdefault(claim, account)
    for account in changed:
        for claim in claims(account):
            holder = holders.setdefault(claim, account)
            if holder is not account:
                yield account, _tie(account, holder, claim.ident)
                break


def _tie(account: Account, holder: Account, ident: str) -> SettingError:
    why = conflicts(recognised(account, (ident,)), recognised(holder, (ident,)))
    whose = f"{shown_name(holder.name)} is an account of client {shown_name(holder.client)}"
    return SettingError("ident", ident, f"an ident of its own: {why}; {whose}")


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
    )
