"""What the catalog says of a call: every refusal, their order, and what the books are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import pytest

from astcredit.domain.accounts import IdentKind, SourcePolicy
from astcredit.domain.blocks import Block
from astcredit.domain.calls import AuthStatus, Origin
from astcredit.domain.catalog import Catalog
from astcredit.domain.decisions import Decision, Inquiry
from astcredit.domain.numbers import Numbering
from astcredit.domain.rating import Rate
from astcredit.domain.routing_plan import RouteOrder, RoutingPlan
from astcredit.domain.screening import identify, screen
from support.core import (
    EMERGENCY,
    LONGEST_SECONDS,
    NOW_MS,
    RATE,
    account,
    decided,
    policy,
    prepaid,
    rate_table,
    request,
)
from support.plans import ACCOUNTS, CLIENTS, COSTS, NORTH, RULES, routed

LONDON = "442071234567"
HOME = replace(policy(), numbering=Numbering("44"))


@dataclass(frozen=True)
class Case:
    """A call of alice's that nothing stands against; what is changed stands against it."""

    accountcode: str = "alice"
    enabled: bool = True
    policy: SourcePolicy = SourcePolicy.ALLOW_ANY
    blocks: tuple[Block, ...] = ()
    rate_table: int = 1
    rules_enabled: bool = True
    capacity: int | None = None
    balance: int = 10**9
    number: str = LONDON

    def decision(self) -> Decision:
        alice = replace(
            account("alice", rate_table_id=self.rate_table),
            enabled=self.enabled,
            source_policy=self.policy,
        )
        catalog = routed(
            {"account:1:orig": self.capacity},
            accounts=[alice, *ACCOUNTS[1:]],
            rules=[replace(rule, enabled=self.rules_enabled) for rule in RULES],
            blocks=self.blocks,
        )
        books = prepaid(balance=self.balance) if self.accountcode == "alice" else None
        return decided(request(1, self.accountcode, self.number), catalog, books)


FAULTS: dict[str, dict[str, object]] = {
    "NOACCOUNT": {"accountcode": "mallory"},
    "DISABLED": {"enabled": False},
    "SRCREJECT": {"policy": SourcePolicy.REJECT},
    "BLOCKED": {"blocks": (Block("4420"),)},
    "INVALID": {"rate_table": 9},
    "NOROUTE": {"rules_enabled": False},
    "CAPACITY": {"capacity": 0},
    "NOCREDIT": {"balance": 0},
}
"""What stands against a call, in the order in which it is looked for."""


def with_faults(*statuses: str, **more: object) -> Decision:
    changes = {name: value for s in statuses for name, value in FAULTS[s].items()} | more
    return replace(Case(), **changes).decision()  # type: ignore[arg-type]


def test_a_call_that_nothing_stands_against_is_allowed() -> None:
    assert with_faults().status is AuthStatus.ALLOWED


def test_the_order_is_that_of_the_documentation() -> None:
    refusals = [status for status in AuthStatus if status.value in FAULTS]
    assert refusals == list(FAULTS)


@pytest.mark.parametrize("status", FAULTS)
def test_each_alone_is_the_answer(status: str) -> None:
    decision = with_faults(status)
    assert decision.status is AuthStatus(status)
    assert decision.reason
    assert (decision.seconds, decision.reserved, decision.route) == (0, 0, None)


@pytest.mark.parametrize(("earlier", "later"), list(combinations(FAULTS, 2)))
def test_of_two_the_earlier_is_the_answer(earlier: str, later: str) -> None:
    assert with_faults(earlier, later).status is AuthStatus(earlier)


def test_what_is_no_number_is_invalid_after_the_account_and_its_caller() -> None:
    """It can be on no list of blocks, and has no rate and no route."""
    assert with_faults(number="sales").status is AuthStatus.INVALID
    for status in ("NOACCOUNT", "DISABLED", "SRCREJECT"):
        assert with_faults(status, number="sales").status is AuthStatus(status)


@pytest.mark.parametrize("faults", [*([f] for f in FAULTS), list(FAULTS)[1:], list(FAULTS)])
def test_an_emergency_call_passes_all_of_them(faults: Sequence[str]) -> None:
    decision = with_faults(*faults, number=EMERGENCY)
    assert (decision.status, decision.number) == (AuthStatus.ALLOWED, EMERGENCY)
    assert (decision.seconds, decision.reserved) == (LONGEST_SECONDS, 0)
    assert decision.callerid == "100"


