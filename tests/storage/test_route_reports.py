"""Reports of routed calls on both kinds of database: filters, and the sums that explain a cost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import product
from typing import TypeVar

import pytest

from astcredit.domain.money import amount_text
from astcredit.service.call_filters import ActiveFilter, CdrFilter, require_named, route_of
from astcredit.service.cdr_explanation import explain_cdr
from astcredit.service.errors import RefusedError
from astcredit.service.reports import CdrRecord
from astcredit.service.routing_desk import RoutingDesk
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.database import Database
from astcredit.storage.reports import SqlReports
from support.calls import ms
from support.core import Clock, opened
from support.routed_calls import ROUTED, UP, Routed, fill_routed, routed

T = TypeVar("T")

NORTH_UK, OVER_CB, LOSS, LOST = ROUTED[1], ROUTED[2], ROUTED[3], ROUTED[4]
ON_TRUNK, DENIED, OVERRUN = ROUTED[5], ROUTED[6], ROUTED[9]


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with routed(request.param, request) as found:
        yield found


def read(url: str, work: Callable[[Database], Awaitable[T]]) -> T:
    async def run() -> T:
        async with opened(url) as database:
            return await work(database)

    return asyncio.run(run())


def one(url: str, call: Routed) -> CdrRecord:
    record = read(url, lambda database: SqlReports(database).cdr(call.id))
    assert record is not None
    return record


def test_cdr_has_its_route_and_who_called(url: str) -> None:
    for call in ROUTED:
        record = one(url, call)
        assert (record.reseller, record.ani, record.callerid, record.source) == (
            call.reseller,
            call.ani,
            call.callerid,
            call.source,
        )
        assert (record.ident_by, record.tech_prefix) == (call.ident_by, call.tech_prefix)
        assert (record.routing_plan, record.route_prefix, record.terminator, record.tried) == (
            call.plan,
            call.route_prefix,
            call.terminator,
            "; ".join(map(str, call.tried)),
        )
        shown = None if record.ourcost is None else Decimal(amount_text(record.ourcost))
        assert shown == call.ourcost


ACCOUNTS = (None, "anna-desk", "bert")
RESELLERS = (None, "north", "south", "west")
TERMINATORS = (None, "ca", "cc")


def test_cdr_filters_all_hold(url: str) -> None:
    async def every(database: Database) -> None:
        reports = SqlReports(database)
        for account, reseller, terminator, from_ms in product(
            ACCOUNTS, RESELLERS, TERMINATORS, (None, ms("2026-11-01 00:00:00.000"))
        ):
            wanted = CdrFilter(None, from_ms, None, None, account, reseller, terminator)
            found = [record.id async for record in reports.all_cdrs(wanted)]
            assert found == [
                call.id
                for call in ROUTED
                if account in (None, call.account)
                and reseller in (None, call.reseller)
                and terminator in (None, call.terminator)
                and (from_ms is None or from_ms <= ms(call.at))
            ], wanted

    read(url, every)


def test_active_filters_all_hold(url: str) -> None:
    """By the route that a call is on now, not by those that were tried before."""

    async def every(database: Database) -> None:
        reports = SqlReports(database)
        for reseller, account, terminator, plan, prefix in product(
            RESELLERS, ACCOUNTS, TERMINATORS, (None, "retail"), (None, "44", "")
        ):
            wanted = ActiveFilter(reseller, None, account, plan, prefix, terminator)
            found = [call.id for call in await reports.active_calls(wanted)]
            assert found == [
                call.id
                for call in UP
                if reseller in (None, call.reseller)
                and account in (None, call.account)
                and terminator in (None, call.terminator)
                and plan in (None, call.plan)
                and (prefix is None or (prefix or "*") == call.route_prefix)
            ], wanted

    read(url, every)


def test_active_calls_have_their_route(url: str) -> None:
    calls = read(url, lambda database: SqlReports(database).active_calls(ActiveFilter()))
    assert [
        (c.reseller, c.routing_plan, c.route_prefix, c.terminator, c.ani, c.source) for c in calls
    ] == [(c.reseller, c.plan, c.route_prefix, c.terminator, c.ani, c.source) for c in UP]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (CdrFilter(client="ana"), "there is no client 'ana'; the nearest is 'anna'"),
        (CdrFilter(account="anna-dsk"), "no account 'anna-dsk'; the nearest is 'anna-desk'"),
        (CdrFilter(reseller="noth"), "there is no reseller 'noth'; the nearest is 'north'"),
        (CdrFilter(terminator="bret"), "there is no account 'bret'; the nearest is 'bert'"),
        (ActiveFilter(plan="retial"), "no routing plan 'retial'; the nearest is 'retail'"),
        (ActiveFilter(reseller=""), "there is no reseller ''"),
        (ActiveFilter(client="zzz"), "there is no client 'zzz'"),
        (ActiveFilter(account="Bert"), "the nearest is 'bert'"),
        (ActiveFilter(terminator="x\x1b[2J"), "there is no account 'x\\x1b[2J'"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest(
    url: str, wanted: CdrFilter | ActiveFilter, said: str
) -> None:
    with pytest.raises(RefusedError) as raised:
        read(url, lambda database: require_named(SqlAdministration(database), wanted.named))
    assert said in str(raised.value)


def test_known_names_are_let_through(url: str) -> None:
    wanted = ActiveFilter("north", "anna", "anna-gw", "retail", "44", "ca")
    read(url, lambda database: require_named(SqlAdministration(database), wanted.named))


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("retail", ("retail", None)),
        ("retail/44", ("retail", "44")),
        ("retail/*", ("retail", "")),
        ("retail/+44", ("retail", "44")),
        ("retail/", ("retail", "")),
        ("a/44", ("a/44", None)),
        ("a/44/44", "routing plan 'a/44' has no route for prefix 44"),
        ("retail/45", "routing plan 'retail' has no route for prefix 45"),
        ("retail/4", "routing plan 'retail' has no route for prefix 4"),
        ("retail/x", "route 'retail/x': prefix 'x': expected 1 to 20 digits"),
        ("retial/44", "there is no routing plan 'retial'; the nearest is 'retail'"),
        ("", "there is no routing plan ''"),
    ],
)
def test_route_is_a_plan_or_a_prefix_of_it(
    sqlite_routed: str, text: str, means: tuple[str, str | None] | str
) -> None:
    """A plan's name may have a slash of its own."""
    look = lambda database: route_of(SqlAdministration(database), text)  # noqa: E731
    if isinstance(means, tuple):
        assert read(sqlite_routed, look) == means
        return
    with pytest.raises(RefusedError) as raised:
        read(sqlite_routed, look)
    assert means in str(raised.value)


