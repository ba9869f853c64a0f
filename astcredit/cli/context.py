"""What every command has at hand: settings, database, output, and who is asking.

    @click.command()
    @pass_app
    def command(app: App) -> None:
        rows = app.with_database(lambda database: read(database))
        app.output.rows(COLUMNS, rows)

A command says no by raising an error of `astcredit.service.errors`: the text becomes one line on
stderr and the exit status 1.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from astcredit.cli.output import FORMATS, Output, visible
from astcredit.service.errors import RefusedError

if TYPE_CHECKING:  # what a command does not need is not loaded: an AGI call is a process
    from astcredit.app.settings import Settings
    from astcredit.storage.database import Database

T = TypeVar("T")

MOST_ACTOR = 80
"""Characters: what the columns named actor hold."""


class App:
    """One run of the command line."""

    def __init__(
        self,
        config: Path | None = None,
        database_url: str | None = None,
        format: str = "table",
        verbose: bool = False,
    ) -> None:
        self.config = config
        self.database_url = database_url
        self.format = format
        self.verbose = verbose

    @cached_property
    def settings(self) -> Settings:
        """The settings in force. Raises SettingsError."""
        from astcredit.app.settings import load

        overrides = {} if self.database_url is None else {"database.url": self.database_url}
        return load(self.config, os.environ, overrides)

    @property
    def output(self) -> Output:
        """Where the result is printed, in the format that was asked for."""
        return Output(self.format)

    @cached_property
    def actor(self) -> str:
        """Who is asking, as the books keep it: user@host. With sudo, who ran sudo."""
        return visible(f"{_user()}@{socket.gethostname()}")[:MOST_ACTOR]

    def now_ms(self) -> int:
        """The clock: milliseconds since 1970 UTC."""
        from astcredit.app.clock import now_ms

        return now_ms()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return asyncio.run(work)

    @asynccontextmanager
    async def database(self, *, schema: bool = True) -> AsyncIterator[Database]:
        """The database, open for the block.

        Unless `schema` is false it has all tables; raises RefusedError that names the remedy if
        not, StorageError when it does not answer.
        """
        from astcredit.storage.database import open_database

        database = open_database(self.settings.database.url)
        try:
            if schema:
                await require_schema(database)
            yield database
        finally:
            await database.close()

    def with_database(self, work: Callable[[Database], Awaitable[T]]) -> T:
        """Run `work` on the open database; its result."""

        async def run() -> T:
            async with self.database() as database:
                return await work(database)

        return self.run(run())


async def require_schema(database: Database) -> None:
    """Raise RefusedError unless the database is there with all tables of this version."""
    from astcredit.storage.schema import missing

    remedy = 'run "astcredit init"'
    path = database.engine.url.database
    # SQLite would make an empty file where none is, wherever a command was typed by mistake.
    if database.is_sqlite and path and path != ":memory:" and not os.path.exists(path):  # noqa: ASYNC240
        raise RefusedError(f"there is no database {path}: {remedy}, or name another (--database)")
    async with database.reading() as connection:  # a dead server is not a missing table
        await connection.exec_driver_sql("SELECT 1")
    if await missing(database):
        raise RefusedError(f"{database.shown_url} lacks tables of this version: {remedy}")


def _user() -> str:
    """The login name of who runs this process, or of who ran sudo."""
    import pwd

    if name := os.environ.get("SUDO_USER"):
        return name
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


pass_app = click.make_pass_decorator(App)
"""Decorator: the command gets the `App` as its first argument."""


def _use_format(context: click.Context, _: click.Parameter, value: str | None) -> None:
    app = context.find_object(App)
    if app is not None and value is not None:
        app.format = value


class Command(click.Command):
    """A command that takes --format too, for who did not write it before the command."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        option = click.Option(
            ["--format"],
            type=click.Choice(FORMATS),
            expose_value=False,
            callback=_use_format,
            help="As astcredit --format.",
        )
        self.params.append(option)


class Group(click.Group):
    """A group of `Command`s."""

    command_class = Command