# Who is off


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"enabled": False}, "account 'alice' is disabled"),
        ({"orig_enabled": False}, "account 'alice' is disabled as an originator"),
        ({"enabled": False, "orig_enabled": False}, "account 'alice' is disabled"),
    ],
)
def test_an_account_that_is_off_makes_no_call(changes: dict[str, bool], reason: str) -> None:
    catalog = routed(accounts=[replace(ACCOUNTS[0], **changes), *ACCOUNTS[1:]])  # type: ignore[arg-type]
    found = ask(catalog)
    assert isinstance(found, Decision)
    assert (found.status, found.reason) == (AuthStatus.DISABLED, reason)


def ask(
    catalog: Catalog, number: str = LONDON, name: str = "alice", **more: str
) -> Inquiry | Decision:
    asked = replace(request(1, name, number), **more)
    return screen(asked, catalog, HOME, NOW_MS)


def test_a_reseller_that_is_off_stops_its_clients() -> None:
    off = replace(routed(), resellers={1: replace(NORTH, enabled=False)})
    for name in ("alice", "alan", "bob"):
        found = ask(off, name=name)
        assert isinstance(found, Decision)
        assert (found.status, found.reason) == ("DISABLED", "reseller 'north' is disabled")


def test_a_terminators_own_side_does_not_stop_its_calls() -> None:
    side = [replace(a, termination=a.termination and replace(a.termination, enabled=False))
            for a in ACCOUNTS]  # fmt: skip
    catalog = routed(
        accounts=[replace(a, orig_enabled=True, rate_table_id=1) for a in side],
        clients=[replace(c, routing_plan_id=None) for c in CLIENTS],
    )
    assert isinstance(ask(catalog, name="c1"), Inquiry)


# Blocks


@pytest.mark.parametrize(
    ("block", "number", "refused"),
    [
        (Block("4420"), LONDON, "prefix 4420 of 442071234567 is blocked"),
        (Block("4420", 1), LONDON, "prefix 4420 of 442071234567 is blocked for client 'client1'"),
        (Block("4420", 2), LONDON, ""),
        (Block("4420"), "02071234567", "prefix 4420 of 442071234567 is blocked"),
        (Block("4420"), "0044 20 7123 4567", "prefix 4420 of 442071234567 is blocked"),
        (Block("020"), "02071234567", ""),  # blocks are written internationally
        (Block("4421"), LONDON, ""),
    ],
)
def test_blocks_are_looked_for_in_the_international_number(
    block: Block, number: str, refused: str
) -> None:
    found = ask(routed(blocks=[block]), number)
    if refused:
        assert isinstance(found, Decision)
        assert (found.status, found.reason) == (AuthStatus.BLOCKED, refused)
        assert found.number == LONDON
    else:
        assert isinstance(found, Inquiry)


def test_an_emergency_number_cannot_be_blocked() -> None:
    assert isinstance(ask(routed(blocks=[Block("1")]), EMERGENCY), Inquiry)


# The number to present


@pytest.mark.parametrize(
    ("callerid", "rejected", "presented"),
    [
        ("442079999999", False, "442079999999"),
        ("02079999999", False, "02079999999"),
        ("+442079999999", False, "+442079999999"),
        ("442070000000", True, "442079999999"),
        ("", True, "442079999999"),
    ],
)
def test_the_policy_decides_what_is_presented(
    callerid: str, rejected: bool, presented: str
) -> None:
    def asked(how: SourcePolicy) -> Inquiry | Decision:
        alice = replace(ACCOUNTS[0], source_policy=how, dids=("442079999999",))
        return ask(routed(accounts=[alice, *ACCOUNTS[1:]]), callerid=callerid)

    free, strict, fixed = map(asked, SourcePolicy)
    assert isinstance(free, Inquiry)
    assert free.callerid == callerid
    assert isinstance(strict, Decision) == rejected
    if isinstance(strict, Decision):
        assert strict.status is AuthStatus.SRCREJECT
        assert (
            strict.reason == f"caller's number '{callerid}' is none of the DIDs of account 'alice'"
        )
    assert isinstance(fixed, Inquiry)
    assert fixed.callerid == presented


