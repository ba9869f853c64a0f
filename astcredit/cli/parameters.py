"""Values on the command line that are more than text: amounts, instants and capacities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from astcredit.domain.instants import parse_instant
from astcredit.domain.money import parse_amount, parse_price
from astcredit.service.catalog_rules import KEEP, Capacity, Limit, parse_capacity

F = TypeVar("F", bound=Callable[..., object])


class Parsed(click.ParamType[int]):
    """An integer that a function of the domain reads from text; its ValueError is wrong usage."""

    def __init__(self, name: str, parse: Callable[[str], int]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


AMOUNT = Parsed("amount", parse_amount)
"""A signed amount of money, in micros."""

WHEN = Parsed("when", parse_instant)
"""A date or a date and time (UTC when it has no offset), in milliseconds."""


def capacity_option(name: str, help: str) -> Callable[[F], F]:
    """An option that is a `Capacity`: KEEP where it is not given, '' for no limit."""
    return click.option(name, metavar="CALLS", callback=_capacity, help=f"{help} '' for no limit.")


def _capacity(_: click.Context, parameter: click.Parameter, value: str | None) -> Capacity:
    if value is None:
        return KEEP
    try:
        return parse_capacity(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None


def limit_option(*names: str, help: str) -> Callable[[F], F]:
    """An option that is a `Limit`: KEEP where it is not given, None for ''."""
    return click.option(*names, metavar="AMOUNT", callback=_limit, help=help)


def quota_options(ending: str = "-quota") -> Sequence[Callable[[F], F]]:
    """The options for what a client may spend and when it is told, in the order of --help.

    `ending`: of the names of the first two, --monthly and --daily.
    """
    return (
        limit_option(
            f"--monthly{ending}",
            "monthly_quota",
            help="Most that it may spend in a calendar month, open calls included; 0: nothing. "
            "'' for no quota.",
        ),
        limit_option(f"--daily{ending}", "daily_quota", help="The same for a day."),
        click.option(
            "--timezone",
            metavar="ZONE",
            help="Where its months and days begin, as Europe/Berlin.  [add: UTC]",
        ),
        limit_option(
            "--low-balance",
            help="A prepaid client is told when its balance falls below this. '' for never.",
        ),
    )


def _limit(_: click.Context, parameter: click.Parameter, value: str | None) -> Limit:
    if value is None:
        return KEEP
    if value == "":
        return None
    try:
        return parse_price(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None


# Without this, an amount below zero would be taken for an option.
NEGATIVE_AMOUNTS = {"ignore_unknown_options": True}