@pytest.fixture(scope="module")
def sqlite_routed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """With a second plan, whose name looks like a plan and a prefix."""
    url = f"sqlite:///{tmp_path_factory.mktemp('routed') / 'astcredit.db'}"

    async def make(database: Database) -> None:
        await fill_routed(database)
        await RoutingDesk(SqlAdministration(database), "ops@test", Clock()).add_plan("a/44")

    read(url, make)
    return url


EXPLANATIONS = [
    (
        NORTH_UK,
        [
            "account 'anna-desk', recognised by name",
            "terminator 'ca', by routing plan 'retail' for prefix 44",
            "rate 0.06 a minute for prefix 44",
            "talked 61 s, billed 120 s (first 60 s, then every 60 s begun)",
            "talk 120 s * 0.06 / 60 s = 0.12",
            "price 0.12",
            "terminator: rate 0.02 a minute for prefix 4420",
            "terminator: talked 61 s, billed 61 s (first 1 s, then every 1 s begun)",
            "terminator: talk 61 s * 0.02 / 60 s = 0.020334, rounded up to the sixth decimal",
            "ourcost 0.020334",
            "margin 0.099666: price 0.12 less ourcost 0.020334",
            "settled by ami",
        ],
    ),
    (
        OVER_CB,
        [
            "account 'anna-gw', recognised by the address '10.1.2.3:5060' and the tech prefix 77",
            "tried before: ca CONGESTION 34",
            "terminator 'cb', by routing plan 'retail' for prefix 44",
            "rate 0.06 a minute for prefix 44",
            "talked 31 s, billed 60 s (first 60 s, then every 60 s begun)",
            "talk 60 s * 0.06 / 60 s = 0.06",
            "price 0.06",
            "terminator: rate 0.025 a minute for prefix 44",
            "terminator: talked 31 s, billed 60 s (first 60 s, then every 60 s begun)",
            "terminator: connect fee 0.01",
            "terminator: talk 60 s * 0.025 / 60 s = 0.025",
            "ourcost 0.035",
            "margin 0.025: price 0.06 less ourcost 0.035",
            "settled by ami",
        ],
    ),
    (
        LOST,
        [
            "account 'anna-desk', recognised by name",
            "tried before: ca CONGESTION 34; cb CHANUNAVAIL 20",
            "terminator 'cc', by routing plan 'retail' for prefix *",
            "not answered, nothing charged",
            "settled by ami",
        ],
    ),
    (
        ON_TRUNK,
        [
            "account 'bert', recognised by name",
            "rate 0.06 a minute for prefix 44",
            "talked 60 s, billed 60 s (first 60 s, then every 60 s begun)",
            "talk 60 s * 0.06 / 60 s = 0.06",
            "price 0.06",
            "settled by ami",
        ],
    ),
    (
        DENIED,
        [
            "account 'anna-desk', recognised by name",
            "denied: INVALID: no rate for 8812345678 in rate table 'standard'",
        ],
    ),
    (
        UP[0],
        [
            "account 'anna-gw', recognised by the address '10.1.2.3:5060' and the tech prefix 77",
            "tried before: ca CONGESTION 34",
            "terminator 'cb', by routing plan 'retail' for prefix 44",
            "still up: 3.60 EUR reserved",
        ],
    ),
]


