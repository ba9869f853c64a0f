"""`astcredit serve`, `agi`, `simulate` and `doctor`: the running server and what talks to it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from astcredit.app.links import ConfiguredLinks, addresses_of, parse_nodes
from astcredit.cli.context import App, Command, pass_app
from astcredit.cli.output import text

LOOPBACK = "127.0.0.1"


@click.command()
@pass_app
def serve(app: App) -> None:
    """Answer Asterisk: FastAGI, AMI listeners, housekeeping, metrics.

    Runs until SIGTERM or Ctrl-C, then finishes what is under way. Prints one line when calls are
    served; logs go to stderr.

    Example: astcredit --config /etc/astcredit/astcredit.toml serve
    """
    from astcredit.app import logs
    from astcredit.app.server import run

    settings = app.settings
    logs.configure("debug" if app.verbose else settings.log.level, settings.log.format)

    def ready(port: int) -> None:
        click.echo(f"astcredit serves FastAGI on {settings.fastagi.listen.host}:{port}")
        sys.stdout.flush()

    run(settings, ready)


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


@click.command(cls=Command)
@click.argument("number")
@click.option("--account", required=True, help="The accountcode that the call brings.")
@click.option(
    "--talk",
    type=click.IntRange(0, 86_400),
    default=60,
    show_default=True,
    help="Seconds of talk that are reported (no time passes); 0: nobody answers.",
)
@click.option("--books", is_flag=True, help="Show the rows in the database after each step too.")
@pass_app
def simulate(app: App, number: str, account: str, talk: int, books: bool) -> None:
    """Play Asterisk's side of a call against the running server: authorize, hangup, balance.

    The call is real to the books: it is reserved, charged and recorded, on the node "simulate".
    Exit status 1 when the call is refused.

    Example: astcredit simulate 00442071234567 --account demo --talk 65
    """
    from astcredit.cli.simulation import play

    if app.format == "csv":
        raise click.UsageError("simulate prints a table or JSON, not CSV")
    click.get_current_context().exit(app.run(play(app, number, account, talk, books)))


@click.command(cls=Command)
@pass_app
def doctor(app: App) -> None:
    """Check the settings, the database, every AMI link and the running server.

    Exit status 1 when a check finds an error; warnings do not count.

    Example: astcredit doctor
    """
    from astcredit.app.doctor import Finding, Verdict, examine

    async def collect() -> list[Finding]:
        return [finding async for finding in examine(app.settings)]

    findings = app.run(collect())
    columns = [text("check"), text("verdict"), text("detail")]
    app.output.rows(columns, [(f.check, f.verdict.value, f.detail) for f in findings])
    if any(finding.verdict is Verdict.ERROR for finding in findings):
        click.get_current_context().exit(1)