def test_what_is_presented_stands_in_a_later_refusal_too() -> None:
    """The CDR of a refused call shows the number as it would have been presented."""
    alice = replace(ACCOUNTS[0], source_policy=SourcePolicy.OVERWRITE, dids=("442079999999",))
    catalog = routed(accounts=[alice, *ACCOUNTS[1:]], blocks=[Block("53")])
    for number in ("5312345", "999", "sales"):
        found = ask(catalog, number)
        assert isinstance(found, Decision)
        assert found.callerid == "442079999999"


# Tech prefixes and emergency numbers

PREFIXED = replace(account("gate", id=7), tech_prefix="77", routing_plan_id=None)


def gate(number: str, tech_prefix: str = "77") -> Inquiry | Decision:
    gate = replace(PREFIXED, tech_prefix=tech_prefix)
    clients = [replace(client, routing_plan_id=None) for client in CLIENTS]
    return ask(routed(accounts=[gate, *ACCOUNTS[3:]], clients=clients), number, "gate")


@pytest.mark.parametrize(
    ("dialled", "number"),
    [
        ("77442071234567", LONDON),
        ("7702071234567", LONDON),
        ("77+442071234567", LONDON),
        ("7700442071234567", LONDON),
    ],
)
def test_a_tech_prefix_is_gone_before_anything_looks_at_the_number(
    dialled: str, number: str
) -> None:
    found = gate(dialled)
    assert isinstance(found, Inquiry)
    assert found.number == number
    assert found.rate == rate_table().lookup(LONDON, NOW_MS)


@pytest.mark.parametrize(
    ("dialled", "tech_prefix"),
    [("77112", "77"), ("77+112", "77"), ("112", "1"), ("112", "11"), ("112", "112"), ("1112", "1")],
)
def test_an_emergency_number_is_one_with_and_without_the_tech_prefix(
    dialled: str, tech_prefix: str
) -> None:
    """A tech prefix that begins like it does not eat it."""
    found = gate(dialled, tech_prefix)
    assert isinstance(found, Inquiry)
    assert (found.number, found.rate, found.routing) == (EMERGENCY, None, None)


def test_who_forgets_the_tech_prefix_gets_an_emergency_call_through() -> None:
    """Nobody is recognised, nobody pays, and it is allowed."""
    found = gate(EMERGENCY)
    assert isinstance(found, Decision)
    assert (found.status, found.account, found.number) == (AuthStatus.ALLOWED, None, EMERGENCY)
    refused = gate(LONDON)
    assert isinstance(refused, Decision)
    assert refused.status is AuthStatus.NOACCOUNT


def test_the_emergency_number_behind_a_tech_prefix_of_nobodys_is_none() -> None:
    found = gate("88112")
    assert isinstance(found, Decision)
    assert found.status is AuthStatus.NOACCOUNT


# What is left to ask of the books


def test_an_inquiry_has_all_that_the_books_need() -> None:
    found = ask(routed({"account:1:orig": 3}))
    assert isinstance(found, Inquiry)
    assert (found.currency, found.reseller_id, found.callerid) == ("EUR", 1, "100")
    assert [limit.most for limit in found.limits] == [None, None, 3]
    assert found.rate is not None
    assert found.rate.rate_per_minute == RATE.rate_per_minute
    assert found.routing is not None
    assert [way.rule.id for way in found.routing.routes] == [21, 22, 23]
    assert {x.key for x in found.levels()} == {
        "reseller:1:orig", "account:1:orig", "reseller:2:term", "client:3:term",
        "client:4:term", "account:11:term", "account:12:term", "account:13:term",
        "route:21:term", "route:22:term", "route:23:term",
    }  # fmt: skip


def test_a_call_on_the_dialplans_trunk_has_no_routing() -> None:
    clients = [replace(client, routing_plan_id=None) for client in CLIENTS]
    found = ask(routed(clients=clients))
    assert isinstance(found, Inquiry)
    assert found.routing is None
    assert {x.key for x in found.levels()} == {"reseller:1:orig"}


def test_the_counter_of_what_an_account_makes_is_asked_for_where_it_has_a_limit() -> None:
    """It changes under its client's lock alone: without a limit nobody looks at it."""
    free, limited = ask(routed({})), ask(routed({"account:1:orig": 0}))
    assert isinstance(free, Inquiry)
    assert isinstance(limited, Inquiry)
    assert {x.key for x in set(limited.levels()) - set(free.levels())} == {"account:1:orig"}


