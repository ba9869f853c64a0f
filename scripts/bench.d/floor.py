"""The floor: what the database and one connection to it take to write the same rows, if nothing is
decided, heard or answered.

Hand-written multi-row statements, one transaction for each batch of calls: it locks the clients,
begins a batch of calls, answers the one before and ends the one before that, as the controller does
when as many calls begin as end. The rows are the controller's, column by column, and the books
balance afterwards.
"""

# ruff: noqa: S608 - what stands in these statements is made here
from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiomysql
from rows import MONEY

from astcredit.domain.instants import instant_text
from astcredit.domain.money import amount_text

_RESERVED = 1_080_000
_PRICE = 18_000
_MICRO = 1_000_000
_RATE = "'44','','EUR',0.018,0,30,6,0,0"
_CDR = (
    "id,node,uniqueid,linkedid,channel,client_id,account_id,accountcode,callerid,dialednum,"
    "callednum,prefix,destination,currency,rate,connect_fee,first_increment,next_increment,"
    "grace_seconds,minimum_charge,status,date_created,seconds,reservedamount,ani,source,ident_by,"
    "quota_month,quota_day"
)
_RESERVATION = (
    "call_id,node,uniqueid,client_id,accountcode,reservedamount,seconds,date_created,expires_at,"
    "account_id"
)
_LEDGER = "client_id,seq,kind,amount,balance_after,call_id,reference,actor,note,date_created"


@dataclass(frozen=True, slots=True)
class Floor:
    """Calls a second, and CPU in µs a call."""

    batch: int
    rate: float
    client: float
    database: float


@dataclass(frozen=True, slots=True)
class _Call:
    id: str
    serial: int
    client: int
    began: str

    @property
    def uniqueid(self) -> str:
        return f"1795292445.{2 * self.serial}"

    @property
    def leg(self) -> str:
        return f"1795292445.{2 * self.serial + 1}"


class _Books:
    """What the clients have. Amounts in micro-units."""

    def __init__(self, clients: int) -> None:
        self.balance = dict.fromkeys(range(1, clients + 1), MONEY * _MICRO)
        self.up = dict.fromkeys(self.balance, 0)
        self.seq = dict.fromkeys(self.balance, 1)


