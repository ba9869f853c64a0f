"""May this call be made, over which route, and for how long? Pure: the same rows, the same answer.

`screening.screen` asks the catalog first; what it has nothing against is an `Inquiry`, and the
books decide that here. The refusals are looked for in the order of `AuthStatus`; the first that
applies is the answer. What is reserved is exactly the price of the seconds that are allowed, so
that the call can never cost more than was held for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from astcredit.domain.accounts import Account
from astcredit.domain.books import ClientBooks
from astcredit.domain.calls import AuthStatus
from astcredit.domain.capacity import Direction, Level, Limit, Occupancy, Scope, Uses
from astcredit.domain.identification import Identified
from astcredit.domain.money import Micros, short_text
from astcredit.domain.numbers import InvalidNumber, Numbering
from astcredit.domain.quotas import (
    DEFAULT_THRESHOLDS,
    Quota,
    Usages,
    allowed,
    refusal,
    refusing,
    used_up,
)
from astcredit.domain.rating import Rate, max_seconds, price
from astcredit.domain.records import record
from astcredit.domain.routing import Route, Routing

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
    `quota_thresholds`: percent of a quota at which is told.
    `pjsip_endpoint`: through which terminators are dialled that are known by address only.
    """

    max_seconds: int
    setup_seconds: int
    emergency_numbers: frozenset[str]
    numbering: Numbering
    quota_thresholds: tuple[int, ...] = DEFAULT_THRESHOLDS
    pjsip_endpoint: str = "astcredit-carrier"

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


@record
class Inquiry:
    """A call that the catalog has nothing against: what is left to ask are the books.

    `callerid` is the number to present, `limits` are the levels at which the call originates,
    `routing` is None where the dialplan names its own trunk. An emergency call has no rate.
    """

    identified: Identified
    number: str
    callerid: str
    currency: str
    reseller_id: int | None
    limits: tuple[Limit, ...]
    rate: Rate | None = None
    routing: Routing | None = None

    @property
    def account(self) -> Account:
        """The account that calls."""
        return self.identified.account

    def levels(self) -> Iterator[Level]:
        """Every counter that the decision may look at, and those that calls of other clients change
        while it is made."""
        own = self.occupancy(None)
        limited = [limit.level for limit in self.limits if limit.most is not None]
        yield from (level for level in own.levels() if level.shared or level in limited)
        for route in self.routing.routes if self.routing else ():
            yield from self.occupancy(route).shared()

    def limited(self) -> Iterator[Level]:
        """Those of them that have a limit: what the decision may depend on."""
        routes = self.routing.routes if self.routing else ()
        for limits in (self.limits, *(route.limits for route in routes)):
            yield from (limit.level for limit in limits if limit.most is not None)

    def occupancy(self, route: Route | None) -> Occupancy:
        """Where the call is counted if it takes that route."""
        if route is None:
            return Occupancy(self.account.id, self.reseller_id)
        return route.occupancy(self.account.id, self.reseller_id)


@record
class Decision:
    """The answer to one request. `client` are the books after it, changed only if allowed.

    `periods` are the month and the day of whose quotas an allowed call is; `used_up` are the quotas
    that refused it and would have with nothing reserved.
    """

    status: AuthStatus
    reason: str
    identified: Identified | None = None
    client: ClientBooks | None = None
    number: str = ""
    callerid: str = ""
    currency: str = ""
    rate: Rate | None = None
    seconds: int = 0
    reserved: Micros = 0
    route: Route | None = None
    occupancy: Occupancy | None = None
    periods: tuple[str, ...] = ()
    used_up: tuple[Quota, ...] = ()

    @property
    def allowed(self) -> bool:
        return self.status is AuthStatus.ALLOWED

    @property
    def account(self) -> Account | None:
        """The account that calls, if one was recognised."""
        return self.identified.account if self.identified else None


@record
class Rows:
    """What a decision is made on, as the transaction has locked it: the client's books, the
    counters of capacity, what the client used of its quotas, and the time."""

    client: ClientBooks
    uses: Uses
    usages: Usages
    now_ms: int


