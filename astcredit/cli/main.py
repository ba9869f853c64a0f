"""The command `astcredit`: global options, and the table of all commands.

Commands are loaded when they are called. `astcredit agi` is started for every call, so this
module and what it imports stay small.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click

from astcredit import __version__
from astcredit.cli.context import App
from astcredit.cli.output import FORMATS, visible
from astcredit.service.errors import AstcreditError, CommitUnknown, StorageError

COMMANDS = {
    "init": "astcredit.cli.schema_commands:init",
    "serve": "astcredit.cli.server:serve",
    "agi": "astcredit.cli.server:agi",
    "reseller": "astcredit.cli.resellers:reseller",
    "client": "astcredit.cli.clients:client",
    "account": "astcredit.cli.accounts:account",
    "rate-table": "astcredit.cli.rate_tables:rate_table",
    "rates": "astcredit.cli.rates:rates",
    "routing-plan": "astcredit.cli.routing_plans:routing_plan",
    "route": "astcredit.cli.routes:route",
    "block": "astcredit.cli.blocks:block",
    "capacity": "astcredit.cli.capacity:capacity",
    "quota": "astcredit.cli.quotas:quota",
    "topup": "astcredit.cli.money:topup",
    "adjust": "astcredit.cli.money:adjust",
    "balance": "astcredit.cli.money:balance",
    "calls": "astcredit.cli.calls:calls",
    "cdr": "astcredit.cli.cdr:cdr",
    "simulate": "astcredit.cli.server:simulate",
    "template": "astcredit.cli.templates:template",
    "outbox": "astcredit.cli.outbox:outbox",
    "history": "astcredit.cli.history:history",
    "audit": "astcredit.cli.audit_command:audit",
    "reconcile": "astcredit.cli.reconcile:reconcile",
    "doctor": "astcredit.cli.server:doctor",
}
"""Where each command is, as module:attribute, in the order in which --help lists them."""

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE: whoever read our output has gone

EPILOG = """\
Example: astcredit --format json client list

\b
Completion by the Tab key, one line for the shell's start-up file:
  bash  eval "$(_ASTCREDIT_COMPLETE=bash_source astcredit)"
  zsh   eval "$(_ASTCREDIT_COMPLETE=zsh_source astcredit)"
  fish  _ASTCREDIT_COMPLETE=fish_source astcredit | source
"""


class Main(click.Group):
    """The group of all commands. Errors of ours become one line on stderr and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError as error:
            _discard_output()
            raise click.exceptions.Exit(BROKEN_PIPE) from error
        except Exception as error:
            if ctx.params.get("verbose"):
                traceback.print_exc()
            raise click.ClickException(_one_line(error)) from error

    def __call__(
        self, arguments: Sequence[str] | None = None, prog_name: str | None = None
    ) -> NoReturn:
        """Run the command line and exit."""
        sys.exit(self._status(arguments, prog_name))

    def _status(self, arguments: Sequence[str] | None, prog_name: str | None) -> int:
        try:
            status: object = self.main(arguments, prog_name, standalone_mode=False)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except click.Abort:
            return INTERRUPTED
        except BrokenPipeError:
            _discard_output()
            return BROKEN_PIPE
        except OSError as error:
            _discard_output()
            click.ClickException(_one_line(error)).show()
            return FAILED
        # With standalone_mode off, ctx.exit(1) comes back as 1, and --help as 0.
        return status if isinstance(status, int) else 0


def _discard_output() -> None:
    """Let what is still to be flushed when Python ends go nowhere, without a complaint."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: Exception) -> str:
    """What an error tells the user. What is no error of ours is named as a fault of the program."""
    text = visible(" ".join(str(error).split()))
    if isinstance(error, CommitUnknown):
        return f"it is not known whether this was done, look before you repeat it: {text}"
    if isinstance(error, StorageError):
        return f"database: {text}"
    if isinstance(error, AstcreditError | OSError):
        return text
    return f"internal error, -v shows where: {type(error).__name__}: {text}"


@click.group(
    cls=Main,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings file (TOML); else ASTCREDIT_CONFIG, ./astcredit.toml, "
    "/etc/astcredit/astcredit.toml.",
)
@click.option(
    "--database",
    metavar="URL",
    help="sqlite:///PATH or mysql://USER:PASSWORD@HOST[:PORT]/NAME; else ASTCREDIT_DATABASE_URL.",
)
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="How results are printed.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log to stderr; tracebacks of errors.")
@click.version_option(__version__, prog_name="astcredit")
@click.pass_context
def main(
    context: click.Context, config: Path | None, database: str | None, format: str, verbose: bool
) -> None:
    """Real-time prepaid credit control for Asterisk.

    Exit status: 0 done, 1 refused or failed (one line on stderr says why), 2 wrong usage.
    """
    context.obj = App(config, database, format, verbose)
    # What went wrong is told once, by the command; the log is for -v and for the server.
    logging.getLogger().addHandler(logging.NullHandler())
    if verbose:
        from astcredit.app.logs import configure

        configure("debug", "text")


def agi_main() -> NoReturn:
    """The command `astcredit-agi`, for AGI(astcredit-agi,SCRIPT,…): `astcredit agi SCRIPT …`."""
    main(["agi", *sys.argv[1:]], prog_name="astcredit-agi")
