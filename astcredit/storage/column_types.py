"""How amounts, instants and seconds are kept in columns, on SQLite and on MariaDB/MySQL alike.

Values come out as the domain has them: amounts in micros, instants and seconds in milliseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from sqlalchemy import Dialect, Integer, Numeric, String, Text, TypeDecorator
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.types import TypeEngine

from astcredit.domain.instants import instant_text
from astcredit.domain.money import MICROS, Micros, amount_text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant_ms(value: datetime | str) -> int:
    """Milliseconds of what a driver returns for a time: a naive UTC datetime, or its text."""
    if isinstance(value, str):
        return _text_ms(value)
    elapsed = value.replace(tzinfo=UTC) - _EPOCH
    return elapsed.days * 86_400_000 + elapsed.seconds * 1000 + elapsed.microseconds // 1000


@lru_cache(maxsize=4096)  # a batch reads each instant of its calls, and many twice
def _text_ms(text: str) -> int:
    return instant_ms(datetime.fromisoformat(text))


def micros(value: int | str | Decimal) -> Micros:
    """Micros of what a driver returns for an amount: micros, or a decimal with six decimals."""
    if isinstance(value, str):
        return int(value.replace(".", ""))
    return int(value * MICROS) if isinstance(value, Decimal) else value


class Amount(TypeDecorator[int]):
    """Micros: DECIMAL(18,6) in MariaDB/MySQL, an integer in SQLite."""

    impl = Numeric(18, 6)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Integer())
        return dialect.type_descriptor(Numeric(18, 6))

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "sqlite":
            return value
        return Decimal(amount_text(value))

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        if value is None or dialect.name == "sqlite":
            return None if value is None else int(value)
        return int(Decimal(value) * MICROS)


class Instant(TypeDecorator[int]):
    """Milliseconds since 1970 UTC: DATETIME(3) in MariaDB/MySQL, text in SQLite."""

    impl = String(23)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(DATETIME(fsp=3))

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        return None if value is None else instant_text(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else instant_ms(value)


class Seconds(TypeDecorator[int]):
    """Milliseconds in the program, decimal seconds in the table."""

    impl = Numeric(12, 3)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(Numeric(12, 3))

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        text = seconds_text(value)
        return text if dialect.name == "sqlite" else Decimal(text)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else int((Decimal(str(value)) * 1000).to_integral_value())


def seconds_text(milliseconds: int) -> str:
    """Milliseconds, at least 0, as decimal seconds: "2.003"."""
    return f"{milliseconds // 1000}.{milliseconds % 1000:03}"
