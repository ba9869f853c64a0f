"""Two months of calls over a routing plan, made by the real Ledger and Batcher, and what they must
cost on both sides.

`fill_routed` books them into a database. `ROUTED` says what each was and, computed here by other
means than the program's, what the client pays and what the terminator is owed.

Plan "retail": calls to 44 go to ca, then to cb; every other number, and what these two cannot take,
to cc. Client bert has no plan: the dialplan's own trunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from math import ceil

import pytest

from astcredit.domain.accounts import IdentKind, SourcePolicy
from astcredit.domain.calls import CallRequest, ChannelEnded, LegAnswered, RouteRequest
from astcredit.domain.catalog import ClientKind
from astcredit.domain.decisions import CallPolicy
from astcredit.domain.money import parse_amount
from astcredit.domain.numbers import Numbering
from astcredit.service.account_desk import AccountDesk
from astcredit.service.account_rules import AccountChange, TerminationChange
from astcredit.service.administration import Administration
from astcredit.service.batcher import Batcher
from astcredit.service.catalog_rules import ClientChange
from astcredit.service.ledger import Ledger
from astcredit.service.money_desk import MoneyDesk
from astcredit.service.operations import Operation
from astcredit.service.rate_desk import RateDesk
from astcredit.service.reseller_desk import ResellerChange, ResellerDesk
from astcredit.service.routing_desk import RoutingDesk
from astcredit.service.routing_ports import Place
from astcredit.service.routing_rules import RuleChange
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.books import SqlBooks
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from astcredit.storage.schema import upgrade
from support.calls import GERMANY, MOST_SECONDS, SETUP_MS, UK, USA, Tariff, filled, ms
from support.core import BatchLog, Clock, no_orphan

ACTOR = "ops@test"
PLAN = "retail"
DID = "442070000001"

CA_UK = Tariff("", "4420", "0.02")
CB_UK = Tariff("", "44", "0.025", fee="0.01", first=60, next=60)
CC_UK = Tariff("", "44", "0.05")
CC_USA = Tariff("", "1", "0.02", first=6, next=6)

DECKS: dict[str, tuple[Tariff, ...]] = {
    "standard": (UK, GERMANY, USA),
    "ca": (CA_UK,),
    "cb": (CB_UK,),
    "cc": (CC_UK, CC_USA),
}
COSTS = {("ca", "44"): CA_UK, ("cb", "44"): CB_UK, ("cc", "44"): CC_UK, ("cc", "1"): CC_USA}
PREFIXES = {"ca": "44", "cb": "44", "cc": "*"}
TERM_CLIENTS = {"ca": "telco", "cb": "telco", "cc": "longhaul"}
CLIENTS = {"anna-desk": "anna", "anna-gw": "anna", "anna-ani": "anna", "dan": "dan", "bert": "bert"}
RESELLERS: dict[str, str | None] = {"anna": "north", "dan": "south", "bert": None}
IDENT_BY = {"anna-gw": "ip", "anna-ani": "ani"}


@dataclass(frozen=True)
class Failure:
    """A terminator that was tried before, and what Dial said."""

    terminator: str
    dialstatus: str
    cause: int

    def __str__(self) -> str:
        return f"{self.terminator} {self.dialstatus} {self.cause}"


CA_BUSY = Failure("ca", "CONGESTION", 34)
CB_GONE = Failure("cb", "CHANUNAVAIL", 20)


@dataclass(frozen=True)
class Routed:
    """A call, and how it went. `terminator` None: the dialplan's own trunk, or none at all."""

    at: str
    account: str
    number: str
    tariff: Tariff | None
    terminator: str | None = None
    talk_ms: int | None = None
    tried: Sequence[Failure] = ()
    end: str = "ami"
    allowed: int = MOST_SECONDS

    @property
    def id(self) -> str:
        return f"R{ROUTED.index(self):019}"

    @property
    def client(self) -> str:
        return CLIENTS[self.account]

    @property
    def reseller(self) -> str | None:
        return RESELLERS[self.client]

    @property
    def month(self) -> str:
        return self.at[:7]

    @property
    def day(self) -> str:
        return self.at[:10]

    @property
    def destination(self) -> str:
        return self.tariff.destination if self.tariff else ""

    @property
    def status(self) -> str:
        if self.tariff is None:
            return "denied"
        if self.end in ("open", "answered"):
            return self.end
        return "failed" if self.talk_ms is None else "completed"

    @property
    def source(self) -> str:
        return "10.1.2.3:5060" if self.account == "anna-gw" else ""

    @property
    def ani(self) -> str:
        return "442079460000" if self.account == "anna-ani" else "100"

    @property
    def callerid(self) -> str:
        """What is presented."""
        return DID if self.account == "anna-ani" else self.ani

    @property
    def tech_prefix(self) -> str:
        return "77" if self.account == "anna-gw" else ""

    @property
    def ident_by(self) -> str:
        return IDENT_BY.get(self.account, "name")

    @property
    def plan(self) -> str | None:
        return PLAN if self.terminator else None

    @property
    def route_prefix(self) -> str | None:
        return PREFIXES[self.terminator] if self.terminator else None

    @property
    def cost(self) -> Tariff | None:
        """The terminator's."""
        if self.terminator is None or self.tariff is None:
            return None
        return COSTS[self.terminator, self.tariff.prefix]

    @property
    def price(self) -> Decimal:
        """What the client pays: never for what Asterisk cut too late."""
        if self.tariff is None or self.status != "completed":
            return Decimal(0)
        return self.tariff.price(min(self._seconds, self.allowed))

    @property
    def ourcost(self) -> Decimal | None:
        """What the terminator is owed: for all that its meter ran. None: not known."""
        if self.cost is None or self.status != "completed":
            return None
        return self.cost.price(self._seconds)

    @property
    def margin(self) -> Decimal | None:
        """What is left of the price; None where the cost is not known."""
        cost = self.ourcost
        return None if cost is None else self.price - cost

    @property
    def _seconds(self) -> int:
        return ceil((self.talk_ms or 0) / 1000)


