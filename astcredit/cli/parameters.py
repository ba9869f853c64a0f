"""Values on the command line that are more than text: amounts and instants."""

from __future__ import annotations

from collections.abc import Callable

import click

from astcredit.domain.instants import parse_instant
from astcredit.domain.money import parse_amount


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

# Without this, an amount below zero would be taken for an option.
NEGATIVE_AMOUNTS = {"ignore_unknown_options": True}