@pytest.mark.parametrize(("call", "said"), EXPLANATIONS)
def test_every_call_explains_itself(url: str, call: Routed, said: Sequence[str]) -> None:
    assert explain_cdr(one(url, call)) == said


def test_presented_number_and_the_callers_own_are_told_apart(url: str) -> None:
    said = explain_cdr(one(url, LOSS))
    assert said[:2] == [
        "account 'anna-ani', recognised by the caller's number '442079460000'",
        "caller's number '442079460000', presented as '442070000001'",
    ]
    assert "margin -0.009449: price 0.012551 less ourcost 0.022" in said


def test_terminator_is_owed_for_what_asterisk_cut_too_late(url: str) -> None:
    """The client is not charged for it."""
    said = explain_cdr(one(url, OVERRUN))
    assert "talked 120 s, billed 120 s (first 60 s, then every 60 s begun)" in said
    assert "terminator: talked 121 s, billed 121 s (first 1 s, then every 1 s begun)" in said
    assert "margin 0.079666: price 0.12 less ourcost 0.040334" in said


def test_cost_that_its_rate_does_not_give_is_said_so(url: str) -> None:
    record = replace(one(url, NORTH_UK), ourcost=20_000)
    assert "ourcost 0.02, which the terminator's rate does not explain" in explain_cdr(record)


def test_cost_without_a_rate_on_record_is_shown_as_it_is(url: str) -> None:
    record = replace(one(url, NORTH_UK), cost_rate=None)
    said = explain_cdr(record)
    assert "ourcost 0.020334" in said
    assert not any(line.startswith("terminator: ") for line in said)


def test_what_callers_sent_is_escaped(url: str) -> None:
    """Before the command line escapes what it prints."""
    record = replace(one(url, LOSS), ani="\x1b[2J", callerid="1")
    assert all(line.isprintable() for line in explain_cdr(record))
