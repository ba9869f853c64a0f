"""What a check of `astcredit audit` is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its name, its statement, and whether it compares amounts of money.

    The statement gives, for each row that is not as it must be, four columns: the kind of object,
    its name, then what is expected and what is found.
    """

    name: str
    sql: str
    amounts: bool = False
