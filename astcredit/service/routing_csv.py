"""Routing plans as CSV files: reading one, comparing it with what is there, writing one.

A header line names the columns, in any order; `prefix` and `account` must be there. A column that
is missing leaves the setting of a rule that is there as it is; an empty cell means no limit, no
demand, or what a new rule has. All errors of a file are collected before it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from astcredit.domain.dialing import PREPEND_EXPECTED, check_prepend
from astcredit.domain.money import amount_text, parse_price
from astcredit.service.naming import MOST_NAME
from astcredit.service.routing_ports import Place, PlanRule
from astcredit.service.routing_rules import (
    MARGIN_EXPECTED,
    PREFIX_EXPECTED,
    RANGES,
    RuleChange,
    check_margin,
    check_number,
    parse_prefix,
    shown_prefix,
)
from astcredit.service.sheets import Faults, Line, read_sheet, write_sheet

COLUMNS: Final = (
    "prefix",
    "account",
    "priority",
    "weight",
    "capacity",
    "strip",
    "prepend",
    "min_margin",
    "enabled",
)
"""The columns of a routing plan's file, in the order in which `write_plan` writes them."""

REQUIRED_COLUMNS: Final = ("prefix", "account")


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One line of a file: which rule it is about, and what the rule's settings are to be."""

    line: int
    place: Place
    change: RuleChange


@dataclass(frozen=True, slots=True)
class PlanDifference:
    """What a file would make of a plan: rules to add, old and new form of those to change and of
    those to disable because the file does not have them; how many stay as they are."""

    added: Sequence[PlanRule]
    changed: Sequence[tuple[PlanRule, PlanRule]]
    disabled: Sequence[tuple[PlanRule, PlanRule]]
    unchanged: int

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.disabled)


def parse_plan(plan: str, lines: Iterable[str]) -> list[PlanLine]:
    """The lines of a file for a plan. Raises DeckErrors with everything that is wrong in it.

    `lines` is the file, opened with `newline=""` and `errors="surrogateescape"`.
    """
    faults = Faults()
    found: dict[Place, PlanLine] = {}
    for line in read_sheet(lines, COLUMNS, REQUIRED_COLUMNS, faults):
        read = _read_line(plan, line, faults)
        if read is None:
            continue
        first = found.setdefault(read.place, read)
        if first is not read:
            expected = f"each prefix and account once, line {first.line} has them too"
            faults.add(line.number, "prefix", line.cells["prefix"], expected)
    faults.raise_if_any()
    return list(found.values())


def check_accounts(lines: Sequence[PlanLine], terminators: Mapping[str, bool]) -> None:
    """Raise DeckErrors for accounts that are not there, or to which no call can be routed.

    `terminators` has the accounts that exist, with whether they have terminator settings.
    """
    faults = Faults()
    for line in lines:
        account = line.place.account
        if account not in terminators:
            faults.add(line.line, "account", account, "an account that is there")
        elif not terminators[account]:
            faults.add(line.line, "account", account, NO_TERMINATOR)
    faults.raise_if_any()


def difference(
    stored: Collection[PlanRule], lines: Sequence[PlanLine], *, replacing: bool
) -> PlanDifference:
    """What the lines change in a plan that has the rules `stored`.

    `replacing`: the file is the whole plan. Rules that are not in it are disabled, and those in it
    are in force unless it says otherwise, also if an earlier file had disabled them.
    """
    there = {rule.place: rule for rule in stored}
    added: list[PlanRule] = []
    changed: list[tuple[PlanRule, PlanRule]] = []
    for line in lines:
        old = there.pop(line.place, None)
        change = line.change
        if replacing and change.enabled is None:
            change = replace(change, enabled=True)
        new = change.applied_to(old or PlanRule(*line.place))
        if old is None:
            added.append(new)
        elif new != old:
            changed.append((old, new))
    gone = [rule for rule in there.values() if rule.enabled] if replacing else []
    disabled = [(rule, replace(rule, enabled=False)) for rule in gone]
    return PlanDifference(added, changed, disabled, len(stored) - len(changed) - len(disabled))


def write_plan(rules: Iterable[PlanRule]) -> Iterator[str]:
    """The lines of a file that `parse_plan` reads as these same rules."""
    return write_sheet(COLUMNS, map(_cells, rules))


def _cells(rule: PlanRule) -> tuple[str | int, ...]:
    return (
        shown_prefix(rule.prefix),
        rule.account,
        rule.priority,
        rule.weight,
        "" if rule.capacity is None else rule.capacity,
        rule.strip,
        rule.prepend,
        "" if rule.min_margin is None else amount_text(rule.min_margin),
        "true" if rule.enabled else "false",
    )


def _read_line(plan: str, line: Line, faults: Faults) -> PlanLine | None:
    """What a line says; None, and its faults noted, when it says it wrongly."""
    values: dict[str, object] = {}
    sound = True
    for column, cell in line.cells.items():
        try:
            values[column] = _READ[column](cell)
        except ValueError:
            faults.add(line.number, column, cell, _EXPECTED[column])
            sound = False
    if not sound:
        return None
    place = Place(plan, str(values.pop("prefix")), str(values.pop("account")))
    return PlanLine(line.number, place, RuleChange(**values))  # type: ignore[arg-type]


def _account(cell: str) -> str:
    if not 1 <= len(cell) <= MOST_NAME or not cell.isprintable():
        raise ValueError
    return cell


def _whole(field: str) -> Callable[[str], int | None]:
    """How a column of whole numbers is read: an empty cell is what a new rule has."""
    usual: int | None = getattr(_NEW, field)

    def read(cell: str) -> int | None:
        if cell == "":
            return usual
        if not (cell.isascii() and cell.isdigit()):
            raise ValueError
        return check_number(field, int(cell))

    return read


def _margin(cell: str) -> int | None:
    return None if cell == "" else check_margin(parse_price(cell))


def _flag(cell: str) -> bool:
    try:
        return _FLAGS[cell.lower()]
    except KeyError:
        raise ValueError from None


NO_TERMINATOR: Final = "one with terminator settings (astcredit account set --term)"

_NEW: Final = PlanRule("", "", "")

_FLAGS: Final = {
    **dict.fromkeys(("", "true", "yes", "1"), True),
    **dict.fromkeys(("false", "no", "0"), False),
}

# How each column is read, by its name. ValueError means that the cell is not as _EXPECTED says.
_READ: Final[Mapping[str, Callable[[str], object]]] = MappingProxyType(
    {
        "prefix": parse_prefix,
        "account": _account,
        **{field: _whole(field) for field in RANGES},
        "prepend": check_prepend,
        "min_margin": _margin,
        "enabled": _flag,
    }
)
_EXPECTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "prefix": PREFIX_EXPECTED,
        "account": "the name of an account",
        **{
            field: f"a whole number from {least} to {most}"
            for field, (least, most) in RANGES.items()
        },
        "prepend": PREPEND_EXPECTED,
        "min_margin": MARGIN_EXPECTED,
        "enabled": "true or false",
    }
)