class _Writer:
    """Makes the statements of a transaction."""

    def __init__(self, clients: int) -> None:
        self._books = _Books(clients)
        self._clients = clients
        self._serial = 0

    def calls(self, count: int) -> list[_Call]:
        """New calls, of all clients in turn."""
        at = instant_text(time.time_ns() // 1_000_000)
        found = []
        for _ in range(count):
            self._serial += 1
            client = self._serial % self._clients + 1
            found.append(_Call(f"F{self._serial:019d}", self._serial, client, at))
        return found

    def transaction(
        self, new: Sequence[_Call], answered: Sequence[_Call], ended: Sequence[_Call]
    ) -> Iterator[str]:
        """All statements between BEGIN and COMMIT."""
        clients = sorted({call.client for call in (*new, *ended)})
        listed = ",".join(map(str, clients))
        yield (
            "SELECT id,balance,credit_limit,reserved,active_calls,ledger_seq FROM astclient"
            f" WHERE id IN ({listed}) ORDER BY id FOR UPDATE"
        )
        if new:
            yield from self._begin(new)
        if answered:
            yield from self._answer(answered)
        if ended:
            yield from self._end(ended)
        yield self._clients_changed(clients)
        yield self._counted(new, ended)

    def _begin(self, calls: Sequence[_Call]) -> Iterator[str]:
        for call in calls:
            self._books.up[call.client] += 1
        month, day = calls[0].began[:7], calls[0].began[:10]
        yield f"INSERT INTO astcdr ({_CDR}) VALUES " + ",".join(
            f"('{c.id}','bench','{c.uniqueid}','{c.uniqueid}','PJSIP/client-{c.serial:08x}',"
            f"{c.client},{c.client},'client{c.client}','4930123456','442071230001','442071230001',"
            f"{_RATE},'open','{c.began}',3600,1.08,'4930123456','192.0.2.7:5060','name',"
            f"'{month}','{day}')"
            for c in calls
        )
        yield f"INSERT INTO astcreditres ({_RESERVATION}) VALUES " + ",".join(
            f"('{c.id}','bench','{c.uniqueid}',{c.client},'client{c.client}',1.08,3600,"
            f"'{c.began}','{c.began}' + INTERVAL 4000 SECOND,{c.client})"
            for c in calls
        )

    def _answer(self, calls: Sequence[_Call]) -> Iterator[str]:
        at = calls[0].began
        yield _changed(
            "astcdr",
            "id",
            ("status", "leg_uniqueid", "trunk", "dialed_at", "answered_at"),
            [(c.id, "answered", c.leg, "PJSIP/carrier", at, at) for c in calls],
        )

    def _end(self, calls: Sequence[_Call]) -> Iterator[str]:
        at = instant_text(time.time_ns() // 1_000_000)
        columns = (
            "status", "dialstatus", "hangupcause", "dialed_at", "answered_at", "ended_at",
            "dialedtime", "answeredtime", "billsec", "price", "overrun_ms", "settled_by",
        )  # fmt: skip
        end = ("completed", "ANSWER", 16)
        rest = (at, "60.000", "60.000", 60, "0.018000", 0, "ami")
        rows = [(c.id, *end, c.began, c.began, *rest) for c in calls]
        yield _changed("astcdr", "id", columns, rows)
        ids = ",".join(f"'{c.id}'" for c in calls)
        yield f"DELETE FROM astcreditres WHERE call_id IN ({ids})"
        yield f"INSERT INTO astledger ({_LEDGER}) VALUES " + ",".join(
            self._charge(call, at) for call in calls
        )

    def _charge(self, call: _Call, at: str) -> str:
        books, client = self._books, call.client
        books.up[client] -= 1
        books.seq[client] += 1
        books.balance[client] -= _PRICE
        return (
            f"({client},{books.seq[client]},'charge',-0.018,{amount_text(books.balance[client])},"
            f"'{call.id}','call:{call.id}','ami','','{at}')"
        )

    def _clients_changed(self, clients: Sequence[int]) -> str:
        books = self._books
        changed = ("balance", "reserved", "active_calls", "ledger_seq")
        rows = ",".join(
            f"({c},'','','','2000-01-01',{amount_text(books.balance[c])},"
            f"{amount_text(books.up[c] * _RESERVED)},{books.up[c]},{books.seq[c]})"
            for c in clients
        )
        names = f"id,name,kind,currency,date_created,{','.join(changed)}"
        sets = ",".join(f"{column}=VALUES({column})" for column in changed)
        return f"INSERT INTO astclient ({names}) VALUES {rows} ON DUPLICATE KEY UPDATE {sets}"

    def _counted(self, new: Sequence[_Call], ended: Sequence[_Call]) -> str:
        accounts = sorted({f"account:{c.client}:orig": c.client for c in (*new, *ended)}.items())
        rows = ",".join(
            f"('{key}','account',{client},'orig',{self._books.up[client]})"
            for key, client in accounts
        )
        return (
            f"INSERT INTO astcapacity (id,scope,object_id,direction,calls) VALUES {rows}"
            " ON DUPLICATE KEY UPDATE calls=VALUES(calls)"
        )


def _changed(table: str, key: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A statement that sets columns of many rows: a join with a table made of constants."""
    names = ("k", *(f"c{n}" for n in range(len(columns))))
    head = ",".join(f"{value!r} {name}" for value, name in zip(rows[0], names, strict=True))
    others = "".join(f" UNION ALL SELECT {','.join(map(repr, row))}" for row in rows[1:])
    sets = ",".join(f"t.{column}=v.c{n}" for n, column in enumerate(columns))
    joined = f"{table} t FORCE INDEX (PRIMARY) ON t.{key}=v.k"
    return f"UPDATE (SELECT {head}{others}) v STRAIGHT_JOIN {joined} SET {sets}"


async def write(url: str, clients: int, batch: int, seconds: float) -> int:
    """Write whole calls, so many in a transaction, for so long; how many there were."""
    at = urlsplit(url)
    connection: Any = await aiomysql.connect(
        unix_socket=parse_qs(at.query)["unix_socket"][0],
        user=at.username,
        password=at.password or "",
        db=at.path.strip("/"),
    )
    writer = _Writer(clients)
    calls, pipeline = 0, [list[_Call](), list[_Call](), list[_Call]()]
    end = time.monotonic() + seconds
    async with connection.cursor() as cursor:
        while True:
            new = writer.calls(batch) if time.monotonic() < end else []
            calls += len(new)
            pipeline = [new, *pipeline[:2]]
            if not any(pipeline):
                break
            await cursor.execute("START TRANSACTION")
            for statement in writer.transaction(*pipeline):
                await cursor.execute(statement)
            await cursor.execute("COMMIT")
    connection.close()
    return calls


def run(url: str, clients: int, batch: int, seconds: float) -> int:
    """`write`, from code that has no event loop."""
    return asyncio.run(write(url, clients, batch, seconds))
