"""`astcredit route`: the rules of the routing plans."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.desks import at_desks
from astcredit.cli.output import Cell, Column, amount, flag, number, text
from astcredit.cli.parameters import capacity_option
from astcredit.domain.dialing import check_prepend
from astcredit.domain.money import Micros, parse_price
from astcredit.service.catalog_rules import KEEP, Capacity, Limit
from astcredit.service.errors import RefusedError
from astcredit.service.naming import shown_name
from astcredit.service.routing_ports import Place, RuleFilter
from astcredit.service.routing_rules import (
    RANGES,
    RuleChange,
    RuleRef,
    check_margin,
    parse_prefix,
    shown_prefix,
)

if TYPE_CHECKING:
    from astcredit.service.route_inquiry import RouteAnswer
    from astcredit.service.routing_ports import PlanRule
    from astcredit.storage.database import Database

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")

COLUMNS: tuple[Column, ...] = (
    number("id"),
    text("plan"),
    text("prefix"),
    text("account"),
    number("priority"),
    number("weight"),
    number("capacity"),
    number("strip"),
    text("prepend"),
    amount("min_margin"),
    flag("enabled"),
)

EXPLAINED: tuple[Column, ...] = (
    number("position"),
    number("id"),
    text("prefix"),
    text("account"),
    number("priority"),
    number("weight"),
    text("dial"),
    text("rate_prefix"),
    amount("rate_per_minute"),
    amount("first_minute"),
    amount("margin"),
    text("why_not"),
)

REF: Final = "ID | PLAN PREFIX ACCOUNT"

_ID: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
"""As many digits as the databases' columns of ids hold."""


def _row(rule: PlanRule) -> tuple[Cell, ...]:
    return (
        rule.id,
        rule.plan,
        shown_prefix(rule.prefix),
        rule.account,
        rule.priority,
        rule.weight,
        rule.capacity,
        rule.strip,
        rule.prepend or None,
        rule.min_margin,
        rule.enabled,
    )


def _read(parse: Callable[[str], T], text: str, parameter: click.Parameter) -> T:
    """What the text says; wrong usage if it says it wrongly."""
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None


