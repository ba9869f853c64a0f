"""The people and prices of a simulated world, as plain data, and the catalog that it makes.

Clients 1 to 6 call, 7 and 8 terminate. Everything that may differ from world to world is drawn:
balances, limits, quotas, capacities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from astcredit.domain.accounts import Account, Termination
from astcredit.domain.books import ClientBooks
from astcredit.domain.catalog import (
    Catalog,
    ClientKind,
    ClientSettings,
    Reseller,
    compile_catalog,
)
from astcredit.domain.decisions import CallPolicy
from astcredit.domain.numbers import Numbering
from astcredit.domain.ratetable import RateRow, RateTable
from astcredit.domain.routing_plan import RouteOrder, RoutingPlan, Rule
from simulation.chance import Chance
from simulation.tariffs import RETAIL, Tariff

EMERGENCY = "112"
SETUP_SECONDS = 300
PLAN_ID = 1
RESELLERS = (1, 2)
TERMINATORS = ((71, 7), (72, 7), (81, 8))
"""Accounts that take calls, and their clients."""
ROUTED = frozenset({1, 2, 3, 4})
"""Clients with a routing plan; the others dial the dialplan's own trunk."""
CALLERS = (1, 2, 3, 4, 5, 6)
PREFIXES = ("44", "49", "1", "33", "800", "7")


@dataclass(frozen=True, slots=True)
class Person:
    """A client. Amounts are micros; None: no limit."""

    id: int
    prepaid: bool
    balance: int
    credit_limit: int | None
    reseller: int | None
    monthly_quota: int | None = None
    daily_quota: int | None = None
    orig_capacity: int | None = None


@dataclass(frozen=True, slots=True)
class World:
    """What does not change during a run. `capacities` has the limits by the key of their level."""

    people: tuple[Person, ...]
    capacities: dict[str, int]
    max_seconds: int

    def person(self, client_id: int) -> Person:
        """A client by its id."""
        return self.people[client_id - 1]

    def accounts_of(self, client_id: int) -> tuple[str, ...]:
        """The names of a client's accounts."""
        return (f"a{client_id}x", f"a{client_id}y")


def draw_world(chance: Chance) -> World:
    """A world by chance."""
    people = tuple(_people(chance))
    capacities = {key: most for key, most in _capacities(chance) if most is not None}
    for person in people:
        if person.orig_capacity is not None:
            capacities[f"client:{person.id}:orig"] = person.orig_capacity
    return World(people, capacities, chance.pick((45, 180, 600)))


def _people(chance: Chance) -> Iterator[Person]:
    def some(low: int, high: int, often: float = 0.5) -> int | None:
        return chance.whole(low, high) if chance.happens(often) else None

    money = chance.pick((300_000, 2_000_000, 30_000_000))
    yield Person(1, True, chance.whole(0, money), 0, 1)
    yield Person(2, True, money, chance.whole(0, money), 1, some(100_000, 2 * money), None)
    yield Person(3, False, 0, chance.whole(money // 2, 2 * money), 2, orig_capacity=some(2, 8, 0.3))
    yield Person(4, False, 0, None, 2, some(100_000, money), some(50_000, money), some(1, 8, 0.3))
    yield Person(5, True, chance.whole(0, 2 * money), 0, None, orig_capacity=some(1, 5, 0.3))
    yield Person(6, False, -money, 3 * money, 2, None, some(10_000, money, 0.2))
    yield Person(7, False, 0, None, 1)
    yield Person(8, False, 0, None, None)


def _capacities(chance: Chance) -> Iterator[tuple[str, int | None]]:
    def some(low: int, high: int) -> int | None:
        return chance.whole(low, high) if chance.happens(0.25) else None

    for reseller in RESELLERS:
        yield f"reseller:{reseller}:orig", some(2, 15)
        yield f"reseller:{reseller}:term", some(2, 15)
    for client in CALLERS:
        yield f"account:{client}1:orig", some(1, 6)
    for account, _ in TERMINATORS:
        yield f"account:{account}:term", some(1, 6)
    for client in (7, 8):
        yield f"client:{client}:term", some(2, 10)
    for rule in (1, 2, 3):
        yield f"route:{rule}:term", some(1, 6)


def catalog_of(world: World) -> Catalog:
    """The catalog that the program gets to know of the world."""
    most = world.capacities.get
    clients = {
        p.id: ClientSettings(
            p.id,
            f"client{p.id}",
            "EUR",
            1,
            True,
            p.reseller,
            PLAN_ID if p.id in ROUTED else None,
            p.orig_capacity,
            most(f"client:{p.id}:term"),
        )
        for p in world.people
    }
    accounts = {account.id: account for account in _accounts(world)}
    resellers = [
        Reseller(id, f"r{id}", True, most(f"reseller:{id}:orig"), most(f"reseller:{id}:term"))
        for id in RESELLERS
    ]
    rules = [
        Rule(number, "", account, priority=number, capacity=most(f"route:{number}:term"))
        for number, (account, _) in enumerate(TERMINATORS, 1)
    ]
    plan = RoutingPlan(PLAN_ID, "plan", RouteOrder.PRIORITY, 1, rules)
    retail = RateTable(1, "retail", "EUR", 1, [_row(tariff) for tariff in RETAIL])
    # What terminators charge has no part in the books of their callers.
    costs = RateTable(2, "costs", "EUR", 1, [_row(Tariff(t.prefix, 100)) for t in RETAIL])
    tables = {1: retail, 2: costs}
    return compile_catalog(1, clients, accounts, tables, resellers, {PLAN_ID: plan})


def _accounts(world: World) -> Iterator[Account]:
    most = world.capacities.get
    for client in CALLERS:
        for number, name in enumerate(world.accounts_of(client), 1):
            id = client * 10 + number
            yield Account(id, client, name, (name,), orig_capacity=most(f"account:{id}:orig"))
    for id, client in TERMINATORS:
        name = f"c{id}"
        side = Termination(2, capacity=most(f"account:{id}:term"), proxy=name)
        yield Account(id, client, name, (name,), orig_enabled=False, termination=side)


def _row(tariff: Tariff) -> RateRow:
    return RateRow(
        tariff.prefix,
        "somewhere",
        tariff.per_minute,
        tariff.fee,
        tariff.first,
        tariff.next,
        tariff.grace,
        tariff.minimum,
    )


def books_of(world: World) -> list[ClientBooks]:
    """The clients' books as they begin: their balances are booked as top-ups."""
    return [
        ClientBooks(
            p.id,
            ClientKind.PREPAID if p.prepaid else ClientKind.POSTPAID,
            p.balance,
            p.credit_limit,
            0,
            0,
            0,
            p.monthly_quota,
            p.daily_quota,
        )
        for p in world.people
    ]


def policy_of(world: World) -> CallPolicy:
    """The rules for all calls."""
    return CallPolicy(
        max_seconds=world.max_seconds,
        setup_seconds=SETUP_SECONDS,
        emergency_numbers=frozenset({EMERGENCY}),
        numbering=Numbering(),
    )
