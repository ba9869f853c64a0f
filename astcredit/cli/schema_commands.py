"""`astcredit init`: create or upgrade the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from astcredit.cli.context import App, pass_app

if TYPE_CHECKING:
    from astcredit.storage.database import Database


@click.command()
@click.option("--demo", is_flag=True, help="Add a few clients and rates to try the program with.")
@pass_app
def init(app: App, demo: bool) -> None:
    """Create the tables and views, or bring them to this version.

    Example: astcredit init --demo
    """

    async def run() -> None:
        from astcredit.storage.schema import upgrade

        async with app.database(schema=False) as database:
            done = await upgrade(database)
            state = f"ready, ran {', '.join(done)}" if done else "up to date"
            app.output.line(f"{database.shown_url}: {state}")
            if demo:
                await _demo(app, database)

    app.run(run())


async def _demo(app: App, database: Database) -> None:
    from astcredit.cli.desks import desks_of
    from astcredit.service.demo import load_demo

    desks = desks_of(app, database)
    added = await load_demo(desks.administration, desks.accounts, desks.money, desks.rates)
    for line in added or ["the demo set was there already"]:
        app.output.line(f"demo: {line}")
