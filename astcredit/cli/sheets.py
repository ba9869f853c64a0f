"""CSV files of settings on the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import click

from astcredit.domain.deck import DeckErrors
from astcredit.service.errors import RefusedError

STANDARD_INPUT: Final = "-"

FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)
"""A file that is read, or - for standard input."""


@contextmanager
def sheet_lines(file: str) -> Iterator[Iterable[str]]:
    """The lines of a file, as the readers of CSV files want them.

    Whatever the readers find wrong in the block is printed, a line for each fault; then
    RefusedError is raised.
    """
    # Standard input is not closed: it is not ours.
    standard = file == STANDARD_INPUT
    with (
        errors_printed(file),
        open(
            sys.stdin.fileno() if standard else file,
            encoding="utf-8",
            errors="surrogateescape",
            newline="",
            closefd=not standard,
        ) as lines,
    ):
        yield lines


@contextmanager
def errors_printed(file: str) -> Iterator[None]:
    """Print what is found wrong in the file within the block, and refuse it."""
    try:
        yield
    except DeckErrors as errors:
        for error in errors.errors:
            click.echo(str(error), err=True)
        count = f"{len(errors.errors)}{' or more' if errors.more else ''}"
        plural = "" if count == "1" else "s"
        name = "standard input" if file == STANDARD_INPUT else file
        raise RefusedError(f"{name}: {count} error{plural}, nothing was imported") from None


def source_name(file: str) -> str:
    """What astaudit calls a file."""
    return "standard input" if file == STANDARD_INPUT else os.path.basename(file)