def decide(inquiry: Inquiry, rows: Rows, policy: CallPolicy) -> Decision:
    """Decide one inquiry on the locked rows."""
    client, uses = rows.client, rows.uses
    if inquiry.rate is None:
        return _emergency(inquiry, client, policy)
    full = _full(inquiry.limits, client, uses)
    if full:
        return _refusal(AuthStatus.CAPACITY, full, inquiry, client)
    route = None
    if inquiry.routing is not None:
        route = free_route(inquiry.routing.routes, uses)
        if route is None:
            return _refusal(AuthStatus.CAPACITY, _all_full(inquiry.routing, uses), inquiry, client)
    return _funded(inquiry, inquiry.rate, route, rows, policy)


def unbounded(decision: Decision, inquiry: Inquiry, policy: CallPolicy) -> bool:
    """Whether a decision could not have been better on any books: the call is allowed for the
    longest time and by the first route."""
    routes = inquiry.routing.routes if inquiry.routing else ()
    first = routes[0] if routes else None
    longest = decision.allowed and decision.seconds == policy.max_seconds
    return longest and decision.route == first


def free_route(routes: Iterable[Route], uses: Uses) -> Route | None:
    """The first route whose levels all have room."""
    return next((route for route in routes if not route.refusal(uses)), None)


def _full(limits: Iterable[Limit], client: ClientBooks, uses: Uses) -> str:
    """Which level has no room for one more originating call; empty if all have."""
    of_client = Level(Scope.CLIENT, client.id, Direction.ORIG)
    for limit in limits:
        if limit.most is not None:
            level = limit.level
            use = client.active_calls if level == of_client else uses.get(level, 0)
            full = limit.refusal({level: use})
            if full:
                return full
    return ""


def _all_full(routing: Routing, uses: Uses) -> str:
    """Why none of the routes can take the call."""
    reasons = dict.fromkeys(route.refusal(uses) for route in routing.routes)
    return "; ".join(reasons)


def _refusal(status: AuthStatus, reason: str, inquiry: Inquiry, client: ClientBooks) -> Decision:
    return Decision(
        status,
        reason,
        inquiry.identified,
        client,
        inquiry.number,
        inquiry.callerid,
        inquiry.currency,
        inquiry.rate,
        occupancy=inquiry.occupancy(None),
    )


def _emergency(inquiry: Inquiry, client: ClientBooks, policy: CallPolicy) -> Decision:
    """Always allowed: no money and no capacity stands in its way; a plan's route is taken if
    there is one, else the dialplan's own trunk."""
    routes = inquiry.routing.routes if inquiry.routing else ()
    route = routes[0] if routes else None
    return Decision(
        AuthStatus.ALLOWED,
        "emergency number",
        inquiry.identified,
        client.reserve(0),
        inquiry.number,
        inquiry.callerid,
        inquiry.currency,
        emergency_rate(inquiry.number),
        policy.max_seconds,
        route=route,
        occupancy=inquiry.occupancy(route),
    )


def emergency_rate(number: str) -> Rate:
    """What an emergency call costs the client."""
    return Rate(prefix=number, destination="Emergency", rate_per_minute=0)


def _funded(
    inquiry: Inquiry, rate: Rate, route: Route | None, rows: Rows, policy: CallPolicy
) -> Decision:
    client, currency = rows.client, inquiry.currency
    least = price(rate, rate.grace_seconds + 1)
    quotas = client.quotas.at(rows.now_ms)
    over = refusing(quotas, rows.usages, least)
    if over is not None:
        reason = refusal(over, rows.usages, currency)
        refused = _refusal(AuthStatus.QUOTA, reason, inquiry, client)
        return replace(refused, used_up=used_up(quotas, rows.usages, least))
    bounds = (client.available, allowed(quotas, rows.usages))
    funds = min((bound for bound in bounds if bound is not None), default=None)
    seconds = policy.max_seconds if funds is None else max_seconds(rate, funds, policy.max_seconds)
    if seconds == 0:
        reason = (
            f"available {short_text(funds or 0)} {currency} does not pay the first increment,"
            f" {short_text(least)} {currency}, to {inquiry.number}"
        )
        return _refusal(AuthStatus.NOCREDIT, reason, inquiry, client)
    reserved = price(rate, seconds)
    return Decision(
        AuthStatus.ALLOWED,
        "",
        inquiry.identified,
        client.reserve(reserved),
        inquiry.number,
        inquiry.callerid,
        currency,
        rate,
        seconds,
        reserved,
        route,
        inquiry.occupancy(route),
        client.quotas.periods(rows.now_ms),
    )
