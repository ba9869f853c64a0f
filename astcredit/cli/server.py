"""`astcredit serve`, `agi`, `simulate` and `doctor`: the running server and what talks to it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import click

from astcredit.app.links import ConfiguredLinks, addresses_of, parse_nodes
from astcredit.cli.context import App, Command, pass_app
from astcredit.cli.output import text

LOOPBACK = "127.0.0.1"

MOST_ROUTES = 20
"""As many as dialplan/astcredit.conf tries for one call."""


MOST_WORKERS = 64
"""More than any database can keep busy."""


@click.command()
@click.option(
    "--workers",
    type=click.IntRange(1, MOST_WORKERS),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that share the port and the load; more than one is meant for MariaDB or MySQL.",
)
@pass_app
def serve(app: App, workers: int) -> None:
    """Answer Asterisk: FastAGI, AMI listeners, housekeeping, metrics.

    Runs until SIGTERM or Ctrl-C, then finishes what is under way. Prints one line when calls are
    served; logs go to stderr.

    With --workers, where there are AMI nodes, up to half of the processes listen to them and the
    others answer FastAGI. Each has its own metrics, on the port set and those that follow it.
    SQLite lets one process write at a time: there more workers bring little.

    Example: astcredit --config /etc/astcredit/astcredit.toml serve

    Example: astcredit serve --workers 4
    """
    from astcredit.app import logs

    settings = app.settings
    logs.configure("debug" if app.verbose else settings.log.level, settings.log.format)

    def ready(port: int) -> None:
        click.echo(f"astcredit serves FastAGI on {settings.fastagi.listen.host}:{port}")
        sys.stdout.flush()

    if workers == 1:
        from astcredit.app.server import run

        run(settings, ready)
    else:
        from astcredit.app.workers import run_workers

        run_workers(settings, workers, ready)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("script", type=click.Choice(["authorize", "next-route", "hangup", "balance"]))
@click.argument("arguments", nargs=-1)
@pass_app
def agi(app: App, script: str, arguments: Sequence[str]) -> None:
    """Run one AGI script on stdin and stdout, for AGI() with a program instead of a server.

    A process for each call: FastAGI is a hundred times cheaper. Logs are not written unless -v
    sends them to stderr, which is Asterisk's console.

    Example, in extensions.conf: AGI(astcredit-agi,authorize,${EXTEN})
    """
    context = click.get_current_context()
    context.exit(app.run(_agi(app, script, arguments)))


async def _agi(app: App, script: str, arguments: Sequence[str]) -> int:
    from astcredit.app.clock import now_ms
    from astcredit.app.core import open_core
    from astcredit.app.observers import SilentObserver
    from astcredit.asterisk.classic import run_classic
    from astcredit.service.ids import CallIds

    settings = app.settings
    nodes = parse_nodes(settings.ami.nodes)
    links = ConfiguredLinks(nodes, await addresses_of(nodes))
    async with open_core(settings, links, SilentObserver()) as core:
        return await run_classic(
            script,
            arguments,
            core.controller,
            new_call_id=CallIds(now_ms),
            now_ms=now_ms,
            stdin=sys.stdin.buffer,
            stdout=sys.stdout.buffer,
            node=links.node_of(LOOPBACK),
        )


def _address(_: click.Context, parameter: click.Parameter, value: str) -> str:
    from astcredit.domain.idents import parse_source

    if value and parse_source(value) is None:
        expected = "10.0.0.5, 10.0.0.5:5060, 2001:db8::1 or [2001:db8::1]:5060"
        raise click.BadParameter(f"{value!r}: expected an address as {expected}", param=parameter)
    return value


_CALLER = (
    click.option(
        "--account",
        default="",
        metavar="NAME",
        help="The accountcode that the call brings; then nothing else counts.",
    ),
    click.option("--endpoint", default="", metavar="NAME", help="The PJSIP endpoint that calls."),
    click.option(
        "--ip",
        "address",
        default="",
        callback=_address,
        metavar="ADDRESS[:PORT]",
        help="Where the signalling comes from, as Asterisk knows it of a PJSIP channel.",
    ),
    click.option(
        "--source",
        default="",
        callback=_address,
        metavar="ADDRESS[:PORT]",
        help="The same, as a dialplan tells it in the script's fourth argument.",
    ),
    click.option("--ani", "callerid", default="", metavar="NUMBER", help="The caller's number."),
    click.option(
        "--node",
        default="simulate",
        show_default=True,
        help="The Asterisk server on which the call seems to be.",
    ),
)
"""What an account can be recognised by."""


def _caller(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_CALLER):
        command = option(command)
    return command


@click.command(cls=Command)
@click.argument("number")
@_caller
@click.option(
    "--talk",
    type=click.IntRange(0, 86_400),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Seconds of talk that are reported (no time passes); 0: nobody answers.",
)
@click.option(
    "--fail",
    type=click.IntRange(0, MOST_ROUTES),
    default=0,
    metavar="N",
    help="The first N routes cannot be reached: the next one is asked for, as a dialplan does.",
)
@click.option("--books", is_flag=True, help="Show the rows in the database after each step too.")
@pass_app
def simulate(
    app: App,
    number: str,
    account: str,
    endpoint: str,
    address: str,
    source: str,
    callerid: str,
    node: str,
    talk: int,
    fail: int,
    books: bool,
) -> None:
    """Play Asterisk's side of a call against the running server: authorize, hangup, balance.

    The call is real to the books: it is reserved, charged and recorded. Without --ip or --endpoint
    it does not come over PJSIP.
    Exit status 1 when the call is refused, or no route is left for it.

    Example: astcredit simulate 00442071234567 --account demo --talk 65

    Example: astcredit simulate 7700442071234567 --ip 192.0.2.10:5060 --fail 1
    """
    from astcredit.app.simulation import SimulatedCall
    from astcredit.cli.simulation import play

    if app.format == "csv":
        raise click.UsageError("simulate prints a table or JSON, not CSV")
    call = SimulatedCall(number, account, endpoint, address, source, callerid, node, talk, fail)
    status = app.run(play(app, call, books))
    click.get_current_context().exit(status)


@click.command(cls=Command)
@click.option(
    "--settings", "only_settings", is_flag=True, help="Show each setting in force instead."
)
@pass_app
def doctor(app: App, only_settings: bool) -> None:
    """Check the settings, the database, every AMI link and the running server.

    Exit status 1 when a check finds an error; warnings do not count. With --settings nothing is
    checked: each value in force is shown, secrets hidden, and where it came from.

    Example: astcredit doctor --settings
    """
    from astcredit.app.doctor import Finding, Verdict, examine
    from astcredit.app.settings import describe

    if only_settings:
        shown = [text("setting"), text("value"), text("from")]
        app.output.rows(shown, [(s.name, s.value, s.origin) for s in describe(app.settings)])
        return

    async def collect() -> list[Finding]:
        return [finding async for finding in examine(app.settings)]

    findings = app.run(collect())
    columns = [text("check"), text("verdict"), text("detail")]
    app.output.rows(columns, [(f.check, f.verdict.value, f.detail) for f in findings])
    if any(finding.verdict is Verdict.ERROR for finding in findings):
        click.get_current_context().exit(1)
