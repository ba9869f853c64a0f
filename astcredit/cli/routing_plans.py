"""`astcredit routing-plan`: which terminators take which calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO, TypeVar

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.desks import Desks, at_desks
from astcredit.cli.output import Cell, Column, flag, number, text
from astcredit.cli.sheets import FILE, errors_printed, sheet_lines, source_name
from astcredit.domain.routing_plan import RouteOrder
from astcredit.service.naming import shown_name

if TYPE_CHECKING:
    from astcredit.service.routing_desk import PlanImport
    from astcredit.service.routing_ports import PlanHead

F = TypeVar("F", bound=Callable[..., object])

COLUMNS: tuple[Column, ...] = (
    number("id"),
    text("name"),
    text("order"),
    number("rules"),
    number("clients"),
    number("accounts"),
    number("version"),
    flag("enabled"),
)

IMPORTED: tuple[Column, ...] = (
    text("routing_plan"),
    number("added"),
    number("changed"),
    number("disabled"),
    number("unchanged"),
    flag("dry_run"),
)


def _row(plan: PlanHead) -> tuple[Cell, ...]:
    return (
        plan.id,
        plan.name,
        plan.order,
        plan.rules,
        plan.clients,
        plan.accounts,
        plan.version,
        plan.enabled,
    )


def _order(command: F) -> F:
    return click.option(
        "--order",
        type=click.Choice([order.value for order in RouteOrder]),
        help="In which order the rules of one prefix are tried: by priority and weight, or what "
        "costs least first.  [add: priority]",
    )(command)


@click.group(cls=Group)
def routing_plan() -> None:
    """Routing plans: which terminators take which calls. Their rules: see astcredit route.

    Example: astcredit routing-plan add retail --order least-cost
    """


@routing_plan.command("add")
@click.argument("name")
@_order
@pass_app
def add(app: App, name: str, order: str | None) -> None:
    """Add a routing plan without rules.

    Example: astcredit routing-plan add retail
    """
    chosen = RouteOrder(order or RouteOrder.PRIORITY)
    added = at_desks(app, lambda desks: desks.routing.add_plan(name, chosen))
    app.output.done(f"routing plan {shown_name(name)} added", COLUMNS, _row(added))


@routing_plan.command("set")
@click.argument("name")
@_order
@pass_app
def set_(app: App, name: str, order: str | None) -> None:
    """Change settings of a routing plan; what is not named stays.

    Example: astcredit routing-plan set retail --order least-cost
    """
    chosen = None if order is None else RouteOrder(order)
    found = at_desks(app, lambda desks: desks.routing.set_plan(name, chosen))
    app.output.item(COLUMNS, _row(found))


@routing_plan.command("list")
@pass_app
def list_(app: App) -> None:
    """List all routing plans, with the clients and accounts that have chosen them.

    Example: astcredit routing-plan list
    """
    found = at_desks(app, lambda desks: desks.routing.plans())
    app.output.rows(COLUMNS, map(_row, found))


@routing_plan.command("show")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show one routing plan; its rules are shown by astcredit route list.

    Example: astcredit routing-plan show retail
    """
    found = at_desks(app, lambda desks: desks.routing.plan(name))
    app.output.item(COLUMNS, _row(found))


@routing_plan.command("disable")
@click.argument("name")
@pass_app
def disable(app: App, name: str) -> None:
    """Route nothing by a plan: calls that need it are refused (NOROUTE).

    Example: astcredit routing-plan disable retail
    """
    _enable(app, name, False)


@routing_plan.command("enable")
@click.argument("name")
@pass_app
def enable(app: App, name: str) -> None:
    """Route by a plan again.

    Example: astcredit routing-plan enable retail
    """
    _enable(app, name, True)


@routing_plan.command("import")
@click.argument("plan")
@click.argument("file", type=FILE)
@click.option(
    "--replace",
    is_flag=True,
    help="The file is the whole plan: rules that are not in it are disabled, those in it are "
    "enabled unless it says otherwise.",
)
@click.option("--dry-run", is_flag=True, help="Check the file and say what it would change.")
@pass_app
def import_(app: App, plan: str, file: str, replace: bool, dry_run: bool) -> None:
    """Import rules of a plan from a CSV FILE (- for standard input), all of it or nothing.

    The first line names the columns: prefix and account, and if wanted priority, weight, capacity,
    strip, prepend, min_margin, enabled. A rule that is there already, with the same prefix and
    account, gets the settings of the file; settings without a column stay as they are.

    Example: astcredit routing-plan import retail routes.csv --replace --dry-run
    """
    from astcredit.service.routing_csv import parse_plan

    with sheet_lines(file) as lines:
        rules = parse_plan(plan, lines)
    source = source_name(file)
    with errors_printed(file):
        done = at_desks(
            app,
            lambda desks: desks.routing.import_rules(
                plan, rules, replacing=replace, dry_run=dry_run, source=source
            ),
        )
    row = (done.plan, done.added, done.changed, done.disabled, done.unchanged, done.dry_run)
    app.output.done(_summary(done), IMPORTED, row)


# It prints a file of rules, which is CSV whatever --format says: so it has none of its own.
@routing_plan.command("export", cls=click.Command)
@click.argument("plan")
@click.argument("file", type=click.File("w", encoding="utf-8", atomic=True), default="-")
@pass_app
def export(app: App, plan: str, file: TextIO) -> None:
    """Write the rules of a plan to FILE, as CSV that import reads.

    Example: astcredit routing-plan export retail routes.csv
    """
    from astcredit.service.routing_csv import write_plan
    from astcredit.service.routing_ports import RuleFilter

    found = at_desks(app, lambda desks: desks.routing.rules(RuleFilter(plan)))
    file.writelines(write_plan(found))


def _summary(done: PlanImport) -> str:
    name = f"routing plan {shown_name(done.plan)}"
    if done.does_nothing:
        return f"{name}: nothing to change, all is as in the file"
    counts = (
        f"{done.added} added, {done.changed} changed, {done.disabled} disabled,"
        f" {done.unchanged} left as they are"
    )
    return (
        f"{name}, dry run, nothing was changed: {counts}" if done.dry_run else f"{name}: {counts}"
    )


def _enable(app: App, name: str, enabled: bool) -> None:
    async def work(desks: Desks) -> tuple[bool, PlanHead]:
        changed = await desks.routing.enable_plan(name, enabled)
        return changed, await desks.routing.plan(name)

    changed, found = at_desks(app, work)
    state = f"{'' if changed else 'already '}{'enabled' if enabled else 'disabled'}"
    app.output.done(f"routing plan {shown_name(name)} {state}", COLUMNS, _row(found))
