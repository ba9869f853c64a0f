"""The number that a call presents: what the originator's source policy makes of the caller's."""

from __future__ import annotations

from astcredit.domain.accounts import Account, SourcePolicy
from astcredit.domain.draws import draw
from astcredit.domain.numbers import InvalidNumber, Numbering


def presented(account: Account, callerid: str, numbering: Numbering, key: str) -> str | None:
    """The number to present for a call of `account`, or None if the call is to be rejected.

    A caller's number that is one of the account's DIDs, as told or as it is written
    internationally, is presented as it is. In place of another, under the policy OVERWRITE, stands
    one of the DIDs, each as likely as the other, drawn by `key`.
    """
    if account.source_policy is SourcePolicy.ALLOW_ANY or _is_did(account, callerid, numbering):
        return callerid
    if account.source_policy is SourcePolicy.REJECT or not account.dids:
        return None
    return account.dids[draw(f"{key}:did", len(account.dids))]


def _is_did(account: Account, callerid: str, numbering: Numbering) -> bool:
    if callerid.removeprefix("+") in account.dids:
        return True
    try:
        return numbering.normalise(callerid) in account.dids
    except InvalidNumber:
        return False
