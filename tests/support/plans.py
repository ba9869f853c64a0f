"""A world in which calls are routed, for tests of capacity and of routes.

Client 1 calls by its accounts alice (1) and alan (2), client 2 by bob (3); both belong to the
reseller north (1). Client 3, of the reseller south (2), terminates by its accounts c1 (11) and
c2 (12); client 4, of no reseller, by c3 (13). The plan of clients 1 and 2 sends 44… to c1, then
to c2, then to c3, by the rules 21, 22 and 23.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from astcredit.domain.accounts import Account, Termination
from astcredit.domain.blocks import Block, Blocks
from astcredit.domain.books import ClientBooks
from astcredit.domain.calls import RouteRequest
from astcredit.domain.capacity import Direction, Level, Scope
from astcredit.domain.catalog import Catalog, ClientSettings, Reseller, compile_catalog
from astcredit.domain.decisions import Decision
from astcredit.domain.rating import Rate
from astcredit.domain.routing_plan import RouteOrder, RoutingPlan, Rule
from astcredit.service.ledger import Ledger
from astcredit.service.operations import NoFurtherRoute, Operation, Outcome, Rerouted
from support.core import (
    NODE,
    RATE,
    Clock,
    FixedCatalog,
    account,
    call_id,
    policy,
    postpaid,
    rate_table,
    settings,
)
from support.memory_books import MemoryBooks, audit

COSTS = Rate("44", "United Kingdom", 20_000, 0, 60, 60)
"""What c1 and c2 charge: 0.02 a minute, in whole minutes."""
DEARER = Rate("44", "United Kingdom", 30_000, 0, 6, 6)
"""What c3 charges: 0.03 a minute, by six seconds."""

RATES = {1: RATE, 2: COSTS, 3: DEARER}
"""What stands in the rate tables; the first is the clients'."""

NORTH, SOUTH = Reseller(1, "north"), Reseller(2, "south")
CLIENTS = (
    replace(settings(1), reseller_id=1, routing_plan_id=1),
    replace(settings(2), reseller_id=1, routing_plan_id=1),
    replace(settings(3), reseller_id=2, rate_table_id=None),
    replace(settings(4), rate_table_id=None),
)


def terminator(id: int, client_id: int, rate_table_id: int = 2) -> Account:
    """The account c1 for the id 11, and so on; it is reached through an endpoint of its name."""
    name = f"c{id - 10}"
    termination = Termination(rate_table_id, proxy=name)
    return replace(account(name, client_id, id), orig_enabled=False, termination=termination)


ACCOUNTS = (
    account("alice", 1, 1),
    account("alan", 1, 2),
    account("bob", 2, 3),
    terminator(11, 3),
    terminator(12, 3),
    terminator(13, 4, 3),
)
RULES = tuple(Rule(20 + n, "44", 10 + n, priority=n) for n in (1, 2, 3))

ALICE_TO_C1 = (
    "reseller:1:orig",
    "client:1:orig",
    "account:1:orig",
    "reseller:2:term",
    "client:3:term",
    "account:11:term",
    "route:21:term",
)
"""Keys of all levels that a call of alice's passes on its first route, in the order of checks."""


def level(key: str) -> Level:
    """The level of a key."""
    scope, id, direction = key.split(":")
    return Level(Scope(scope), int(id), Direction(direction))


def plan(*rules: Rule, id: int = 1) -> RoutingPlan:
    return RoutingPlan(id, f"plan{id}", RouteOrder.PRIORITY, 1, rules)


def routed(
    limits: Mapping[str, int | None] | None = None,
    *,
    rules: Collection[Rule] = RULES,
    plans: Mapping[int, Collection[Rule]] | None = None,
    resellers: Iterable[Reseller] = (NORTH, SOUTH),
    clients: Iterable[ClientSettings] = CLIENTS,
    accounts: Iterable[Account] = ACCOUNTS,
    blocks: Iterable[Block] = (),
    version: int = 1,
) -> Catalog:
    """The world's catalog with limits by the key of their level; what has none is unlimited.

    `rules` are those of the only plan, unless there are `plans`, by id.
    """
    most = (limits or {}).get
    return compile_catalog(
        version,
        {c.id: _limited_client(c, most) for c in clients},
        {a.id: _limited_account(a, most) for a in accounts},
        {id: rate_table(rate, id=id, name=f"table{id}") for id, rate in RATES.items()},
        [
            replace(
                r,
                orig_capacity=most(f"reseller:{r.id}:orig"),
                term_capacity=most(f"reseller:{r.id}:term"),
            )
            for r in resellers
        ],
        {
            id: plan(*(replace(r, capacity=most(f"route:{r.id}:term")) for r in found), id=id)
            for id, found in (plans or {1: rules}).items()
        },
        Blocks(blocks),
    )


_Most = Callable[[str], int | None]


def _limited_client(client: ClientSettings, most: _Most) -> ClientSettings:
    orig, term = most(f"client:{client.id}:orig"), most(f"client:{client.id}:term")
    return replace(client, orig_capacity=orig, term_capacity=term)


def _limited_account(account: Account, most: _Most) -> Account:
    limited = replace(account, orig_capacity=most(f"account:{account.id}:orig"))
    if limited.termination is None:
        return limited
    capacity = most(f"account:{account.id}:term")
    return replace(limited, termination=replace(limited.termination, capacity=capacity))


def next_route(
    number: int = 1, ask: str = "", dialstatus: str = "CONGESTION", cause: int = 34
) -> RouteRequest:
    """The `number`th call failed on its route and asks for the next one."""
    ask_id = ask or f"ask-{number}"
    return RouteRequest(call_id(number), NODE, f"caller-{number}", ask_id, dialstatus, cause)


class Exchange:
    """Books of the world's clients, who have money enough, and a ledger on them."""

    def __init__(self, catalog: Catalog | None = None, clients: Iterable[ClientBooks] = ()) -> None:
        people = list(clients) or [postpaid(id) for id in (1, 2, 3, 4)]
        self.books = MemoryBooks(people)
        self.source = FixedCatalog(catalog or routed())
        self.clock = Clock()
        self.ledger = Ledger(self.books, self.source, policy(), self.clock)

    def play(self, *operations: Operation, together: bool = True) -> list[Outcome]:
        """Apply the operations, in one transaction or in one each; the books are right after."""
        batches = [operations] if together else [(operation,) for operation in operations]
        answers: list[Outcome] = []
        for batch in batches:
            outcomes: list[Outcome] = []
            asyncio.run(self.ledger.apply(batch, {}, outcomes))
            assert audit(self.books.snapshot()) == []
            answers += outcomes
        return answers

    def set(self, limits: Mapping[str, int | None]) -> None:
        """From now on these limits are in force, and no others."""
        self.source.catalog = routed(limits)

    def uses(self) -> dict[str, int]:
        """The counters that are not zero."""
        return dict(self.books.snapshot().counters)

    def on(self, number: int = 1) -> int | None:
        """The rule whose route an open call is on."""
        return self.books.calls[call_id(number)].occupancy.route_id


def told(outcomes: Iterable[Outcome]) -> list[str]:
    """Statuses of decisions, terminators of next routes, NOROUTE; for comparisons."""
    texts = []
    for outcome in outcomes:
        match outcome:
            case Decision():
                texts.append(outcome.status.value)
            case Rerouted():
                texts.append(outcome.route.terminator.name)
            case NoFurtherRoute():
                texts.append("NOROUTE")
    return texts