NO_PLAN = RoutingPlan(1, "plan1", RouteOrder.PRIORITY, 1, RULES, enabled=False)


@pytest.mark.parametrize(
    ("plans", "reason"),
    [
        ({}, "routing plan 'number 1' is disabled"),  # a row written by hand
        ({1: NO_PLAN}, "routing plan 'plan1' is disabled"),
    ],
)
def test_a_plan_that_is_off_or_not_there_has_no_route(
    plans: dict[int, RoutingPlan], reason: str
) -> None:
    """It is not taken for "no plan": the dialplan's own trunk may cost more than the call earns."""
    found = ask(replace(routed(), routing_plans=plans))
    assert isinstance(found, Decision)
    assert (found.status, found.reason) == (AuthStatus.NOROUTE, reason)


def test_an_emergency_call_goes_by_the_plan_where_that_has_a_route_for_it() -> None:
    """c1 and c2 have a rate for it, c3 has none; elsewhere it is the dialplan's own trunk."""
    everywhere = routed(rules=[replace(rule, prefix="") for rule in RULES])
    costs = rate_table(COSTS, Rate(EMERGENCY, "", 10**6), id=2)
    for catalog, routes in (
        (replace(everywhere, rate_tables={2: costs}), [21, 22]),
        (everywhere, []),
        (routed(), []),
    ):
        found = ask(catalog, EMERGENCY)
        assert isinstance(found, Inquiry)
        assert found.routing is not None
        assert [way.rule.id for way in found.routing.routes] == routes


# Who calls

ANI = replace(account("ani", id=7, idents=("442071*",)), ident_by=IdentKind.ANI)


@pytest.mark.parametrize(
    ("callerid", "known"),
    [
        ("442071234567", True),
        ("+442071234567", True),
        ("02071234567", True),  # as it is written at home
        ("00442071234567", True),
        ("020 7123 4567", True),
        ("442081234567", False),
        ("2071234567", False),
        ("", False),
        ("anonymous", False),
    ],
)
def test_a_callers_number_is_known_as_told_or_as_it_is_written_internationally(
    callerid: str, known: bool
) -> None:
    found = identify(
        routed(accounts=[ANI]), Origin("pbx1", callerid=callerid), LONDON, HOME.numbering
    )
    assert (found is not None) == known


def test_an_ident_in_the_form_that_is_told_comes_first() -> None:
    """A gateway that sends short numbers has them as idents: nothing is made of them."""
    short = replace(ANI, id=8, name="short", idents=("0207*",))
    catalog = routed(accounts=[ANI, short])
    found = identify(catalog, Origin("pbx1", callerid="02071234567"), LONDON, HOME.numbering)
    assert found is not None
    assert found.account.name == "short"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"account": "x\ny"}, r"no account is identified by the name 'x\ny'"),
        ({"account": "x", "source": "10.0.0.1"}, "no account is identified by the name 'x'"),
        (
            {"source": "10.0.0.1:5060"},
            "no account is identified by the name 'mallory', the address '10.0.0.1:5060',"
            " the caller's number '100'",
        ),
        (
            {"channel": "PJSIP/trunk-0000001a", "callerid": ""},
            "no account is identified by the name 'mallory', the endpoint 'trunk'",
        ),
        (
            {"accountcode": "", "callerid": ""},
            "the channel has no accountcode and the script got no account",
        ),
    ],
)
def test_nobody_is_told_by_what_he_was_looked_for(more: dict[str, str], reason: str) -> None:
    found = ask(routed(), name="mallory", **more)
    assert isinstance(found, Decision)
    assert (found.status, found.account) == (AuthStatus.NOACCOUNT, None)
    assert found.reason == reason


def test_a_refused_caller_is_known_by_account_number_and_route_as_far_as_it_came() -> None:
    """What the CDR of a refused call shows."""
    catalog = routed(rules=[replace(rule, enabled=False) for rule in RULES])
    found = ask(catalog)
    assert isinstance(found, Decision)
    assert found.account == ACCOUNTS[0]
    assert (found.number, found.currency) == (LONDON, "EUR")
    assert found.occupancy is not None
    assert (found.occupancy.account_id, found.occupancy.reseller_id) == (1, 1)
    assert found.rate is not None
