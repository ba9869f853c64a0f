"""Who calls, whom, and what stands in the catalog against it. Pure; asks no books.

The refusals are looked for in the order of `AuthStatus`; what passes is an `Inquiry`, which
`decisions.decide` answers from the books.
"""

from __future__ import annotations

from dataclasses import replace

from astcredit.domain.accounts import Account
from astcredit.domain.calls import AuthStatus, CallRequest, Origin
from astcredit.domain.capacity import Occupancy
from astcredit.domain.catalog import Catalog, ClientSettings
from astcredit.domain.decisions import CallPolicy, Decision, Inquiry
from astcredit.domain.identification import Identified
from astcredit.domain.numbers import InvalidNumber, Numbering
from astcredit.domain.rating import Rate
from astcredit.domain.records import record
from astcredit.domain.routing import Routing, RoutingQuery, find_routes
from astcredit.domain.routing_plan import RouteOrder, RoutingPlan
from astcredit.domain.source_policy import presented
from astcredit.domain.text import printable


def identify(
    catalog: Catalog, origin: Origin, number: str, numbering: Numbering
) -> Identified | None:
    """The account that a call is recognised as, or None.

    The caller's number is looked for as it was told, then as it is written internationally.
    """
    found = catalog.identify(origin, number)
    if found is not None or not origin.callerid:
        return found
    try:
        callerid = numbering.normalise(origin.callerid)
    except InvalidNumber:
        return None
    return catalog.identify(replace(origin, callerid=callerid), number)


def screen(
    request: CallRequest, catalog: Catalog, policy: CallPolicy, now_ms: int
) -> Inquiry | Decision:
    """What is left to ask of the books, or the refusal (of a caller without an account: the
    answer) that needs none. A `Decision` has no books yet: they are the ledger's to add."""
    identified = identify(catalog, request.origin, request.number, policy.numbering)
    if identified is None:
        return _without_account(request, policy)
    emergency = policy.emergency_number(request.number) or policy.emergency_number(
        identified.number
    )
    return _Screening(request, catalog, policy, now_ms, identified).result(emergency)


@record
class _Screening:
    """One request on its way through the checks."""

    request: CallRequest
    catalog: Catalog
    policy: CallPolicy
    now_ms: int
    identified: Identified

    @property
    def account(self) -> Account:
        return self.identified.account

    @property
    def client(self) -> ClientSettings:
        return self.catalog.client_of(self.account)

    def result(self, emergency: str) -> Inquiry | Decision:
        request, account = self.request, self.account
        if emergency:
            routing = self._routing(emergency, Rate(emergency, "", 0))
            return self._inquiry(emergency, request.callerid, None, routing)
        refused = self.catalog.originator_off(self.account)
        if refused:
            return self._refusal(AuthStatus.DISABLED, refused)
        numbering = self.policy.numbering
        callerid = presented(account, request.callerid, numbering, request.call_id)
        if callerid is None:
            reason = (
                f"caller's number {printable(request.callerid)} is none of the DIDs of account"
                f" {account.name!r}"
            )
            return self._refusal(AuthStatus.SRCREJECT, reason)
        try:
            number = numbering.normalise(self.identified.number)
        except InvalidNumber as error:
            return self._refusal(AuthStatus.INVALID, str(error), callerid)
        return self._to(number, callerid)

    def _to(self, number: str, callerid: str) -> Inquiry | Decision:
        block = self.catalog.blocks.find(number, self.client.id)
        if block is not None:
            whose = "" if block.client_id is None else f" for client {self.client.name!r}"
            reason = f"prefix {block.prefix} of {number} is blocked{whose}"
            return self._refusal(AuthStatus.BLOCKED, reason, callerid, number)
        table = self.catalog.rate_table_for(self.account)
        rate = table.lookup(number, self.now_ms) if table else None
        if table is None or rate is None:
            reason = (
                f"no rate for {number} in rate table {table.name!r}"
                if table
                else f"account {self.account.name!r} and its client have no enabled rate table"
            )
            return self._refusal(AuthStatus.INVALID, reason, callerid, number)
        routing = self._routing(number, rate)
        if routing is not None and not routing.routes:
            return self._refusal(AuthStatus.NOROUTE, routing.reason, callerid, number, rate)
        return self._inquiry(number, callerid, rate, routing)

    def _routing(self, number: str, rate: Rate) -> Routing | None:
        return route(
            self.catalog,
            self.account,
            number,
            rate,
            node=self.request.node,
            key=self.request.call_id,
            now_ms=self.now_ms,
            policy=self.policy,
        )

    def _inquiry(
        self, number: str, callerid: str, rate: Rate | None, routing: Routing | None
    ) -> Inquiry:
        return Inquiry(
            self.identified,
            number,
            callerid,
            self.client.currency,
            self.client.reseller_id,
            self.catalog.orig_limits(self.account),
            rate,
            routing,
        )

    def _refusal(
        self,
        status: AuthStatus,
        reason: str,
        callerid: str = "",
        number: str = "",
        rate: Rate | None = None,
    ) -> Decision:
        return Decision(
            status,
            reason,
            self.identified,
            None,
            number,
            callerid or self.request.callerid,
            self.client.currency,
            rate,
            occupancy=Occupancy(self.account.id, self.client.reseller_id),
        )


def route(
    catalog: Catalog,
    account: Account,
    number: str,
    rate: Rate,
    *,
    node: str,
    key: str,
    now_ms: int,
    policy: CallPolicy,
) -> Routing | None:
    """The routes of the account's call; None: it has no routing plan.

    A plan that is not in the catalog (a row written by hand) routes nothing.
    """
    plan_id = catalog.routing_plan_id_for(account)
    if plan_id is None:
        return None
    plan = catalog.routing_plans.get(plan_id)
    if plan is None:
        plan = RoutingPlan(plan_id, f"number {plan_id}", RouteOrder.PRIORITY, 0, enabled=False)
    currency = catalog.client_of(account).currency
    query = RoutingQuery(plan, number, node, currency, rate, key, now_ms, policy.pjsip_endpoint)
    return find_routes(catalog, query)


def _without_account(request: CallRequest, policy: CallPolicy) -> Decision:
    emergency = policy.emergency_number(request.number)
    if emergency:
        return Decision(
            AuthStatus.ALLOWED,
            "emergency number",
            number=emergency,
            callerid=request.callerid,
            seconds=policy.max_seconds,
        )
    return Decision(AuthStatus.NOACCOUNT, _unknown(request), callerid=request.callerid)


def _unknown(request: CallRequest) -> str:
    """What nobody is recognised by."""
    origin = request.origin
    if origin.account:
        return f"no account is identified by the name {printable(origin.account)}"
    told = (
        ("the name", origin.accountcode),
        ("the endpoint", origin.endpoint),
        ("the address", origin.source),
        ("the caller's number", origin.callerid),
    )
    known = [f"{what} {printable(text)}" for what, text in told if text]
    if not known:
        return "the channel has no accountcode and the script got no account"
    return f"no account is identified by {', '.join(known)}"
