"""The tables as the program believes them to be; a test compares them with `sql/`.

Values come out of these columns as the domain has them: amounts in micros, instants in
milliseconds, on SQLite and on MariaDB/MySQL alike.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.types import TypeEngine

from astcredit.domain.instants import instant_text
from astcredit.domain.money import MICROS, amount_text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant_ms(value: datetime | str) -> int:
    """Milliseconds of what a driver returns for a time: a naive UTC datetime, or its text."""
    instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    elapsed = instant.replace(tzinfo=UTC) - _EPOCH
    return elapsed.days * 86_400_000 + elapsed.seconds * 1000 + elapsed.microseconds // 1000


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
        return None if value is None else Decimal(seconds_text(value))

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else int((Decimal(str(value)) * 1000).to_integral_value())


def seconds_text(milliseconds: int) -> str:
    """Milliseconds, at least 0, as decimal seconds: "2.003"."""
    return f"{milliseconds // 1000}.{milliseconds % 1000:03}"


metadata = MetaData()
_ID = BigInteger().with_variant(Integer(), "sqlite")


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True, autoincrement=True)


def _big_id() -> Column[int]:
    return Column("id", _ID, primary_key=True, autoincrement=True)


astcatalog = Table(
    "astcatalog",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)

astratetable = Table(
    "astratetable",
    metadata,
    _id(),
    Column("name", String(80), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("rates", Integer, nullable=False),
    Column("enabled", SmallInteger, nullable=False),
    Column("date_created", Instant, nullable=False),
)

astrate = Table(
    "astrate",
    metadata,
    _big_id(),
    Column("rate_table_id", Integer, nullable=False),
    Column("prefix", String(20), nullable=False),
    Column("destination", String(120), nullable=False),
    Column("rate_per_minute", Amount, nullable=False),
    Column("connect_fee", Amount, nullable=False),
    Column("first_increment", Integer, nullable=False),
    Column("next_increment", Integer, nullable=False),
    Column("grace_seconds", Integer, nullable=False),
    Column("minimum_charge", Amount, nullable=False),
    Column("effective_from", Instant, nullable=False),
    Column("effective_until", Instant),
)

astclient = Table(
    "astclient",
    metadata,
    _id(),
    Column("name", String(80), nullable=False),
    Column("reseller_id", Integer),
    Column("kind", String(10), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("balance", Amount, nullable=False),
    Column("credit_limit", Amount),
    Column("reserved", Amount, nullable=False),
    Column("active_calls", Integer, nullable=False),
    Column("ledger_seq", BigInteger, nullable=False),
    Column("rate_table_id", Integer),
    Column("email", String(254), nullable=False),
    Column("enabled", SmallInteger, nullable=False),
    Column("date_created", Instant, nullable=False),
)

astaccount = Table(
    "astaccount",
    metadata,
    _id(),
    Column("client_id", Integer, nullable=False),
    Column("name", String(80), nullable=False),
    Column("ident_by", String(10), nullable=False),
    Column("ident", Text, nullable=False),
    Column("rate_table_id", Integer),
    Column("tag", String(80), nullable=False),
    Column("notes", Text, nullable=False),
    Column("enabled", SmallInteger, nullable=False),
    Column("date_created", Instant, nullable=False),
)

astcreditres = Table(
    "astcreditres",
    metadata,
    Column("call_id", String(20), primary_key=True),
    Column("node", String(64), nullable=False),
    Column("uniqueid", String(150), nullable=False),
    Column("leg_uniqueid", String(150)),
    Column("client_id", Integer, nullable=False),
    Column("accountcode", String(80), nullable=False),
    Column("reservedamount", Amount, nullable=False),
    Column("seconds", Integer, nullable=False),
    Column("date_created", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
)

astcdr = Table(
    "astcdr",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("node", String(64), nullable=False),
    Column("uniqueid", String(150), nullable=False),
    Column("linkedid", String(150), nullable=False),
    Column("leg_uniqueid", String(150)),
    Column("channel", String(150), nullable=False),
    Column("client_id", Integer),
    Column("account_id", Integer),
    Column("accountcode", String(80), nullable=False),
    Column("callerid", String(80), nullable=False),
    Column("dialednum", String(80), nullable=False),
    Column("callednum", String(80), nullable=False),
    Column("prefix", String(20), nullable=False),
    Column("destination", String(120), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("rate", Amount),
    Column("connect_fee", Amount),
    Column("first_increment", Integer),
    Column("next_increment", Integer),
    Column("grace_seconds", Integer),
    Column("minimum_charge", Amount),
    Column("trunk", String(150), nullable=False),
    Column("status", String(10), nullable=False),
    Column("denied", String(10), nullable=False),
    Column("reason", String(200), nullable=False),
    Column("dialstatus", String(20), nullable=False),
    Column("hangupcause", Integer),
    Column("date_created", Instant, nullable=False),
    Column("dialed_at", Instant),
    Column("answered_at", Instant),
    Column("ended_at", Instant),
    Column("dialedtime", Seconds),
    Column("answeredtime", Seconds),
    Column("seconds", Integer, nullable=False),
    Column("billsec", Integer),
    Column("price", Amount),
    Column("ourcost", Amount),
    Column("reservedamount", Amount, nullable=False),
    Column("overrun_ms", Integer),
    Column("settled_by", String(16), nullable=False),
    Column("estimated", SmallInteger, nullable=False),
    Column("note", String(200), nullable=False),
)

astledger = Table(
    "astledger",
    metadata,
    _big_id(),
    Column("client_id", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("kind", String(12), nullable=False),
    Column("amount", Amount, nullable=False),
    Column("balance_after", Amount, nullable=False),
    Column("call_id", String(20)),
    Column("reference", String(120), nullable=False),
    Column("actor", String(80), nullable=False),
    Column("note", String(200), nullable=False),
    Column("date_created", Instant, nullable=False),
)

astaudit = Table(
    "astaudit",
    metadata,
    _big_id(),
    Column("date_created", Instant, nullable=False),
    Column("actor", String(80), nullable=False),
    Column("action", String(32), nullable=False),
    Column("object_kind", String(32), nullable=False),
    Column("object_name", String(120), nullable=False),
    Column("state_before", Text),
    Column("state_after", Text),
    Column("note", String(200), nullable=False),
)


def fit(table: Table, column: str, text: str) -> str:
    """`text` cut to what the column holds, and made storable whatever a caller sent."""
    most = table.c[column].type.length  # type: ignore[attr-defined]
    return text[:most].encode("utf-8", "replace").decode()