def _prefix(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return None if value is None else _read(parse_prefix, value, parameter)


def _prepend(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return None if value is None else _read(check_prepend, value, parameter)


def _margin(_: click.Context, parameter: click.Parameter, value: str | None) -> Limit:
    return KEEP if value is None else _read(_parse_margin, value, parameter)


def _parse_margin(text: str) -> Micros | None:
    return check_margin(parse_price(text)) if text else None


def _ref(_: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> RuleRef:
    if len(value) == 3:
        plan, prefix, account = value
        return Place(plan, _read(parse_prefix, prefix, parameter), account)
    if len(value) == 1 and _ID.fullmatch(value[0]):
        return int(value[0])
    raise click.BadParameter(f"expected {REF}", param=parameter)


def _call(
    _: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str | None, str]:
    """The routing plan, if it is named, and the number."""
    if len(value) > 2:
        raise click.BadParameter("expected [PLAN] NUMBER", param=parameter)
    return (value[0] if len(value) == 2 else None), value[-1]


_which = click.argument("rule", metavar=REF, nargs=-1, required=True, callback=_ref)


def _settings(command: F) -> F:
    """The options that `add` and `set` share."""
    for option in reversed(
        (
            click.option(
                "--priority",
                type=click.IntRange(*RANGES["priority"]),
                help="The lowest is tried first.  [add: 1]",
            ),
            click.option(
                "--weight",
                type=click.IntRange(*RANGES["weight"]),
                help="Share of the calls among rules of one prefix and priority; 0 only when the "
                "others fail.  [add: 1]",
            ),
            capacity_option("--capacity", "Most calls at once by this rule; 0 for none,"),
            click.option(
                "--strip",
                type=click.IntRange(*RANGES["strip"]),
                help="Digits to take off the number's front.  [add: 0]",
            ),
            click.option(
                "--prepend",
                metavar="DIGITS",
                callback=_prepend,
                help="Digits to put there then; '' for none.",
            ),
            click.option(
                "--min-margin",
                metavar="AMOUNT",
                callback=_margin,
                help="Pass the rule over when the first minute of a call would earn less; '' for "
                "no demand.  [add: '']",
            ),
        )
    ):
        command = option(command)
    return command


@click.group(cls=Group)
def route() -> None:
    """Routes: the rules of routing plans. The longest prefix that fits a number comes first.

    Example: astcredit route add retail 44 carrier-a --priority 1
    """


@route.command("add")
@click.argument("plan")
@click.argument("prefix", callback=_prefix)
@click.argument("account")
@_settings
@pass_app
def add(
    app: App,
    plan: str,
    prefix: str,
    account: str,
    priority: int | None,
    weight: int | None,
    capacity: Capacity,
    strip: int | None,
    prepend: str | None,
    min_margin: Limit,
) -> None:
    """Let calls to numbers that begin with PREFIX ('*': all numbers) go to ACCOUNT.

    The account needs terminator settings: see astcredit account set --term.

    Example: astcredit route add retail 44 carrier-a --weight 3 --prepend 0055
    """
    change = RuleChange(priority, weight, capacity, strip, prepend, min_margin)
    place = Place(plan, prefix, account)
    added = at_desks(app, lambda desks: desks.routing.add_rule(place, change))
    message = (
        f"route {added.id} added: routing plan {shown_name(plan)}, prefix {shown_prefix(prefix)},"
        f" account {shown_name(account)}"
    )
    app.output.done(message, COLUMNS, _row(added))


@route.command("set")
@_which
@_settings
@pass_app
def set_(
    app: App,
    rule: RuleRef,
    priority: int | None,
    weight: int | None,
    capacity: Capacity,
    strip: int | None,
    prepend: str | None,
    min_margin: Limit,
) -> None:
    """Change settings of a route; what is not named stays.

    Example: astcredit route set retail 44 carrier-a --capacity 30
    """
    change = RuleChange(priority, weight, capacity, strip, prepend, min_margin)
    found = at_desks(app, lambda desks: desks.routing.set_rule(rule, change))
    app.output.item(COLUMNS, _row(found))


@route.command("list")
@click.argument("plan", required=False)
@click.option("--account", metavar="NAME", help="Only routes to this terminator.")
@click.option(
    "--prefix",
    metavar="DIGITS",
    callback=_prefix,
    help="Only prefixes that begin so; '*': only the routes for all numbers.",
)
@pass_app
def list_(app: App, plan: str | None, account: str | None, prefix: str | None) -> None:
    """List the routes of PLAN, or of all routing plans.

    Example: astcredit route list retail --prefix 44
    """
    wanted = RuleFilter(plan, account, prefix)
    found = at_desks(app, lambda desks: desks.routing.rules(wanted))
    app.output.rows(COLUMNS, map(_row, found))


@route.command("show")
@_which
@pass_app
def show(app: App, rule: RuleRef) -> None:
    """Show one route.

    Example: astcredit route show retail 44 carrier-a
    """
    found = at_desks(app, lambda desks: desks.routing.rule(rule))
    app.output.item(COLUMNS, _row(found))


@route.command("disable")
@_which
@pass_app
def disable(app: App, rule: RuleRef) -> None:
    """Pass a route over from the next call on; calls that are up go on.

    Example: astcredit route disable 17
    """
    _enable(app, rule, False)


@route.command("enable")
@_which
@pass_app
def enable(app: App, rule: RuleRef) -> None:
    """Use a route again that was disabled.

    Example: astcredit route enable 17
    """
    _enable(app, rule, True)


def _enable(app: App, ref: RuleRef, enabled: bool) -> None:
    changed, found = at_desks(app, lambda desks: desks.routing.enable_rule(ref, enabled))
    state = f"{'' if changed else 'already '}{'enabled' if enabled else 'disabled'}"
    app.output.done(f"route {found.id} {state}", COLUMNS, _row(found))


@route.command("explain")
@click.argument("call", metavar="[PLAN] NUMBER", nargs=-1, required=True, callback=_call)
@click.option("--client", metavar="NAME", help="Who calls: whose rates and routing plan count.")
@click.option("--account", metavar="NAME", help="With which account: its own come first.")
@click.option(
    "--node", default="default", show_default=True, help="The Asterisk server that will dial."
)
@pass_app
def explain(
    app: App, call: tuple[str | None, str], client: str | None, account: str | None, node: str
) -> None:
    """Show the routes that a call to NUMBER would get now, and why other rules give none.

    PLAN may be left out when --client or --account says whose plan it is. Without these no margin
    is known. Where weights decide, the order is that of one call of many.

    Example: astcredit route explain retail +442071234567 --client acme
    """
    plan, number = call
    if client is not None and account is not None:
        raise click.UsageError("--client and --account: expected one of them")
    if plan is None and client is None and account is None:
        raise click.UsageError("expected PLAN, --client or --account")
    answer = _ask(app, number, node, plan, client, account)
    app.output.rows(EXPLAINED, _explained(answer))
    if all(found.full for found in answer.routes):
        raise RefusedError(answer.reason or f"every route for {answer.number} is full now")


def _ask(
    app: App,
    number: str,
    node: str,
    plan: str | None,
    client: str | None,
    account: str | None,
) -> RouteAnswer:
    from astcredit.app.core import call_policy
    from astcredit.service.route_inquiry import RouteInquiry, RouteQuestion
    from astcredit.storage.administration import SqlAdministration
    from astcredit.storage.catalog import SqlCatalog

    async def work(database: Database) -> RouteAnswer:
        store, policy = SqlAdministration(database), call_policy(app.settings)
        catalog = SqlCatalog(database, inline_rates=app.settings.catalog.inline_rates)
        question = RouteQuestion(number, node, plan, client, account)
        try:
            return await RouteInquiry(store, catalog, policy, app.now_ms).ask(question)
        finally:
            await catalog.close()

    return app.with_database(work)


def _explained(answer: RouteAnswer) -> Iterator[tuple[Cell, ...]]:
    """A row for each route in the order to try, then one for each rule that is passed over."""
    position = 0
    for found in answer.routes:
        rule, rate = found.route.rule, found.route.rate
        position += not found.full
        yield (
            None if found.full else position,
            rule.id,
            shown_prefix(rule.prefix),
            found.route.terminator.name,
            rule.priority,
            rule.weight,
            found.route.dial,
            rate.prefix,
            rate.rate_per_minute,
            found.cost,
            found.margin,
            found.full or None,
        )
    for passed in answer.passed:
        rule = passed.rule
        which = (rule.id, shown_prefix(rule.prefix), passed.terminator, rule.priority, rule.weight)
        yield (None, *which, None, None, None, None, None, passed.why)