LONDON, MIAMI = "442071234567", "13055550123"

ROUTED = (
    Routed("2026-10-31 23:59:59.000", "anna-desk", LONDON, UK, "ca", 61_000),
    Routed("2026-11-02 08:00:00.000", "anna-desk", LONDON, UK, "ca", 61_000),
    Routed("2026-11-03 08:00:00.000", "anna-gw", LONDON, UK, "cb", 30_200, [CA_BUSY]),
    Routed("2026-11-04 08:00:00.000", "anna-ani", MIAMI, USA, "cc", 61_000),
    Routed("2026-11-05 08:00:00.000", "anna-desk", LONDON, UK, "cc", tried=[CA_BUSY, CB_GONE]),
    Routed("2026-11-06 08:00:00.000", "bert", LONDON, UK, talk_ms=60_000),
    Routed("2026-11-07 08:00:00.000", "anna-desk", "8812345678", None),
    Routed("2026-11-07 09:00:00.000", "anna-desk", LONDON, UK, "ca"),
    Routed("2026-11-07 10:00:00.000", "anna-desk", LONDON, UK, "ca", 5_500),
    Routed("2026-11-08 08:00:00.000", "dan", LONDON, UK, "ca", 120_040, allowed=120),
    Routed("2026-12-01 09:00:00.000", "anna-gw", LONDON, UK, "cb", None, [CA_BUSY], "answered"),
    Routed("2026-12-01 09:30:00.000", "anna-desk", LONDON, UK, "ca", end="open"),
    Routed("2026-12-01 09:40:00.000", "bert", LONDON, UK, end="open"),
)

UP = [call for call in ROUTED if call.status in ("open", "answered")]


def routed(kind: str, request: pytest.FixtureRequest) -> AbstractContextManager[str]:
    """As `support.calls.filled`, with these calls."""
    return filled(kind, request, fill_routed)


async def fill_routed(database: Database) -> None:
    """Create the schema, the catalog and all calls, in the order of their time."""
    await upgrade(database)
    clock = Clock(ms("2026-09-30 00:00:00.000"))
    await configure(SqlAdministration(database), clock)
    catalog = SqlCatalog(database, inline_rates=1_000)
    rules = CallPolicy(MOST_SECONDS, 300, frozenset({"112"}), Numbering())
    ledger = Ledger(SqlBooks(database), catalog, rules, clock)
    batcher = Batcher(ledger.apply, no_orphan, BatchLog(), most_operations=256)
    batcher.start()
    steps = [step for call in ROUTED for step in _steps(call)]
    for at_ms, operation in sorted(steps, key=lambda step: step[0]):
        clock.now_ms = at_ms
        await batcher.submit(operation)
    assert await batcher.stop(30) == 0
    await catalog.close()


