"""What `route explain` says, on a catalog loaded from a database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import insert

from astcredit.domain.capacity import Direction, Level, Scope
from astcredit.domain.routing_plan import RouteOrder
from astcredit.service.errors import RefusedError
from astcredit.service.route_inquiry import RouteAnswer, RouteInquiry, RouteQuestion
from astcredit.service.routing_desk import RoutingDesk
from astcredit.service.routing_ports import Place
from astcredit.service.routing_rules import RuleChange
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from astcredit.storage.schema import upgrade
from astcredit.storage.tables import astcapacity
from support.carriers import CALLER, OFFICE, furnish, give_rates, set_account, set_client
from support.core import Clock, opened, policy

UK, FRANCE = "447123456789", "33123456789"
CENT = 10_000


@dataclass(frozen=True)
class Office:
    """A plan with three carriers: a is cheap, b is dear and takes all numbers, c has no rates."""

    database: Database
    desk: RoutingDesk

    async def ask(
        self,
        number: str = UK,
        plan: str | None = "retail",
        client: str | None = None,
        account: str | None = None,
        node: str = "ast1",
    ) -> RouteAnswer:
        """Ask with a catalog that is loaded anew."""
        catalog = SqlCatalog(self.database, inline_rates=1_000)
        inquiry = RouteInquiry(SqlAdministration(self.database), catalog, policy(), Clock())
        return await inquiry.ask(RouteQuestion(number, node, plan, client, account))


def at_office(url: str, work: Callable[[Office], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(url) as database:
            await upgrade(database)
            await furnish(database, ("a", "b", "c"))
            cheap = await give_rates(database, "cheap", {"44": CENT}, "EUR")
            dear = await give_rates(database, "dear", {"44": 2 * CENT, "33": 5 * CENT}, "EUR")
            retail = await give_rates(database, "retail", {"44": 4 * CENT, "33": 4 * CENT}, "EUR")
            await set_account(database, ["a"], term_rate_table_id=cheap, host="192.0.2.1")
            await set_account(database, ["b"], term_rate_table_id=dear, proxy="trunk-b")
            desk = RoutingDesk(SqlAdministration(database), "me@here", Clock())
            await desk.add_plan("retail")
            for prefix, account in (("44", "a"), ("44", "c"), ("", "b")):
                await desk.add_rule(Place("retail", prefix, account), RuleChange())
            await set_client(database, CALLER, rate_table_id=retail, routing_plan_id=1)
            await work(Office(database, desk))

    asyncio.run(run())


def names(answer: RouteAnswer) -> list[str]:
    return [found.route.terminator.name for found in answer.routes]


def test_routes_come_in_order_with_what_they_cost_and_the_others_with_their_reason(
    sqlite_url: str,
) -> None:
    async def work(at: Office) -> None:
        answer = await at.ask("+" + UK, client=CALLER)
        assert (answer.plan, answer.number, answer.reason) == ("retail", UK, "")
        assert names(answer) == ["a", "b"]
        first, second = answer.routes
        assert first.route.dial == f"PJSIP/astcredit-carrier/sip:{UK}@192.0.2.1"
        assert (first.cost, first.margin, first.full) == (CENT, 3 * CENT, "")
        assert second.route.dial == f"PJSIP/{UK}@trunk-b"
        assert (second.cost, second.margin, second.full) == (2 * CENT, 2 * CENT, "")
        (passed,) = answer.passed
        assert (passed.rule.prefix, passed.terminator) == ("44", "c")
        assert passed.why == "c has no rate table"
        assert answer.rate is not None
        assert answer.rate.rate_per_minute == 4 * CENT

    at_office(sqlite_url, work)


def test_the_plan_is_the_clients_or_the_accounts_own(sqlite_url: str) -> None:
    async def work(at: Office) -> None:
        assert names(await at.ask(plan=None, client=CALLER)) == ["a", "b"]
        assert (await at.ask(plan=None, account=OFFICE)).plan == "retail"
        await at.desk.add_plan("own", RouteOrder.LEAST_COST)
        await set_account(at.database, [OFFICE], routing_plan_id=2, rate_table_id=1)
        answer = await at.ask(plan=None, account=OFFICE)
        assert (answer.plan, answer.reason) == ("own", f"routing plan 'own' has no rule for {UK}")
        assert answer.rate is not None
        assert answer.rate.rate_per_minute == CENT  # the account's rate table comes first
        await set_client(at.database, CALLER, routing_plan_id=None)
        with pytest.raises(RefusedError, match="'acme' has no routing plan: its calls take the"):
            await at.ask(plan=None, client=CALLER)

    at_office(sqlite_url, work)


def test_a_demanded_margin_counts_when_it_is_known_who_pays(sqlite_url: str) -> None:
    async def work(at: Office) -> None:
        await at.desk.set_rule(Place("retail", "", "b"), RuleChange(min_margin=2 * CENT + 1))
        answer = await at.ask(client=CALLER)
        assert names(answer) == ["a"]
        assert [passed.rule.account_id for passed in answer.passed] == [3, 2]
        assert answer.passed[1].why == "b leaves 0.02 of the first minute, less than 0.020001"
        anybody = await at.ask()
        assert names(anybody) == ["a", "b"]
        assert [found.margin for found in anybody.routes] == [None, None]
        assert (anybody.rate, anybody.currency) == (None, "EUR")

    at_office(sqlite_url, work)


def test_in_several_currencies_it_must_be_said_who_pays(sqlite_url: str) -> None:
    async def work(at: Office) -> None:
        dollar = await give_rates(at.database, "dollar", {"44": CENT}, "USD")
        await set_account(at.database, ["c"], term_rate_table_id=dollar, host="192.0.2.3")
        with pytest.raises(RefusedError, match=r"charge in EUR and USD: name who calls with"):
            await at.ask()
        assert names(await at.ask(FRANCE)) == ["b"]
        answer = await at.ask(client=CALLER)
        assert [passed.why for passed in answer.passed] == ["c charges in USD and not in EUR"]

    at_office(sqlite_url, work)


def test_a_route_that_is_full_at_this_moment_says_so(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.desk.set_rule(1, RuleChange(capacity=2))
        key = Level(Scope.ROUTE, 1, Direction.TERM).key
        level = {"id": key, "scope": "route", "object_id": 1, "direction": "term", "calls": 2}
        async with at.database.transaction() as connection:
            await connection.execute(insert(astcapacity).values(level))
        first, second = (await at.ask()).routes
        assert first.full == "route 'retail 44 a' has 2 of 2 terminating calls up"
        assert second.full == ""

    at_office(database_url, work)


def test_a_node_that_a_terminator_does_not_serve_gets_no_route_to_it(sqlite_url: str) -> None:
    async def work(at: Office) -> None:
        await set_account(at.database, ["a"], gateways="ast2;ast3")
        assert names(await at.ask(node="ast1")) == ["b"]
        assert names(await at.ask(node="ast3")) == ["a", "b"]

    at_office(sqlite_url, work)


def test_a_plan_that_is_disabled_has_no_routes_and_passes_nothing_over(sqlite_url: str) -> None:
    async def work(at: Office) -> None:
        await at.desk.enable_plan("retail", False)
        for answer in (await at.ask(), await at.ask(client=CALLER)):
            assert (answer.routes, answer.passed) == ((), ())
            assert answer.reason == "routing plan 'retail' is disabled"

    at_office(sqlite_url, work)


def test_what_cannot_be_asked_is_refused(sqlite_url: str) -> None:
    async def work(at: Office) -> None:
        for question, words in (
            ({"number": "12ab"}, "'12ab': expected a telephone number"),
            ({"plan": "retial"}, "no routing plan 'retial'; the nearest is 'retail'"),
            ({"client": "acm"}, "no client 'acm'; the nearest is 'acme'"),
            ({"account": "offise"}, "no account 'offise'; the nearest is 'office'"),
            ({"plan": None}, "expected a routing plan, a client or an account"),
            ({"number": "49123", "client": CALLER}, r"client 'acme' has no rate for 49123"),
            ({"account": "a"}, r"account 'a' has no rate for 447123456789: .*INVALID"),
        ):
            with pytest.raises(RefusedError, match=words):
                await at.ask(**question)

    at_office(sqlite_url, work)
