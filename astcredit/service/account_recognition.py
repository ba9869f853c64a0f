"""Which account a call would be recognised as, told to a person who asks why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from astcredit.domain import catalog as domain
from astcredit.domain.calls import Origin
from astcredit.domain.identification import Considered, Identified, Identities
from astcredit.domain.numbers import InvalidNumber, Numbering
from astcredit.service.account_ports import Account
from astcredit.service.account_ties import recognised
from astcredit.service.admin_ports import Client
from astcredit.service.errors import RefusedError
from astcredit.service.reseller_ports import Reseller


@dataclass(frozen=True, slots=True)
class Recognition:
    """How a call is recognised: the account, if any, and every account that was looked at.

    `callerid` is the caller's number as it was compared: as it was told, or as it is written
    internationally where nobody was found by the former (`normalised`). `accounts` has the settings
    of each account by its id. `off`: why the account that was found makes no calls (DISABLED).
    """

    found: Identified | None
    considered: Sequence[Considered]
    callerid: str
    normalised: bool
    accounts: Mapping[int, Account]
    off: str = ""


def recognise(
    accounts: Sequence[Account], origin: Origin, number: str, numbering: Numbering
) -> Recognition:
    """What a server would make of a call from `origin` to `number`, as it was dialled.

    Raises RefusedError when the accounts make no sense, so that no server would take them.
    """
    try:
        identities = Identities.of(map(recognised, accounts))
    except ValueError as error:
        raise RefusedError(f"the accounts make no sense: {error}") from None
    settings = {account.id: account for account in accounts}
    found = identities.find(origin, number)
    international = origin if found else _international(origin, numbering)
    if international != origin:
        found = identities.find(international, number)
    considered = identities.explain(international, number)
    changed = international != origin
    return Recognition(found, considered, international.callerid, changed, settings)


def switched_off(found: Identified, client: Client, reseller: Reseller | None) -> str:
    """Why a server would refuse the calls of this account as DISABLED; empty if it would not."""
    account, resellers = found.account, {}
    if reseller is not None:
        resellers[reseller.id] = domain.Reseller(reseller.id, reseller.name, reseller.enabled)
    owner = domain.ClientSettings(
        account.client_id,
        client.name,
        client.currency,
        None,
        client.enabled,
        reseller.id if reseller else None,
    )
    only = Identities.of([account])
    catalog = domain.Catalog(0, {owner.id: owner}, {account.id: account}, only, resellers=resellers)
    return catalog.originator_off(account)


def _international(origin: Origin, numbering: Numbering) -> Origin:
    """The origin with the caller's number as E.164 digits, if it is a number."""
    if not origin.callerid:
        return origin
    try:
        return replace(origin, callerid=numbering.normalise(origin.callerid))
    except InvalidNumber:
        return origin
