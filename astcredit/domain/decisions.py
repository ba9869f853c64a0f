"""May this call be made, and for how long? Pure: the same rows give the same answer.

The refusals are looked for in the order of `AuthStatus`; the first that applies is the answer.
What is reserved is exactly the price of the seconds that are allowed, so that the call can
never cost more than was held for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from astcredit.domain.books import ClientBooks
from astcredit.domain.calls import AuthStatus, CallRequest
from astcredit.domain.catalog import Account, Catalog
from astcredit.domain.money import Micros, short_text
from astcredit.domain.numbers import InvalidNumber, Numbering
from astcredit.domain.rating import Rate, max_seconds, price
from astcredit.domain.text import printable

# Q.850 causes for Hangup(). What SIP code Asterisk makes of each is in the README.
CAUSES = {
    AuthStatus.ALLOWED: 0,
    AuthStatus.NOACCOUNT: 21,  # call rejected
    AuthStatus.DISABLED: 21,
    AuthStatus.SRCREJECT: 21,
    AuthStatus.BLOCKED: 21,
    AuthStatus.INVALID: 28,  # invalid number format
    AuthStatus.NOROUTE: 3,  # no route to destination
    AuthStatus.CAPACITY: 34,  # no circuit available
    AuthStatus.QUOTA: 21,
    AuthStatus.NOCREDIT: 21,
    AuthStatus.ERROR: 38,  # network out of order
}


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """What holds for every call on this system.

    `max_seconds`: the longest call. `setup_seconds`: the longest time from authorization to
    answer. `emergency_numbers`: always allowed, as dialled or as normalised, at no charge.
    """

    max_seconds: int
    setup_seconds: int
    emergency_numbers: frozenset[str]
    numbering: Numbering

    def emergency_number(self, number: str) -> str:
        """The emergency number that was dialled, or an empty text.

        Looked for as it was dialled and as normalised: `000` would lose its first digits, and
        `+112` is meant as well as `112`.
        """
        if number in self.emergency_numbers:
            return number
        try:
            normalised = self.numbering.normalise(number)
        except InvalidNumber:
            return ""
        return normalised if normalised in self.emergency_numbers else ""

    def expires_at_ms(self, now_ms: int, seconds: int) -> int:
        """When a call authorized now for so many seconds must be over, whatever happened."""
        return now_ms + (self.setup_seconds + seconds) * 1000 + EXPIRY_SLACK_MS


# Asterisk's cut comes a few milliseconds late, its events later still, and its clock is not
# ours: no call that is still up may be taken for one whose end was missed.
EXPIRY_SLACK_MS = 60_000


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one request. `client` are the books after it, changed only if allowed."""

    status: AuthStatus
    reason: str
    account: Account | None = None
    client: ClientBooks | None = None
    number: str = ""
    currency: str = ""
    rate: Rate | None = None
    seconds: int = 0
    reserved: Micros = 0

    @property
    def allowed(self) -> bool:
        return self.status is AuthStatus.ALLOWED


def decide(
    request: CallRequest,
    catalog: Catalog,
    client: ClientBooks | None,
    policy: CallPolicy,
    now_ms: int,
) -> Decision:
    """Decide one request on the rows of its client.

    `client` are the locked books of the account's client, None if no account was recognised.
    """
    account = catalog.identify(request.accountcode)
    if account is None or client is None:
        return _without_account(request, policy)
    settings = catalog.client_of(account)
    emergency = policy.emergency_number(request.number)
    if emergency:
        return _emergency(emergency, account, client, settings.currency, policy)
    refused = _disabled(catalog, account)
    if refused:
        return Decision(AuthStatus.DISABLED, refused, account, client, currency=settings.currency)
    try:
        number = policy.numbering.normalise(request.number)
    except InvalidNumber as error:
        return Decision(AuthStatus.INVALID, str(error), account, client, currency=settings.currency)
    return _rated(catalog, account, client, number, policy, now_ms)


def _without_account(request: CallRequest, policy: CallPolicy) -> Decision:
    emergency = policy.emergency_number(request.number)
    if emergency:
        return Decision(
            AuthStatus.ALLOWED,
            "emergency number",
            number=emergency,
            seconds=policy.max_seconds,
        )
    return Decision(
        AuthStatus.NOACCOUNT,
        f"no account is identified by the name {printable(request.accountcode)}"
        if request.accountcode
        else "the channel has no accountcode and the script got no account",
    )


def _emergency(
    number: str,
    account: Account,
    client: ClientBooks,
    currency: str,
    policy: CallPolicy,
) -> Decision:
    free = Rate(prefix=number, destination="Emergency", rate_per_minute=0)
    return Decision(
        AuthStatus.ALLOWED,
        "emergency number",
        account,
        client.reserve(0),
        number,
        currency,
        free,
        policy.max_seconds,
    )


def _disabled(catalog: Catalog, account: Account) -> str:
    if not account.enabled:
        return f"account {account.name!r} is disabled"
    client = catalog.client_of(account)
    return "" if client.enabled else f"client {client.name!r} is disabled"


def _rated(
    catalog: Catalog,
    account: Account,
    client: ClientBooks,
    number: str,
    policy: CallPolicy,
    now_ms: int,
) -> Decision:
    currency = catalog.client_of(account).currency
    table = catalog.rate_table_for(account)
    rate = table.lookup(number, now_ms) if table else None
    if table is None or rate is None:
        reason = (
            f"no rate for {number} in rate table {table.name!r}"
            if table
            else f"account {account.name!r} and its client have no enabled rate table"
        )
        return Decision(AuthStatus.INVALID, reason, account, client, number, currency)
    return _funded(account, client, number, currency, rate, policy)


def _funded(
    account: Account,
    client: ClientBooks,
    number: str,
    currency: str,
    rate: Rate,
    policy: CallPolicy,
) -> Decision:
    funds = client.available
    seconds = policy.max_seconds if funds is None else max_seconds(rate, funds, policy.max_seconds)
    if seconds == 0:
        reason = (
            f"available {short_text(funds or 0)} {currency} does not pay the first increment,"
            f" {short_text(price(rate, rate.grace_seconds + 1))} {currency}, to {number}"
        )
        return Decision(AuthStatus.NOCREDIT, reason, account, client, number, currency, rate)
    reserved = price(rate, seconds)
    return Decision(
        AuthStatus.ALLOWED,
        "",
        account,
        client.reserve(reserved),
        number,
        currency,
        rate,
        seconds,
        reserved,
    )