async def configure(store: SqlAdministration, clock: Clock) -> None:
    """Resellers, clients, accounts, rates and the routing plan; no call yet."""
    admin, rates = Administration(store, ACTOR, clock), RateDesk(store, ACTOR, clock)
    resellers, routing = ResellerDesk(store, ACTOR, clock), RoutingDesk(store, ACTOR, clock)
    for table, tariffs in DECKS.items():
        await admin.add_rate_table(table, "EUR")
        deck = [tariff.rate() for tariff in tariffs]
        await rates.import_deck(table, deck, 0, replace=False, source="test")
    await routing.add_plan(PLAN)
    for reseller in ("north", "south", "west"):
        await resellers.add(reseller, ResellerChange())
    postpaid, prepaid = ClientKind.POSTPAID, ClientKind.PREPAID
    for name, change in (
        ("anna", ClientChange(postpaid, credit_limit=None, reseller="north", routing_plan=PLAN)),
        ("bert", ClientChange(postpaid, credit_limit=None)),
        ("dan", ClientChange(prepaid, reseller="south", routing_plan=PLAN)),
        ("telco", ClientChange(postpaid, credit_limit=None, reseller="west")),
        ("longhaul", ClientChange(postpaid, credit_limit=None)),
    ):
        await admin.add_client(name, change)
        await admin.set_client(name, ClientChange(rate_table="standard"))
    await MoneyDesk(store, ACTOR, clock).top_up("dan", parse_amount("0.13"), "PAY-1")
    await _accounts(AccountDesk(store, ACTOR, clock))
    for terminator, prefix in PREFIXES.items():
        place = Place(PLAN, "" if prefix == "*" else prefix, terminator)
        priority = 2 if terminator == "cb" else 1
        await routing.add_rule(place, RuleChange(priority=priority))


async def _accounts(accounts: AccountDesk) -> None:
    by_ip = AccountChange(["10.1.2.0/24"], ident_by=IdentKind.IP, tech_prefix="77")
    by_ani = AccountChange(
        ["44207946*"],
        ident_by=IdentKind.ANI,
        source_policy=SourcePolicy.OVERWRITE,
        dids=[DID],
    )
    special = {"anna-gw": by_ip, "anna-ani": by_ani}
    for name, client in CLIENTS.items():
        await accounts.add(client, name, special.get(name) or AccountChange([name]))
    for name, client in TERM_CLIENTS.items():
        settings = TerminationChange(rate_table=name, proxy=name)
        await accounts.add(client, name, AccountChange([name], termination=settings))


def _steps(call: Routed) -> Iterator[tuple[int, Operation]]:
    """What the dialplan asks and Asterisk reports of a call, and when."""
    node, began = "pbx1", ms(call.at)
    caller, leg = f"caller-{call.id}", f"leg-{call.id}"
    named = call.account if call.ident_by == "name" else ""
    yield (
        began,
        CallRequest(
            call.id,
            node,
            caller,
            caller,
            "PJSIP/x-1",
            named,
            call.ani,
            call.tech_prefix + call.number,
            source=call.source,
        ),
    )
    for step, failure in enumerate(call.tried, 1):
        asked = RouteRequest(
            call.id, node, caller, f"{call.id}-{step}", failure.dialstatus, failure.cause
        )
        yield began + step * 1_000, asked
    answered = began + SETUP_MS
    if call.status == "failed":
        yield answered, ChannelEnded(node, caller, answered, 17, "BUSY", began + 1_000)
    elif call.status in ("completed", "answered"):
        trunk = f"PJSIP/{call.terminator or 'carrier'}"
        yield answered, LegAnswered(node, caller, leg, answered, call.id, trunk, began + 1_000)
    if call.status == "completed":
        ended = answered + (call.talk_ms or 0)
        yield ended, ChannelEnded(node, leg, ended, 16, "ANSWER")
