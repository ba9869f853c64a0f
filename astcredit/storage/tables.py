"""The tables as the program believes them to be; a test compares them with `sql/`.

Values come out of these columns as the domain has them: amounts in micros, instants in
milliseconds, on SQLite and on MariaDB/MySQL alike.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    MetaData,
    ScalarSelect,
    SmallInteger,
    String,
    Table,
    Text,
    select,
)

from astcredit.storage.column_types import Amount, Instant, Seconds

LIST_SEPARATOR = ";"
"""Between the members of a column that holds a list: idents, gateways, DIDs."""

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
    Column("traced", BigInteger, nullable=False, default=0),
)

astreseller = Table(
    "astreseller",
    metadata,
    _id(),
    Column("name", String(80), nullable=False),
    Column("orig_capacity", Integer),
    Column("term_capacity", Integer),
    Column("enabled", SmallInteger, nullable=False, default=1),
    Column("date_created", Instant, nullable=False),
)

astroutingplan = Table(
    "astroutingplan",
    metadata,
    _id(),
    Column("name", String(80), nullable=False),
    Column("route_order", String(12), nullable=False, default="priority"),
    Column("version", BigInteger, nullable=False, default=1),
    Column("enabled", SmallInteger, nullable=False, default=1),
    Column("date_created", Instant, nullable=False),
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
    Column("routing_plan_id", Integer),
    Column("orig_capacity", Integer),
    Column("term_capacity", Integer),
    Column("version", BigInteger, nullable=False, default=0),
    Column("monthly_quota", Amount),
    Column("daily_quota", Amount),
    Column("timezone", String(64), nullable=False, default="UTC"),
    Column("low_balance", Amount),
    Column("low_balance_told", SmallInteger, nullable=False, default=0),
    Column("quota_counted", SmallInteger, nullable=False, default=0),
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
    Column("tech_prefix", String(20), nullable=False, default=""),
    Column("gateways", String(400), nullable=False, default=""),
    Column("routing_plan_id", Integer),
    Column("src_policy", String(10), nullable=False, default="allow-any"),
    Column("dids", Text),
    Column("orig_enabled", SmallInteger, nullable=False, default=1),
    Column("orig_capacity", Integer),
    Column("terminates", SmallInteger, nullable=False, default=0),
    Column("term_enabled", SmallInteger, nullable=False, default=0),
    Column("term_rate_table_id", Integer),
    Column("term_tag", String(80), nullable=False, default=""),
    Column("term_capacity", Integer),
    Column("protocol", String(8), nullable=False, default="PJSIP"),
    Column("host", String(255), nullable=False, default=""),
    Column("port", Integer),
    Column("proxy", String(80), nullable=False, default=""),
    Column("routing_ip", String(45), nullable=False, default=""),
    Column("version", BigInteger, nullable=False, default=0),
)

astroute = Table(
    "astroute",
    metadata,
    _id(),
    Column("routing_plan_id", Integer, nullable=False),
    Column("prefix", String(20), nullable=False),
    Column("account_id", Integer, nullable=False),
    Column("priority", Integer, nullable=False, default=1),
    Column("weight", Integer, nullable=False, default=1),
    Column("capacity", Integer),
    Column("strip", Integer, nullable=False, default=0),
    Column("prepend", String(20), nullable=False, default=""),
    Column("min_margin", Amount),
    Column("enabled", SmallInteger, nullable=False, default=1),
    Column("date_created", Instant, nullable=False),
)

astblock = Table(
    "astblock",
    metadata,
    _id(),
    Column("prefix", String(20), nullable=False),
    Column("client_id", Integer),
    Column("note", String(200), nullable=False, default=""),
    Column("enabled", SmallInteger, nullable=False, default=1),
    Column("date_created", Instant, nullable=False),
)

astcapacity = Table(
    "astcapacity",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("scope", String(8), nullable=False),
    Column("object_id", Integer, nullable=False),
    Column("direction", String(4), nullable=False),
    Column("calls", Integer, nullable=False, default=0),
)

astcreditres = Table(
    "astcreditres",
    metadata,
    Column("call_id", String(20), primary_key=True),
    Column("node", String(64), nullable=False),
    Column("uniqueid", String(150), nullable=False),
    Column("client_id", Integer, nullable=False),
    Column("accountcode", String(80), nullable=False),
    Column("reservedamount", Amount, nullable=False),
    Column("seconds", Integer, nullable=False),
    Column("date_created", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("account_id", Integer),
    Column("reseller_id", Integer),
    Column("route_id", Integer),
    Column("term_account_id", Integer),
    Column("term_client_id", Integer),
    Column("term_reseller_id", Integer),
    Column("routes_tried", String(400), nullable=False, default=""),
    Column("quota_month", String(7)),
    Column("quota_day", String(10)),
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
    Column("ani", String(80), nullable=False, default=""),
    Column("source", String(64), nullable=False, default=""),
    Column("ident_by", String(10), nullable=False, default=""),
    Column("tech_prefix", String(20), nullable=False, default=""),
    Column("reseller_id", Integer),
    Column("route_id", Integer),
    Column("term_account_id", Integer),
    Column("tried", String(1000), nullable=False, default=""),
    Column("cost_prefix", String(20), nullable=False, default=""),
    Column("cost_rate", Amount),
    Column("cost_connect_fee", Amount),
    Column("cost_first_increment", Integer),
    Column("cost_next_increment", Integer),
    Column("cost_grace_seconds", Integer),
    Column("cost_minimum_charge", Amount),
    Column("quota_month", String(7)),
    Column("quota_day", String(10)),
    Column("corrected", Amount),
    Column("corrected_at", Instant),
    Column("corrected_billsec", Integer),
    Column("corrected_answeredtime", Seconds),
    Column("corrected_ourcost", Amount),
)

astquota = Table(
    "astquota",
    metadata,
    Column("client_id", Integer, primary_key=True, autoincrement=False),
    Column("period", String(10), primary_key=True),
    Column("quota", Amount),
    Column("spent", Amount, nullable=False, default=0),
    Column("reserved", Amount, nullable=False, default=0),
    Column("waived", Amount, nullable=False, default=0),
    Column("told", Integer, nullable=False, default=0),
    Column("first_over_at", Instant),
    Column("last_over_at", Instant),
    Column("blocked_at", Instant),
    Column("reset_at", Instant),
)

asttemplate = Table(
    "asttemplate",
    metadata,
    _id(),
    Column("kind", String(32), nullable=False),
    Column("audience", String(8), nullable=False),
    Column("reseller_id", Integer),
    Column("subject", String(200), nullable=False),
    Column("body", Text, nullable=False),
    Column("html", Text),
    Column("headers", Text),
    Column("date_created", Instant, nullable=False),
)

astoutbox = Table(
    "astoutbox",
    metadata,
    _id(),
    Column("reference", String(120), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("audience", String(8), nullable=False),
    Column("client_id", Integer, nullable=False),
    Column("facts", Text, nullable=False),
    Column("status", String(10), nullable=False, default="waiting"),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt", Instant),
    Column("sender", String(80), nullable=False, default=""),
    Column("recipient", String(254), nullable=False, default=""),
    Column("error", String(200), nullable=False, default=""),
    Column("date_created", Instant, nullable=False),
    Column("sent_at", Instant),
    Column("handed_over_at", Instant),
    Column("taken_for", Text),
)

astnode = Table(
    "astnode",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("heard_until", Instant, nullable=False),
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
    most = _length(table.name, column)
    if len(text) <= most and text.isascii():
        return text
    return text[:most].encode("utf-8", "replace").decode()


@cache
def _length(table: str, column: str) -> int:
    """How many characters a column holds: looking that up in a Table takes longer than cutting."""
    return int(metadata.tables[table].c[column].type.length)  # type: ignore[attr-defined]


def id_of(table: Table, name: str) -> ScalarSelect[Any] | None:
    """The id that belongs to a name, as the database looks it up; NULL for no name."""
    if not name:
        return None
    return select(table.c.id).where(table.c.name == name).scalar_subquery()


CATALOG_VERSION = select(astcatalog.c.version).where(astcatalog.c.id == 1).scalar_subquery()
"""The catalog's version as the transaction sees it, for the rows that a change of it writes."""
