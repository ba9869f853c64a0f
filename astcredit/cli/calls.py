"""`astcredit calls`: the calls that are up, and ending one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.output import Cell, amount, instant, number, text
from astcredit.service.errors import RefusedError

if TYPE_CHECKING:
    from astcredit.asterisk.ami import AmiNode
    from astcredit.domain.calls import ChannelEnded, LegAnswered
    from astcredit.service.reports import ActiveCall
    from astcredit.storage.database import Database

# A person waits at the terminal; Asterisk on the same network answers in milliseconds.
CONNECT_SECONDS = 5.0

COLUMNS = (
    text("id"),
    text("node"),
    text("client"),
    text("account"),
    text("callerid"),
    text("number"),
    text("state"),
    instant("date_created"),
    instant("answered_at"),
    number("seconds"),
    number("seconds_allowed"),
    amount("reserved"),
    amount("cost"),
    text("currency"),
    text("reseller"),
    text("routing_plan"),
    text("route_prefix"),
    text("terminator"),
    text("ani"),
    text("source"),
)


@click.group(cls=Group)
def calls() -> None:
    """The calls that are up.

    Example: astcredit calls list
    """


@calls.command("list")
@click.option("--reseller", metavar="NAME", help="Calls of this reseller's clients.")
@click.option("--client", metavar="NAME", help="Calls of this client.")
@click.option("--account", metavar="NAME", help="Calls that this account makes.")
@click.option(
    "--route",
    metavar="PLAN[/PREFIX]",
    help="Calls on a route of this routing plan; of this prefix in it ('*': that for all numbers).",
)
@click.option("--terminator", metavar="ACCOUNT", help="Calls that are handed to this account.")
@pass_app
def list_calls(
    app: App,
    reseller: str | None,
    client: str | None,
    account: str | None,
    route: str | None,
    terminator: str | None,
) -> None:
    """List the calls that are up or being set up, with what each has cost so far.

    seconds: since the answer. cost: the price if the call ended now. Where several options are
    given, all must hold.

    Example: astcredit calls list --client anna --route retail/44
    """

    async def read(database: Database) -> Sequence[ActiveCall]:
        from astcredit.service.call_filters import ActiveFilter, require_named, route_of
        from astcredit.storage.administration import SqlAdministration
        from astcredit.storage.reports import SqlReports

        store = SqlAdministration(database)
        plan, prefix = (None, None) if route is None else await route_of(store, route)
        wanted = ActiveFilter(reseller, client, account, plan, prefix, terminator)
        await require_named(store, wanted.named)
        return await SqlReports(database).active_calls(wanted)

    now_ms = app.now_ms()
    found = app.with_database(read)
    app.output.rows(COLUMNS, [_row(call, now_ms) for call in found])


@calls.command("hangup")
@click.argument("call_id", metavar="ID")
@pass_app
def hangup(app: App, call_id: str) -> None:
    """End a call that is up, by the AMI link to its Asterisk server.

    The running server hears the end and settles the call as any other.

    Example: astcredit calls hangup 1HFNZ6Q1R5ABCDEFGHJK
    """
    from astcredit.app.links import parse_nodes
    from astcredit.service.reports import end_call
    from astcredit.storage.administration import SqlAdministration
    from astcredit.storage.reports import SqlReports

    hangups = OneShotHangups(parse_nodes(app.settings.ami.nodes))

    async def end(database: Database) -> ActiveCall:
        reports, store = SqlReports(database), SqlAdministration(database)
        return await end_call(call_id, reports, hangups, store, app.actor, app.now_ms())

    call = app.with_database(end)
    app.output.done(
        f"{call.node} was told to end call {call.id}, {call.client} to {call.number};"
        " the server that listens there settles it",
        COLUMNS,
        _row(call, app.now_ms()),
    )


class OneShotHangups:
    """A connection to an Asterisk server for one order. Implements `service.reports.Hangups`."""

    def __init__(self, nodes: Sequence[AmiNode]) -> None:
        self._nodes = {node.name: node for node in nodes}

    def check(self, node: str) -> None:
        """Raise RefusedError unless the settings have an AMI link to the node."""
        if node not in self._nodes:
            known = ", ".join(sorted(self._nodes)) or "none"
            raise RefusedError(
                f"there is no AMI link to node {node!r}, on which the call is"
                f" (setting ami.nodes: {known})"
            )

    async def hangup(self, node: str, uniqueid: str) -> bool:
        """End a channel; False if it is not there. Raises RefusedError, AmiError."""
        from astcredit.app.clock import now_ms
        from astcredit.asterisk.ami import AmiLink, LinkPhase

        known = asyncio.Event()

        def changed(link: AmiLink) -> None:
            if link.state.phase is not LinkPhase.CONNECTING:
                known.set()

        link = AmiLink(self._nodes[node], _NoEvents(), now_ms, on_change=changed)
        await link.start()
        try:
            await _happens(known, CONNECT_SECONDS)
            if not link.up:
                reason = link.state.reason or "it does not answer"
                raise RefusedError(f"the AMI link to {node} cannot be made: {reason}")
            return await link.hangup(uniqueid)
        finally:
            await link.stop()


class _NoEvents:
    """What happens meanwhile is the server's affair."""

    def leg_answered(self, event: LegAnswered) -> None: ...

    def channel_ended(self, event: ChannelEnded) -> None: ...


async def _happens(event: asyncio.Event, seconds: float) -> None:
    """Wait for something, but no longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _row(call: ActiveCall, now_ms: int) -> Sequence[Cell]:
    return (
        call.id,
        call.node,
        call.client,
        call.account,
        call.callerid,
        call.number,
        call.state,
        call.date_created,
        call.answered_at,
        call.seconds_up(now_ms),
        call.seconds_allowed,
        call.reserved,
        call.cost(now_ms),
        call.currency,
        call.reseller,
        call.routing_plan,
        call.route_prefix,
        call.terminator,
        call.ani,
        call.source,
    )
